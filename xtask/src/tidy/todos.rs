//! A note of something to be done names the issue that will do it: `TODO(#12)`.

use super::{Finding, Tree};

const RULE: &str = "todo";
// Written in two halves, so that this file does not find itself.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Checks all files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        for (index, line) in text.lines().enumerate() {
            if MARKS.iter().any(|mark| has_bare_mark(line, mark)) {
                findings.push(Finding {
                    path: path.into(),
                    line: index + 1,
                    rule: RULE,
                    what: "a mark without an issue".into(),
                    cure: "write it as MARK(#issue), or do it now",
                });
            }
        }
    }
    findings
}

fn has_bare_mark(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + mark.len()..];
        let is_word = before.is_some_and(char::is_alphanumeric)
            || after.chars().next().is_some_and(char::is_alphanumeric);
        let has_issue = after.strip_prefix("(#").is_some_and(|rest| {
            rest.split_once(')')
                .is_some_and(|(id, _)| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()))
        });
        !is_word && !has_issue
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_needs_an_issue() {
        let text =
            MARKS.map_lines(|mark| format!("// {mark}: later\n// {mark}(#12) later\n// {mark}S\n"));
        let lines: Vec<_> =
            check(&Tree::sample(&[("a.rs", &text)])).into_iter().map(|one| one.line).collect();
        assert_eq!(lines, [1, 4, 7]);
    }

    trait MapLines {
        fn map_lines(&self, line: impl Fn(&str) -> String) -> String;
    }

    impl MapLines for &[&str] {
        fn map_lines(&self, line: impl Fn(&str) -> String) -> String {
            self.iter().map(|mark| line(mark)).collect()
        }
    }
}
