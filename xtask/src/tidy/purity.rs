//! Pure crates take time, randomness and input as arguments: that is what lets a simulator run
//! them.

use super::rust::Source;
use super::{Finding, Tree, layers::Rules};

const RULE: &str = "purity";

/// Paths, or beginnings of paths, that a pure crate does not name.
const BANNED: &[&str] = &[
    "tokio",
    "rustix",
    "libc",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::os",
    "std::time::SystemTime",
    "std::time::Instant",
    "SystemTime::now",
    "Instant::now",
];

/// Checks the code (not the tests) of the pure crates.
pub(super) fn check(rules: &Rules, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in rules.pure() {
        let folder = format!("crates/{}/src/", name.trim_start_matches("landfall-"));
        for (path, text) in tree.with_suffix(".rs") {
            if !path.starts_with(&folder) || path.ends_with("/tests.rs") {
                continue;
            }
            for (named, line) in Source::parse(text).paths {
                if BANNED.iter().any(|banned| is_at_or_below(&named, banned)) {
                    let what = format!("{named} in the pure crate {name}");
                    let cure = "take it as an input, or move the code into a shell";
                    findings.push(Finding { path: path.into(), line, rule: RULE, what, cure });
                }
            }
        }
    }
    findings
}

fn is_at_or_below(named: &str, banned: &str) -> bool {
    named.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_and_clocks_are_found_but_not_in_tests_or_shells() {
        let rules = Rules::parse(
            r#"crate = [
                { name = "landfall-repl", layer = 1, plane = "data", pure = true },
                { name = "landfall-nbd", layer = 1, plane = "data" },
            ]"#,
        )
        .expect("the sample is well-formed");
        let text = "use std::{fs, fmt};\nfn f() { Instant::now(); }\n\
             #[cfg(test)]\nmod t { use std::net; }\n";
        let tree = Tree::sample(&[("crates/repl/src/a.rs", text), ("crates/nbd/src/a.rs", text)]);
        let found: Vec<_> =
            check(&rules, &tree).into_iter().map(|one| (one.path, one.line, one.what)).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].2.starts_with("std::fs in"));
        assert_eq!(found[1].1, 2);
        assert!(is_at_or_below("tokio", "tokio") && !is_at_or_below("tokio_util", "tokio"));
    }
}
