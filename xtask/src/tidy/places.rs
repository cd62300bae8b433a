//! No file names a directory of the machine on which it was written.

use super::{Finding, Tree};

const RULE: &str = "places";
// Written in two halves, so that this file does not find itself.
const PLACES: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Checks all files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        for (index, line) in text.lines().enumerate() {
            let Some(place) = PLACES.iter().find(|place| names(line, place)) else { continue };
            findings.push(Finding {
                path: path.into(),
                line: index + 1,
                rule: RULE,
                what: format!("names {place}"),
                cure: "use a relative path, a temporary directory or an option",
            });
        }
    }
    findings
}

/// True when `place` begins a path in `line` (and is not the middle of one, or of a URL).
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '*'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_developers_machine_are_found() {
        for place in PLACES {
            let text = format!("cd {place}x\nsee src{place}x and https://a.b{place}\n");
            let lines: Vec<_> =
                check(&Tree::sample(&[("a.md", &text)])).into_iter().map(|one| one.line).collect();
            assert_eq!(lines, [1], "{place}");
        }
    }
}
