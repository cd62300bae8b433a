//! The house rules that a compiler does not check.
//!
//! Each rule is a function over the [`Tree`] (all text files, in memory), so that its test can show
//! on a small tree that it fails when it should. A finding names the file, the line and the cure.

mod columns;
mod crates;
mod error_pages;
mod formats;
mod identifiers;
mod layers;
mod lengths;
mod links;
mod places;
mod purity;
mod rust;
mod third_party;
mod todos;
mod tree;

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::metadata;
pub(crate) use tree::Tree;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 is the file as a whole.
    line: usize,
    rule: &'static str,
    what: String,
    cure: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {} → {}", self.path, self.line, self.rule, self.what, self.cure)
    }
}

/// Applies all rules to the checkout.
///
/// # Errors
/// When a rule is broken; every finding is printed.
pub(crate) fn run() -> Result<()> {
    let root = crate::process::root();
    let tree = Tree::load(&root)?;
    let metadata = metadata::load_all_features()?;
    let plain = metadata::load()?;
    let rules = layers::Rules::parse(tree.text("deps.toml")?).context("read deps.toml")?;
    let exceptions = lengths::Exceptions::parse(tree.text("tidy.toml")?)?;
    let mut findings = Vec::new();
    findings.extend(layers::check(&rules, &metadata));
    findings.extend(layers::check_bootstrap(&plain));
    findings.extend(purity::check(&rules, &tree));
    findings.extend(crates::check(&metadata, &tree));
    findings.extend(third_party::check(&metadata, &tree));
    findings.extend(columns::check(&tree));
    findings.extend(lengths::check(&exceptions, &tree));
    findings.extend(todos::check(&tree));
    findings.extend(identifiers::check(&tree));
    findings.extend(error_pages::check(&tree));
    findings.extend(places::check(&tree));
    findings.extend(formats::check(&tree));
    findings.extend(links::check(&tree));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    for note in lengths::notes(&tree) {
        println!("note: {note}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}
