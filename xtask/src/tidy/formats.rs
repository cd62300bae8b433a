//! Each format that is on disk or on the wire has golden vectors, and its page says where.

use super::{Finding, Tree};

const RULE: &str = "formats";
const CURE: &str = "name the folder (crates/…/tests/golden…) on the page, and put them there";

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
            .flat_map(|(index, line)| places(line).map(move |place| (index + 1, place)))
            .collect();
        let finding =
            |line, what: String| Finding { path: path.into(), line, rule: RULE, what, cure: CURE };
        if named.is_empty() {
            findings.push(finding(0, "names no golden vectors".into()));
        }
        for (line, place) in named {
            if !tree.contains(place) {
                findings.push(finding(line, format!("{place} does not exist")));
            }
        }
    }
    findings
}

/// The paths to golden vectors in a line; a pattern (`*.hex`) stands for its folder.
fn places(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| c.is_whitespace() || matches!(c, '`' | '(' | ')' | ','));
    words
        .filter(|word| word.starts_with("crates/") && word.contains("/tests/golden"))
        .map(|word| word.split('*').next().unwrap_or(word).trim_end_matches(['.', ';', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_without_golden_vectors_is_found() {
        let good = "# Good\nGolden vectors are in `crates/x/tests/golden/*.hex`.\n";
        let bad = "See `crates/y/tests/golden/*.hex`.\n";
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
