//! Every stable error code has a page that says the same as the registry.

use super::{Finding, Tree};
use crate::errors::{self, REGISTRY};

const RULE: &str = "error-pages";
const CURE: &str = "run `cargo xtask errors`, then fill in or remove the page";

/// Checks `docs/errors/` against the registry.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let codes = errors::parse(tree.text(REGISTRY).unwrap_or_default());
    let mut findings = Vec::new();
    let finding = |path: &str, what: String| Finding {
        path: path.into(),
        line: 0,
        rule: RULE,
        what,
        cure: CURE,
    };
    if codes.is_empty() {
        findings.push(finding(REGISTRY, "no code was found in the registry".into()));
    }
    for code in &codes {
        let path = errors::page_path(&code.name);
        match tree.text(&path) {
            Err(_) => findings.push(finding(REGISTRY, format!("{} has no page", code.name))),
            Ok(text) if !text.starts_with(&code.head()) => {
                findings.push(finding(&path, "the head differs from the registry".into()));
            }
            Ok(_) => {}
        }
    }
    for (path, _) in tree.files().filter(|(path, _)| path.starts_with("docs/errors/")) {
        let is_known = codes.iter().any(|code| errors::page_path(&code.name) == path);
        if !is_known && path != errors::INDEX {
            findings.push(finding(path, "the code is not in the registry".into()));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_stale_and_unknown_pages_are_found() {
        let registry = "/// Doc one.\nONE = \"one\", 409, Permanent, \"do this\";\n\
             /// Doc two.\nTWO = \"two\", 404, Transient, \"do that\";\n";
        let two = errors::parse(registry)[1].head() + "\nMore.\n";
        let good = Tree::sample(&[
            (REGISTRY, registry),
            ("docs/errors/one.md", &errors::parse(registry)[0].head()),
            ("docs/errors/two.md", &two),
        ]);
        assert!(check(&good).is_empty());
        let bad = Tree::sample(&[
            (REGISTRY, registry),
            ("docs/errors/two.md", "# two\n"),
            ("docs/errors/three.md", "# three\n"),
        ]);
        let found: Vec<_> = check(&bad).into_iter().map(|one| one.path).collect();
        assert_eq!(found, [REGISTRY, "docs/errors/two.md", "docs/errors/three.md"]);
        assert_eq!(check(&Tree::default()).len(), 1, "a registry that is not understood");
    }
}
