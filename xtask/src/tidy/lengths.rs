//! Functions are at most 70 lines, files at most 500 (softly) and 800 (hard), tests not counted.
//! An exception in `tidy.toml` may shrink, never grow.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::columns::TABLE;
use super::rust::{Function, Source};
use super::{Finding, Tree};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_SOFT: usize = 500;
const FILE_LINES_MAX: usize = 800;

/// The content of `tidy.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    rule: String,
    path: String,
    lines: usize,
    reason: String,
}

impl Exceptions {
    /// Reads `tidy.toml`.
    ///
    /// # Errors
    /// When it is malformed.
    pub(super) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("read tidy.toml")
    }
}

/// A thing with a length.
struct Measured {
    rule: &'static str,
    /// The file, for a function with `::name`.
    key: String,
    path: String,
    line: usize,
    lines: usize,
    max: usize,
}

/// Checks all Rust and C files.
pub(super) fn check(exceptions: &Exceptions, tree: &Tree) -> Vec<Finding> {
    let measured = measure(tree);
    let mut findings = Vec::new();
    for one in &measured {
        let exception =
            exceptions.exception.iter().find(|e| e.rule == one.rule && e.path == one.key);
        let max = exception.map_or(one.max, |exception| exception.lines);
        let what = format!("{} has {} lines, at most {max}", one.key, one.lines);
        if one.lines > max {
            findings.push(one.finding(what, "split it by what it does"));
        } else if exception.is_some() && one.lines < max {
            findings.push(one.finding(what, "lower (or remove) its exception in tidy.toml"));
        }
    }
    for exception in &exceptions.exception {
        let is_known = measured.iter().any(|o| o.rule == exception.rule && o.key == exception.path);
        if !is_known || exception.reason.is_empty() {
            findings.push(Finding {
                path: "tidy.toml".into(),
                line: 0,
                rule: "exceptions",
                what: format!("{} {} is unknown or has no reason", exception.rule, exception.path),
                cure: "remove it, or give the reason",
            });
        }
    }
    findings
}

/// Files over the soft limit: to be split when they are next worked on.
pub(super) fn notes(tree: &Tree) -> Vec<String> {
    measure(tree)
        .into_iter()
        .filter(|one| one.rule == "file-lines" && one.lines > FILE_LINES_SOFT)
        .map(|one| format!("{} has {} lines; aim at {FILE_LINES_SOFT}", one.path, one.lines))
        .collect()
}

fn measure(tree: &Tree) -> Vec<Measured> {
    let mut measured = Vec::new();
    for (path, text) in tree.files() {
        let is_rust = path.ends_with(".rs");
        if !is_rust && !path.ends_with(".c") {
            continue;
        }
        let source = if is_rust { Source::parse(text) } else { Source::default() };
        let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
        let lines = text.lines().count() - source.test_lines();
        let lines = if is_test { 0 } else { lines };
        measured.push(Measured {
            rule: "file-lines",
            key: path.into(),
            path: path.into(),
            line: 0,
            lines,
            max: FILE_LINES_MAX,
        });
        let all: Vec<&str> = text.lines().collect();
        let functions = source.functions.iter().filter(|one| !is_test && !is_table(&all, one));
        for function in functions {
            measured.push(Measured {
                rule: "function-lines",
                key: format!("{path}::{}", function.name),
                path: path.into(),
                line: function.first_line,
                lines: function.last_line - function.first_line + 1,
                max: FUNCTION_LINES_MAX,
            });
        }
    }
    measured
}

/// True when the line above the function, or its first line, says that it is a table.
fn is_table(lines: &[&str], function: &Function) -> bool {
    let around = function.first_line.saturating_sub(3)..(function.first_line + 1).min(lines.len());
    lines[around].iter().any(|line| line.trim() == TABLE)
}

impl Measured {
    fn finding(&self, what: String, cure: &'static str) -> Finding {
        Finding { path: self.path.clone(), line: self.line, rule: self.rule, what, cure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    fn count(exceptions: &str, text: &str) -> usize {
        let exceptions = Exceptions::parse(exceptions).expect("the sample is well-formed");
        check(&exceptions, &Tree::sample(&[("a.rs", text)])).len()
    }

    #[test]
    fn a_long_function_is_found_unless_it_is_a_table_or_a_test() {
        assert_eq!(count("", &function(70)), 0);
        assert_eq!(count("", &function(71)), 1);
        assert_eq!(count("", &format!("{TABLE}\n{}", function(71))), 0);
        assert_eq!(count("", &format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(71))), 0);
    }

    #[test]
    fn a_long_file_is_found_without_counting_tests() {
        let lines = "const A: u8 = 0;\n";
        assert_eq!(count("", &lines.repeat(800)), 0);
        assert_eq!(count("", &lines.repeat(801)), 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines.repeat(100));
        assert_eq!(count("", &(lines.repeat(800) + &tests)), 0);
    }

    #[test]
    fn an_exception_may_shrink_but_not_grow() {
        let exception = |lines| {
            format!(
                "[[exception]]\nrule = 'function-lines'\npath = 'a.rs::f'\n\
                 lines = {lines}\nreason = 'x'\n"
            )
        };
        assert_eq!(count(&exception(90), &function(90)), 0);
        assert_eq!(count(&exception(90), &function(91)), 1);
        assert_eq!(count(&exception(90), &function(89)), 1);
        assert_eq!(count(&exception(90), "fn other() {}\n"), 1, "an exception for nothing");
    }

    #[test]
    fn the_soft_limit_is_a_note() {
        let text = "const A: u8 = 0;\n".repeat(501);
        assert_eq!(notes(&Tree::sample(&[("a.rs", &text)])).len(), 1);
    }
}
