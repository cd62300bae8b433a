//! Relative links in Markdown lead somewhere.

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
    findings
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
}
