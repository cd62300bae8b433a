//! Every crate of others has its reason in `docs/dependencies.md`, and every reason has its crate.

use std::collections::BTreeSet;

use super::{Finding, Tree};
use crate::metadata::Metadata;

const RULE: &str = "dependencies";
const PAGE: &str = "docs/dependencies.md";

/// Compares the page with what the members name.
pub(super) fn check(metadata: &Metadata, tree: &Tree) -> Vec<Finding> {
    let members: BTreeSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    let named: BTreeSet<&str> = metadata
        .members()
        .flat_map(|package| &package.dependencies)
        .map(|dependency| dependency.name.as_str())
        .filter(|name| !members.contains(name))
        .collect();
    let listed: BTreeSet<&str> =
        tree.text(PAGE).unwrap_or_default().lines().filter_map(listed_in).collect();
    let finding = |what, cure| Finding { path: PAGE.into(), line: 0, rule: RULE, what, cure };
    let unlisted = named.difference(&listed);
    let unlisted = unlisted.map(|name| finding(format!("{name} has no line"), "give the reason"));
    let unused = listed.difference(&named);
    let unused = unused.map(|name| finding(format!("nothing uses {name}"), "remove its line"));
    unlisted.chain(unused).collect()
}

/// The crate that a row of the page's table is about.
fn listed_in(line: &str) -> Option<&str> {
    let name = line.strip_prefix("| ")?.split(' ').next()?;
    (name != "crate").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::sample;

    #[test]
    fn a_crate_without_reason_and_a_reason_without_crate_are_found() {
        let metadata = sample(&[("ours", &["bytes", "new", "other"]), ("other", &[])]);
        let page = "| crate | why |\n|---|---|\n| bytes | x |\n| gone | x |\n";
        let found: Vec<_> = check(&metadata, &Tree::sample(&[(PAGE, page)]))
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        assert_eq!(found, ["new has no line", "nothing uses gone"]);
    }
}
