//! Bans, licences and sources of the dependencies, by the rules of `deny.toml`.
//!
//! `deny.toml` is cargo-deny's file. Building cargo-deny takes longer than building Landfall, so
//! that the three checks that need no network are here too; where cargo-deny is installed it runs
//! as well.

mod spdx;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::metadata::{self, Metadata};
use crate::process;

/// The part of `deny.toml` that is checked here.
#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// A licence that one crate may have.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// Checks every package that a build contains.
///
/// # Errors
/// When one breaks a rule; each is printed with its cure.
pub(crate) fn run() -> Result<()> {
    let text = std::fs::read_to_string(process::root().join("deny.toml"))?;
    let rules: Rules = toml::from_str(&text).context("read deny.toml")?;
    let mut metadata = metadata::load_all_features()?;
    let built = metadata::built()?;
    metadata.packages.retain(|one| built.contains(&format!("{} {}", one.name, one.version)));
    let broken = check(&rules, &metadata);
    for line in &broken {
        println!("{line}");
    }
    if process::succeeds("cargo-deny", &["--version"]) {
        let mut command = process::cargo(&["deny", "--all-features", "check"]);
        process::run(command.args(["bans", "licenses", "sources"]))?;
    }
    if !broken.is_empty() {
        bail!("{} dependencies break deny.toml", broken.len());
    }
    Ok(())
}

fn check(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == package.name) {
            broken.push(format!("{name}: banned: {} (see `cargo tree -i`)", ban.reason));
        }
        if let Some(source) = &package.source {
            let allowed = rules.sources.allow_registry.iter();
            if !allowed.into_iter().any(|one| source.trim_start_matches("registry+") == *one) {
                broken.push(format!("{name}: source {source} is not allowed: use crates.io"));
            }
        }
        let extra = rules.licenses.exceptions.iter().filter(|one| one.name == package.name);
        let extra: Vec<&String> = extra.flat_map(|exception| &exception.allow).collect();
        let allows = |id: &str| {
            rules.licenses.allow.iter().any(|one| one == id) || extra.iter().any(|one| *one == id)
        };
        match package.license.as_deref() {
            None => broken.push(format!("{name}: no licence: replace it, or ask its author")),
            Some(text) => match spdx::is_satisfied(text, &allows) {
                Ok(true) => {}
                Ok(false) => broken.push(format!("{name}: licence {text} is not allowed")),
                Err(error) => broken.push(format!("{name}: licence {text:?}: {error}")),
            },
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::sample;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [licenses]
            allow = ["MIT"]
            exceptions = [{ crate = "odd", allow = ["Odd-1.0"] }]
            [bans]
            deny = [{ crate = "bad", reason = "it is bad" }]
            [sources]
            allow-registry = ["https://good"]
            "#,
        )
        .expect("the sample is well-formed")
    }

    #[test]
    fn a_banned_crate_is_named_with_the_reason() {
        let lines = check(&rules(), &sample(&[("good", &[]), ("bad", &[])]));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("bad 1.0.0: banned: it is bad"));
    }

    #[test]
    fn a_licence_must_be_allowed_for_all_or_for_the_crate() {
        let mut metadata = sample(&[("odd", &[]), ("other", &[]), ("none", &[])]);
        metadata.packages[0].license = Some("Odd-1.0".into());
        metadata.packages[1].license = Some("MIT AND Odd-1.0".into());
        metadata.packages[2].license = None;
        let lines = check(&rules(), &metadata);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("other"));
        assert!(lines[1].starts_with("none"));
    }

    #[test]
    fn a_source_must_be_an_allowed_registry() {
        let mut metadata = sample(&[("good", &[]), ("fork", &[])]);
        metadata.packages[0].source = Some("registry+https://good".into());
        metadata.packages[1].source = Some("git+https://good".into());
        let lines = check(&rules(), &metadata);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("fork"));
    }
}
