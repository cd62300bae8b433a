//! Which crate may depend on which: `deps.toml` against `cargo metadata`.

use anyhow::Result;
use serde::Deserialize;

use super::Finding;
use crate::metadata::{Metadata, Package};

const RULE: &str = "layers";
const MANIFEST: &str = "deps.toml";

/// The content of `deps.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    #[serde(rename = "crate")]
    crates: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    layer: u8,
    plane: Plane,
    #[serde(default)]
    pure: bool,
    #[serde(default)]
    sideways: Vec<String>,
    third_party: Option<Vec<String>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
enum Plane {
    Shared,
    Data,
    Control,
    Front,
    Dev,
}

impl Plane {
    /// Whether a crate of this plane may contain one of `other`, at any depth.
    fn may_contain(self, other: Self) -> bool {
        match self {
            Self::Shared => other == Self::Shared,
            Self::Data => matches!(other, Self::Shared | Self::Data),
            Self::Control => matches!(other, Self::Shared | Self::Control),
            Self::Front => other != Self::Dev,
            Self::Dev => true,
        }
    }
}

impl Rules {
    /// Reads `deps.toml`.
    ///
    /// # Errors
    /// When it is malformed.
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    fn get(&self, name: &str) -> Option<&Rule> {
        self.crates.iter().find(|rule| rule.name == name)
    }

    /// The names of the crates that must be pure.
    pub(super) fn pure(&self) -> impl Iterator<Item = &str> {
        self.crates.iter().filter(|rule| rule.pure).map(|rule| rule.name.as_str())
    }
}

/// Checks every edge of the workspace.
pub(super) fn check(rules: &Rules, metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata.members() {
        let Some(rule) = rules.get(&package.name) else {
            findings.push(finding(package, "is not in deps.toml".into(), "give it a layer there"));
            continue;
        };
        check_edges(rules, rule, package, &mut findings);
        for name in metadata.closure(&package.name) {
            let Some(other) = rules.get(&name).filter(|other| other.plane != Plane::Dev) else {
                continue;
            };
            if !rule.plane.may_contain(other.plane) {
                let what = format!("{:?} contains {name} of plane {:?}", rule.plane, other.plane);
                findings.push(finding(package, what, "let them meet in a shared crate"));
            }
        }
    }
    for rule in &rules.crates {
        if !metadata.members().any(|package| package.name == rule.name) {
            let package = Package { name: rule.name.clone(), ..Package::default() };
            findings.push(finding(&package, "is not in the workspace".into(), "remove its entry"));
        }
    }
    findings
}

fn check_edges(rules: &Rules, rule: &Rule, package: &Package, findings: &mut Vec<Finding>) {
    for edge in package.dependencies.iter().filter(|edge| edge.kind.as_deref() != Some("dev")) {
        if let Some(other) = rules.get(&edge.name) {
            // Test doubles live behind an optional feature of the crate that owns the trait.
            let is_test_double = edge.optional && other.plane == Plane::Dev;
            let goes_down = other.layer < rule.layer || is_test_double;
            if !goes_down && !rule.sideways.contains(&edge.name) {
                let what = format!(
                    "(layer {}) depends on {} (layer {})",
                    rule.layer, other.name, other.layer
                );
                findings.push(finding(package, what, "turn the edge around, or list it sideways"));
            }
        } else if let Some(allowed) = &rule.third_party
            && !allowed.contains(&edge.name)
        {
            let what = format!("may not use {}", edge.name);
            let cure = "do without, or give the reason in docs/dependencies.md and list it";
            findings.push(finding(package, what, cure));
        }
    }
}

/// xtask installs clang and libelf, so that it must not need them to be built.
pub(super) fn check_bootstrap(plain: &Metadata) -> Vec<Finding> {
    let needs = plain.closure("xtask");
    let broken = needs.contains("libbpf-sys") || needs.contains("libbpf-cargo");
    let package = Package { name: "xtask".into(), ..Package::default() };
    let what = "needs libbpf in its plain build".to_owned();
    broken
        .then(|| finding(&package, what, "move the dependency behind the feature bench"))
        .into_iter()
        .collect()
}

fn finding(package: &Package, what: String, cure: &'static str) -> Finding {
    Finding {
        path: MANIFEST.into(),
        line: 0,
        rule: RULE,
        what: format!("{} {what}", package.name),
        cure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::sample;

    const RULES: &str = r#"
        crate = [
            { name = "types", layer = 0, plane = "shared", third_party = ["bytes"] },
            { name = "store", layer = 1, plane = "control" },
            { name = "journal", layer = 1, plane = "data", pure = true },
            { name = "volume", layer = 1, plane = "data", sideways = ["journal"] },
        ]
    "#;

    fn found(members: &[(&str, &[&str])]) -> Vec<String> {
        let rules = Rules::parse(RULES).expect("the sample is well-formed");
        check(&rules, &sample(members)).into_iter().map(|finding| finding.what).collect()
    }

    fn all<'a>(replaced: (&'a str, &'a [&'a str])) -> Vec<(&'a str, &'a [&'a str])> {
        let plain: [(&str, &[&str]); 4] = [
            ("types", &["bytes"]),
            ("store", &["types"]),
            ("journal", &["types"]),
            ("volume", &["types", "journal"]),
        ];
        plain.map(|one| if one.0 == replaced.0 { replaced } else { one }).to_vec()
    }

    #[test]
    fn the_allowed_edges_are_allowed() {
        assert!(found(&all(("types", &["bytes"]))).is_empty());
    }

    #[test]
    fn an_edge_upwards_or_unlisted_sideways_is_found() {
        assert!(found(&all(("types", &["journal"])))[0].contains("types (layer 0) depends on"));
        let sideways = found(&all(("journal", &["volume"])));
        assert!(sideways.iter().any(|what| what.contains("journal (layer 1) depends on volume")));
    }

    #[test]
    fn data_that_contains_control_is_found_at_any_depth() {
        let lines = found(&all(("journal", &["store"])));
        assert!(lines.iter().any(|what| what.starts_with("journal Data contains store")));
        assert!(lines.iter().any(|what| what.starts_with("volume Data contains store")));
    }

    #[test]
    fn an_unlisted_third_party_crate_is_found() {
        assert_eq!(found(&all(("types", &["tokio"]))), ["types may not use tokio"]);
    }

    #[test]
    fn a_crate_without_entry_and_an_entry_without_crate_are_found() {
        let mut members = all(("types", &[]));
        members[1].0 = "new";
        let lines = found(&members);
        assert!(lines.contains(&"new is not in deps.toml".to_owned()));
        assert!(lines.contains(&"store is not in the workspace".to_owned()));
    }

    #[test]
    fn an_xtask_that_needs_what_it_installs_is_found() {
        let needs =
            sample(&[("xtask", &["capture"]), ("capture", &["libbpf-sys"]), ("libbpf-sys", &[])]);
        assert_eq!(check_bootstrap(&needs).len(), 1);
        assert!(check_bootstrap(&sample(&[("xtask", &[])])).is_empty());
    }
}
