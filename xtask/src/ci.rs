//! Everything that CI checks, in the order in which it fails fastest.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::privilege::Privilege;
use crate::{deny, metadata, packages, process, tidy};

struct Outcome {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

/// Runs every step, also after one has failed, and ends with a table of them.
///
/// # Errors
/// When a step failed.
pub(crate) fn run() -> Result<()> {
    let session = Session::new()?;
    let steps: [(&'static str, &dyn Fn() -> Result<()>); 8] = [
        ("format", &|| process::run(&mut process::cargo(&["fmt", "--all", "--check"]))),
        ("tidy", &tidy::run),
        ("deny", &deny::run),
        ("clippy", &|| session.clippy()),
        ("docs", &|| session.docs()),
        ("tests", &|| session.tests()),
        ("sealed", &|| session.sealed_tests()),
        ("doctests", &|| session.doctests()),
    ];
    let outcomes: Vec<Outcome> = steps.iter().map(|(name, step)| perform(name, step)).collect();
    session.report(&outcomes)
}

fn perform(name: &'static str, step: &dyn Fn() -> Result<()>) -> Outcome {
    println!("── {name}");
    let start = Instant::now();
    let result = step();
    if let Err(error) = &result {
        println!("{name} failed: {error:#}");
    }
    Outcome { name, took: start.elapsed(), result }
}

/// Power cuts, rot and models, over simulated media.
const SEALED_TESTS: &str = "package(landfall-journal) & binary(durability) \
    | package(landfall-volume) & binary(/^(power_cuts|fold|cycle|operations|index)$/)";

/// What the steps share.
struct Session {
    privilege: Privilege,
    /// Members that can't be built here.
    left_out: Vec<String>,
    /// Where tests that were skipped say so (see `landfall_testkit::require`).
    skip_log: PathBuf,
}

impl Session {
    fn new() -> Result<Self> {
        let metadata = metadata::load_all_features()?;
        let left_out = if packages::can_build_capture() {
            Vec::new()
        } else {
            metadata.members_with(&["libbpf-sys"]).into_iter().collect()
        };
        let skip_log = metadata.target_directory.join("skipped-tests");
        fs::create_dir_all(&metadata.target_directory)?;
        fs::write(&skip_log, "")?;
        Ok(Self { privilege: Privilege::find(), left_out, skip_log })
    }

    /// `cargo SUBCOMMAND` over all members that can be built, with all features.
    fn cargo(&self, subcommand: &[&str]) -> Command {
        let mut command = process::cargo(subcommand);
        command.args(["--workspace", "--all-features", "--locked"]);
        for member in &self.left_out {
            command.args(["--exclude", member]);
        }
        command
    }

    fn clippy(&self) -> Result<()> {
        let mut command = self.cargo(&["clippy", "--quiet", "--all-targets"]);
        process::run(command.args(["--", "--deny", "warnings"]))
    }

    fn docs(&self) -> Result<()> {
        let mut command = self.cargo(&["doc", "--quiet", "--no-deps"]);
        process::run(command.env("RUSTDOCFLAGS", "--deny warnings"))
    }

    fn tests(&self) -> Result<()> {
        if process::succeeds("cargo-nextest", &["nextest", "--version"]) {
            let mut command = self.cargo(&["nextest", "run", "--profile", "ci"]);
            return process::run(self.with_environment(command.arg("--no-tests=pass")));
        }
        // Tests that share the machine's loop devices or eBPF hooks must not run side by side.
        // Nextest knows which these are (.config/nextest.toml); plain cargo runs all one after the
        // other.
        println!("cargo-nextest is not installed: `cargo test` runs the tests one by one instead");
        let mut command = self.cargo(&["test", "--no-fail-fast", "--lib", "--bins", "--tests"]);
        process::run(self.with_environment(command.args(["--", "--test-threads=1"])))
    }

    /// What logs and replicas promise, once more with everything encrypted: the same tests.
    fn sealed_tests(&self) -> Result<()> {
        if !process::succeeds("cargo-nextest", &["nextest", "--version"]) {
            println!(
                "cargo-nextest is not installed: only the tests of encryption itself have run"
            );
            return Ok(());
        }
        let mut command = self.cargo(&["nextest", "run", "--profile", "ci", "-E", SEALED_TESTS]);
        process::run(self.with_environment(command.env("LANDFALL_TEST_SEALED", "1")))
    }

    fn doctests(&self) -> Result<()> {
        process::run(&mut self.cargo(&["test", "--doc"]))
    }

    /// Tests run as root where that is possible, because capture, loop devices and mounts need it.
    fn with_environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LANDFALL_SKIP_LOG", &self.skip_log);
        if self.privilege == Privilege::Sudo {
            let triple = env!("LANDFALL_XTASK_TARGET").to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo --preserve-env --");
        }
        command
    }

    fn report(&self, outcomes: &[Outcome]) -> Result<()> {
        println!("── summary");
        for outcome in outcomes {
            let state = if outcome.result.is_ok() { "ok    " } else { "FAILED" };
            println!("{state} {:<9} {:>6.1} s", outcome.name, outcome.took.as_secs_f64());
        }
        if !self.left_out.is_empty() {
            println!("NOT BUILT for want of packages (see above): {}", self.left_out.join(", "));
        }
        for line in skipped(&fs::read_to_string(&self.skip_log).unwrap_or_default()) {
            println!("{line}");
        }
        let failed: Vec<_> =
            outcomes.iter().filter(|one| one.result.is_err()).map(|one| one.name).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        let required = std::env::var("LANDFALL_REQUIRE").unwrap_or_default();
        if !self.left_out.is_empty() && !required.is_empty() {
            bail!("LANDFALL_REQUIRE is set, but not everything could be built");
        }
        Ok(())
    }
}

/// One line per reason for which tests were skipped, with their number and names.
fn skipped(log: &str) -> Vec<String> {
    let mut reasons: std::collections::BTreeMap<&str, Vec<&str>> = Default::default();
    for line in log.lines() {
        let (reason, test) = line.split_once('\t').unwrap_or((line, "?"));
        reasons.entry(reason).or_default().push(test);
    }
    reasons
        .into_iter()
        .map(|(reason, tests)| {
            format!("SKIPPED {} tests: {reason} ({})", tests.len(), tests.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_grouped_by_reason_and_named() {
        let lines = skipped("loop: no root\ta::b\nfuse: none\tc\nloop: no root\td\n");
        assert_eq!(
            lines,
            ["SKIPPED 1 tests: fuse: none (c)", "SKIPPED 2 tests: loop: no root (a::b, d)"]
        );
        assert!(skipped("").is_empty());
    }

    #[test]
    fn a_failed_step_is_reported_as_failed() {
        assert!(perform("sample", &|| bail!("broken")).result.is_err());
        assert!(perform("sample", &|| Ok(())).result.is_ok());
    }
}
