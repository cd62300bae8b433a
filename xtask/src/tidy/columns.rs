//! Lines of code and comments are at most 100 columns.
//!
//! Left out: Markdown (the rendered text wraps), lines with a URL, tables marked `// tidy: table`
//! (to the next line that is a closing bracket in column 1), and files that a tool writes.

use super::{Finding, Tree};

const RULE: &str = "columns";
const COLUMNS_MAX: usize = 100;
const SUFFIXES: &[&str] = &[".rs", ".toml", ".c", ".h", "Makefile", ".ci/run"];
/// Marks the table that begins on the next line.
pub(super) const TABLE: &str = "// tidy: table";

/// Checks all code.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        if !SUFFIXES.iter().any(|suffix| path.ends_with(suffix)) {
            continue;
        }
        let mut in_table = false;
        for (index, line) in text.lines().enumerate() {
            in_table |= line.trim() == TABLE;
            in_table &= !line.starts_with(['}', ']', ')']);
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !in_table && !is_exempt(path, line) {
                let what = format!("{columns} columns");
                let cure = "wrap at 100";
                let line = index + 1;
                findings.push(Finding { path: path.into(), line, rule: RULE, what, cure });
            }
        }
    }
    findings
}

/// A URL can't be wrapped; a dependency's line in a manifest reads best whole; so do messages and
/// pictures.
fn is_exempt(path: &str, line: &str) -> bool {
    line.contains("https://")
        || path.ends_with(".toml") && line.contains(" = ")
        || line.contains(['─', '│', '►', '◄', '▲', '▼'])
        || longest_quote(line) >= MESSAGE_COLUMNS_MIN
}

/// A text in quotes of at least this many characters is a message.
const MESSAGE_COLUMNS_MIN: usize = 40;

/// The length of the longest text between two quotes, or from the last one to the end of the line.
fn longest_quote(line: &str) -> usize {
    line.split('"').skip(1).step_by(2).map(|text| text.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_found_but_not_tables_and_urls() {
        let long = "x".repeat(101);
        let text = format!(
            "{long}\n// https://{long}\n{TABLE}\nconst A: &[u8] = &[\n{long}\n];\n{long}\n"
        );
        let tree = Tree::sample(&[("a.rs", &text), ("a.md", &long), ("b.rs", &long[1..])]);
        let lines: Vec<_> = check(&tree).into_iter().map(|one| one.line).collect();
        assert_eq!(lines, [1, 7]);
    }

    #[test]
    fn messages_and_pictures_stay_whole() {
        let message = format!("    f(\"{}\");", "x".repeat(101));
        let picture = format!("//! ──► {}", "x".repeat(101));
        assert!(check(&Tree::sample(&[("a.rs", &message), ("b.rs", &picture)])).is_empty());
        let code = format!("    f(\"a\", {}, \"b\");", "x".repeat(101));
        assert_eq!(check(&Tree::sample(&[("a.rs", &code)])).len(), 1);
    }

    #[test]
    fn columns_are_characters_not_bytes() {
        assert!(check(&Tree::sample(&[("a.rs", &"ä".repeat(100))])).is_empty());
    }
}
