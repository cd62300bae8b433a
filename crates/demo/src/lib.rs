//! `landfall demo`: a machine with real disks goes out to the recovery site and comes home.
//!
//! Everything is real: loop disks with ext4, a database on them, the roles as processes of the one
//! binary over mutual TLS, eBPF capture, SIGKILL for the disaster. The demo drives them through the
//! same API client as the command line, and checks what comes out with programs that are not
//! Landfall's: the kernel's ext4, e2fsck, SQLite.
//!
//! # Invariants
//! * Whatever the demo makes can be found again without the demo's memory (see `host` and
//!   `runs`): a second start removes what a killed one left.
//! * No step waits for a while; each waits for a condition, with a deadline.
//! * A check that fails makes the exit status differ from 0, whatever comes after it.
//!
//! # Where to start
//! `script` has the eight steps; `ledger` says what is written and why its check is sharp.

mod dice;
mod filesystem;
mod host;
mod ledger;
mod machine;
mod options;
mod preflight;
mod report;
mod roles;
mod run;
mod runs;
mod screen;
mod script;
mod served;
mod shell;
mod wait;
mod workload;

pub use options::DemoOptions;
pub use preflight::Missing;
pub use report::{Check, Figures, Report};
pub use run::run;
pub use screen::Screen;
pub use workload::{WorkloadOptions, run as run_workload};
