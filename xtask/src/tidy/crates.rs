//! Each crate says what it is for: a description in its manifest, `//!` docs in its first file.

use super::{Finding, Tree};
use crate::metadata::Metadata;

const RULE: &str = "crate-docs";

/// The documentation of a crate that is still empty begins like this.
const PLACEHOLDER: &str = "Placeholder";

/// Checks every member.
pub(super) fn check(metadata: &Metadata, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata.members() {
        if package.description.as_deref().unwrap_or_default().is_empty() {
            let what = format!("{} has no description", package.name);
            let cure = "say in one line what it is for";
            findings.push(Finding { path: "Cargo.toml".into(), line: 0, rule: RULE, what, cure });
        }
    }
    for (path, text) in tree.files() {
        let is_root = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
        let docs: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if is_root && (docs.is_empty() || docs[0].contains(PLACEHOLDER)) {
            let what = "the crate has no docs".into();
            let cure = "begin with //!: the problem, the invariants, where to start reading";
            findings.push(Finding { path: path.into(), line: 1, rule: RULE, what, cure });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::sample;

    #[test]
    fn missing_descriptions_and_docs_are_found() {
        let mut metadata = sample(&[("a", &[]), ("b", &[])]);
        metadata.packages[1].description = Some(String::new());
        let tree = Tree::sample(&[
            ("crates/a/src/lib.rs", "//! Good.\n"),
            ("crates/b/src/lib.rs", "mod x;\n"),
            ("crates/c/src/lib.rs", "//! Placeholder while …\n"),
            ("crates/c/src/x.rs", "fn f() {}\n"),
        ]);
        let found: Vec<_> = check(&metadata, &tree).into_iter().map(|one| one.path).collect();
        assert_eq!(found, ["Cargo.toml", "crates/b/src/lib.rs", "crates/c/src/lib.rs"]);
    }
}
