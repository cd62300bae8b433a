//! Relative links in Markdown lead somewhere, and so do pages (`docs/….md`) that
//! comments name.

use super::{Finding, Tree};

const RULE: &str = "links";

/// Checks all Markdown files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_suffix(".md") {
        for (index, line) in text.lines().enumerate() {
            for target in targets(line) {
                if !tree.contains(&resolve(path, target)) {
                    let what = format!("the link to {target} leads nowhere");
                    let cure = "mend or remove it";
                    let line = index + 1;
                    findings.push(Finding { path: path.into(), line, rule: RULE, what, cure });
                }
            }
        }
    }
    for (path, text) in tree.with_suffix(".rs") {
        let comments = text.lines().enumerate().filter(|(_, l)| l.trim_start().starts_with("//"));
        for (index, line) in comments {
            for page in pages(line).filter(|page| !tree.contains(page)) {
                let what = format!("the page {page} does not exist");
                let cure = "write it, or name the right one";
                let line = index + 1;
                findings.push(Finding { path: path.into(), line, rule: RULE, what, cure });
            }
        }
    }
    findings
}

/// The pages that a line names; one with a variable part can't be checked.
fn pages(line: &str) -> impl Iterator<Item = &str> {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
    line.match_indices(concat!("do", "cs/")).filter_map(move |(at, _)| {
        let page = line[at..].split(is_end).next()?.trim_end_matches('.');
        let is_whole = page.ends_with(".md") && !line[..at].ends_with(['/', '.']);
        is_whole.then_some(page)
    })
}

/// The relative targets of `[text](target)` in a line, without what follows `#`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#']).next()?;
        let is_relative = !target.is_empty() && !target.contains("://");
        (is_relative && !target.starts_with("mailto:")).then_some(target)
    })
}

/// The path from the root of `target` as written in the file `from`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_is_found() {
        let text = "[a](b.md) [c](../x/) [d](https://e.f/g) [h](#here)\n[i](../gone.md#j)\n";
        let tree = Tree::sample(&[("docs/a.md", text), ("docs/b.md", ""), ("x/y.rs", "")]);
        let found: Vec<_> = check(&tree).into_iter().map(|one| (one.line, one.what)).collect();
        assert_eq!(found, [(2, "the link to ../gone.md leads nowhere".to_owned())]);
    }

    #[test]
    fn a_page_that_a_comment_names_must_exist() {
        let page = concat!("do", "cs/b.md");
        let gone = concat!("do", "cs/gone.md");
        let code = format!("//! See `{page}`.\n//! See {gone}.\n//! https://x/{gone} {gone}x\n");
        let tree = Tree::sample(&[(page, ""), ("a.rs", &code)]);
        let found: Vec<_> = check(&tree).into_iter().map(|one| one.line).collect();
        assert_eq!(found, [2]);
    }
}
