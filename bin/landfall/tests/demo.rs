//! The demo as a test of the whole product: real processes, real disks, eBPF, SIGKILL.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop there and then")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const NEEDED: &[&str] = &["root", "loop", "bpf", "fuse", "e2fsprogs"];

/// A place for a demo, and what is in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        // Not the default place of temporary files: that may be memory, which loop devices can't
        // use directly.
        Self { dir: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn demo(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(["demo", "--output", "json", "--dir"]).arg(self.work()).args(more);
        command.env("LANDFALL_DEMO_RECORDS", self.records());
        command
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// What the kernel and the file system still have of it, one line each.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let ours = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&ours)).map(str::to_owned));
        for entry in fs::read_dir("/sys/block").unwrap() {
            let path = entry.unwrap().path().join("loop/backing_file");
            let backing = fs::read_to_string(path).unwrap_or_default();
            left.extend(Some(backing).filter(|backing| backing.contains(&ours)));
        }
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let is_run = String::from_utf8_lossy(&environment).contains("LANDFALL_DEMO_RUN=");
            if is_run && String::from_utf8_lossy(&command).contains(&ours) {
                left.push(format!("process {}", String::from_utf8_lossy(&command)));
            }
        }
        left.extend(self.records().exists().then(|| "records".to_owned()));
        if let Ok(entries) = fs::read_dir(self.work()) {
            left.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        left
    }
}

impl Drop for Place {
    /// Whatever a failed test leaves is removed before the place is.
    fn drop(&mut self) {
        let _ = self.demo(&["--clean-up"]).output();
    }
}

fn found(report: &serde_json::Value) -> String {
    let checks = report["checks"].as_array().unwrap();
    let lines = checks.iter().map(|check| {
        let sign = if check["passed"] == true { "ok" } else { "FAILED" };
        format!("{sign} {}: {}", check["what"], check["found"])
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The promise of the whole product: the machine goes out and comes home, and nothing is left
/// behind.
#[test]
fn the_cycle_passes_and_leaves_nothing_behind() {
    if !landfall_testkit::require(NEEDED) {
        return;
    }
    let seed = landfall_testkit::seed("demo") % 1_000_000;
    let place = Place::new();
    let output = place.demo(&["--quick", "--seed", &seed.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("seed {seed}: no report ({error}):\n{said}"));
    assert!(output.status.success(), "seed {seed}:\n{}\n{said}", found(&report));
    assert_eq!(report["passed"], true);
    assert_eq!(report["seed"], seed);
    let steps: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|one| &one["step"]).collect();
    for step in 3..=8 {
        assert!(steps.contains(&&serde_json::json!(step)), "no check in step {step}");
    }
    for (name, figure) in report["figures"].as_object().unwrap() {
        assert!(!figure.is_null(), "{name} was not measured");
    }
    assert_eq!(place.left(), Vec::<String>::new());
}

/// A demo that is killed at any step is removed by the next one.
#[test]
fn what_a_killed_demo_leaves_is_removed_by_the_next_start() {
    if !landfall_testkit::require(NEEDED) {
        return;
    }
    let seed = landfall_testkit::seed("killed demo") % 1_000_000;
    let step = 2 + seed % 6;
    eprintln!("killed demo: in step {step}");
    let place = Place::new();
    let mut demo = place.demo(&["--quick", "--seed", &seed.to_string()]);
    let mut demo = demo.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    kill_in_step(&mut demo, step);
    assert!(!place.left().is_empty(), "it was to be killed in the middle");
    let output = place.demo(&["--clean-up"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(place.left(), Vec::<String>::new());
}

fn kill_in_step(demo: &mut Child, step: u64) {
    let mut said = String::new();
    let lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    for line in lines {
        let line = line.unwrap();
        said.push_str(&line);
        said.push('\n');
        if line.starts_with(&format!("{step}. ")) {
            demo.kill().unwrap();
            demo.wait().unwrap();
            return;
        }
    }
    panic!("it ended before step {step}:\n{said}");
}

/// Two demos beside each other: the second one leaves the first one's things alone.
#[test]
fn a_demo_that_runs_is_not_removed_by_another_start() {
    if !landfall_testkit::require(NEEDED) {
        return;
    }
    let place = Place::new();
    let mut demo = place.demo(&["--quick", "--seed", "1"]);
    let mut demo = demo.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let started = lines.any(|line| line.unwrap().starts_with("1. "));
    assert!(started, "the demo did not start");
    let output = place.demo(&["--clean-up"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).contains("another demo runs");
    let alive = demo.try_wait().unwrap().is_none();
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(told && alive, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Path::new(&place.records()).exists());
}
