//! The command line as a whole: it is consistent, documented, and its programs' view is stable.

use clap::{CommandFactory as _, Parser as _};
use landfall_cli::{Cli, reference};
use std::path::Path;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_reference_in_the_documentation_is_that_of_this_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operate/cli.md");
    let now = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let documented = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        documented == now,
        "docs/operate/cli.md is not of this program; write it anew with UPDATE=1 and look at the difference"
    );
}

fn refused(args: &[&str]) -> String {
    let words = ["landfall"].iter().chain(args);
    Cli::try_parse_from(words).expect_err("this is not to be understood").to_string()
}

fn understood(args: &[&str]) {
    let words = ["landfall"].iter().chain(args);
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{args:?}: {error}");
    }
}

#[test]
fn only_one_point_can_be_chosen() {
    understood(&["failover", "web-1"]);
    understood(&["failover", "web-1", "--point", "latest-processed", "--skip-drain"]);
    understood(&["failover", "web-1", "--at-lsn", "17", "--source-is-dead", "power is off"]);
    understood(&["change-point", "web-1", "--at-time", "2026-03-01T12:00:00Z"]);
    understood(&["test-failover", "web-1", "--name", "before-upgrade", "--branch", "try"]);
    assert!(
        refused(&["failover", "web-1", "--at-lsn", "17", "--point", "latest"])
            .contains("cannot be used with")
    );
    assert!(
        refused(&["failover", "web-1", "--at-lsn", "17", "--name", "x"])
            .contains("cannot be used with")
    );
    assert!(refused(&["failover", "web-1", "--at-lsn", "now"]).contains("invalid"));
}

#[test]
fn a_clean_up_names_a_branch_and_no_point() {
    understood(&["test-failover", "web-1", "--clean-up", "test-1"]);
    refused(&["test-failover", "web-1", "--clean-up", "test-1", "--at-lsn", "17"]);
    refused(&["test-failover", "web-1", "--clean-up"]);
}

/// What runs the agent, and what only asks about one.
#[test]
fn an_agent_is_run_or_asked() {
    let node = ["--name", "web-1", "--server", "https://s:1", "--fingerprint", "00"];
    let own = ["--state", "/s", "--instance-file", "/run/i"];
    let run = Cli::try_parse_from([&["landfall", "agent"][..], &node, &own].concat());
    assert!(run.expect("understood").runs_an_agent(), "what is needed to run it is there");
    understood(&["agent", "doctor", "/dev/vda"]);
    assert!(refused(&["agent"]).contains("--instance-file"));
    refused(&[&["agent"][..], &node].concat());
}

#[test]
fn protect_needs_servers_and_a_disk() {
    let servers = ["--agent", "a", "--process-server", "p", "--master-target", "m"];
    let disk = ["--disk", "/dev/vda", "--disk", "/dev/vdb"];
    understood(&[&["protect", "web-1"][..], &servers, &disk].concat());
    understood(
        &[
            &["protect", "web-1", "--marker-interval", "500ms", "--policy", "databases"][..],
            &servers,
            &disk,
        ]
        .concat(),
    );
    refused(&[&["protect", "web-1"][..], &servers].concat());
    refused(&[&["protect", "web-1"][..], &disk].concat());
    refused(&[&["protect", "web-1", "--retention", "soon"][..], &servers, &disk].concat());
}

#[test]
fn output_and_credentials_can_stand_anywhere() {
    understood(&["--output", "json", "status"]);
    understood(&["status", "web-1", "--watch", "--output", "json", "--credentials", "/c"]);
    assert!(refused(&["status", "--output", "xml"]).contains("xml"));
}

#[test]
fn jobs_are_listed_followed_retried_and_cancelled() {
    let id = "0198c1d2-0000-7000-8000-000000000000";
    understood(&["jobs"]);
    understood(&["jobs", id, "--no-wait"]);
    understood(&["jobs", "retry", id]);
    understood(&["jobs", "cancel", id, "--no-wait"]);
    refused(&["jobs", "retry"]);
    refused(&["jobs", "not-an-id"]);
}

#[test]
fn a_configuration_server_needs_a_state_directory() {
    understood(&["server", "--state", "/s", "--listen", "127.0.0.1:0"]);
    understood(&["server", "passphrase", "--state", "/s"]);
    refused(&["server"]);
    refused(&["server", "--state", "/s", "--listen", "everywhere"]);
}

#[test]
fn the_demo_takes_a_seed_and_a_size() {
    understood(&["demo", "--seed", "7", "--size", "64M", "--quick", "--keep", "--dir", "/tmp"]);
    refused(&["demo", "--size", "1M"]);
}
