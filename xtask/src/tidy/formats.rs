//! Each format that is on disk or on the wire has golden vectors, and its page says where.

use super::{Finding, Tree};

const RULE: &str = "formats";
const MARK: &str = "Golden vectors: `";
const CURE: &str = "write \"Golden vectors: `crates/…/tests/golden/…`\" and put them there";

/// Checks the pages of `docs/formats/`.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_suffix(".md") {
        if !path.starts_with("docs/formats/") || path.ends_with("/README.md") {
            continue;
        }
        let named: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .filter_map(|(index, line)| {
                let (_, after) = line.split_once(MARK)?;
                Some((index + 1, after.split_once('`')?.0))
            })
            .collect();
        let finding =
            |line, what: String| Finding { path: path.into(), line, rule: RULE, what, cure: CURE };
        if named.is_empty() {
            findings.push(finding(0, "names no golden vectors".into()));
        }
        for (line, place) in named {
            if !place.contains("/golden") || !tree.contains(place) {
                findings.push(finding(line, format!("{place} does not exist")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_without_golden_vectors_is_found() {
        let good = "Golden vectors: `crates/x/tests/golden/`.\n";
        let bad = "Golden vectors: `crates/y/tests/golden/`.\n";
        let tree = Tree::sample(&[
            ("crates/x/tests/golden/a.hex", ""),
            ("docs/formats/good.md", good),
            ("docs/formats/bad.md", bad),
            ("docs/formats/none.md", "# None\n"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|one| (one.path, one.line)).collect();
        assert_eq!(found, [("docs/formats/bad.md".into(), 1), ("docs/formats/none.md".into(), 0)]);
    }
}
