//! Developer tasks, run as `cargo xtask TASK`; the Makefile's targets are thin wrappers around
//! them.
//!
//! Landfall has no shell scripts: whatever can wait until cargo exists is here, with types and
//! tests.
//!
//! # Where to start
//! [`ci`] is what `make test` runs; [`tidy`] holds the house rules that a compiler does not check.

#[cfg(feature = "bench")]
mod bench;
mod bench_entry;
mod ci;
mod compat;
mod demo;
mod deny;
mod doctor;
mod errors;
mod guest_kernels;
mod guest_system;
mod metadata;
mod package;
mod packages;
mod privilege;
mod process;
mod setup;
mod sim;
mod tidy;
mod wrap;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use guest_kernels::Which;

/// Developer tasks of Landfall.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the missing packages (Debian; as root or with sudo), or say what is missing
    Setup,
    /// Say what this machine can and can't run; changes nothing
    Doctor,
    /// Print the missing capabilities, one a line (xtask asks itself this through sudo)
    #[command(hide = true)]
    Probe,
    /// Everything that CI checks: format, lints, house rules, docs, licences, tests
    Ci,
    /// The house rules that a compiler does not check
    Tidy,
    /// Wrap comments that are wider than the house rules allow, in the given files and folders
    Wrap {
        /// Files or folders, from the root of the checkout
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Bans, licences and sources of the dependencies
    Deny,
    /// Write the missing pages of docs/errors/ from the registry of codes
    Errors,
    /// Fetch kernels of Debian for guests: those of CI's tests, unless told otherwise
    GuestKernels {
        /// The newest of every series and flavor, from all releases (some gigabytes)
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Series and flavors, for example `6.1-rt 7.0-cloud`, from all releases
        names: Vec<String>,
    },
    /// Install a small Debian for guests (as root): for the tests of the package
    GuestSystem,
    /// Try the capture on every kernel that was fetched, and write the table of them
    Compat,
    /// Build the Debian package (target/package/)
    Package {
        /// Pack this program instead of building one
        #[arg(long)]
        program: Option<std::path::PathBuf>,
        /// Folder for the package [default: target/package]
        #[arg(long)]
        out: Option<std::path::PathBuf>,
    },
    /// Install what is missing, build with optimisation and run `landfall demo`
    Demo {
        /// Options of `landfall demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Run the simulation of the replication sessions under faults, for a night for instance
    Sim(sim::Options),
    /// Run the benchmarks side by side with their peers
    Bench {
        /// Names and options: see `cargo xtask bench --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Setup => {
            setup::run()?;
            guest_kernels::run_for_tests();
            Ok(())
        }
        Task::Doctor => doctor::run(),
        Task::Probe => doctor::probe(),
        Task::Ci => ci::run(),
        Task::Tidy => tidy::run(),
        Task::Wrap { paths } => wrap::run(&paths),
        Task::Deny => deny::run(),
        Task::Errors => errors::run(),
        Task::GuestKernels { all, names } => guest_kernels::run(&match (all, names.is_empty()) {
            (true, _) => Which::All,
            (false, true) => Which::Ci,
            (false, false) => Which::Named(names),
        }),
        Task::GuestSystem => guest_system::run(),
        Task::Compat => compat::run(),
        Task::Package { program, out } => package::run(program.as_deref(), out.as_deref()),
        Task::Demo { options } => demo::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Bench { options } => bench_entry::run(&options),
    }
}
