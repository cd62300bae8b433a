use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What the system's shutdown and start call, so that a restart costs no comparison.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RestartCommand {
    /// At the end, after the last unmount: keep which blocks the target lacks
    Save(RestartArgs),
    /// At the start, before the first file system is mounted: mark every write to every disk
    Watch(RestartArgs),
    /// At the start, with the root mounted read-only: use up what was kept
    Restore {
        /// Where the root file system is mounted
        #[arg(long, default_value = "/", value_name = "DIR")]
        root: PathBuf,
        #[command(flatten)]
        place: RestartArgs,
    },
}

/// Which agent's.
#[derive(Clone, Debug, Args)]
pub(crate) struct RestartArgs {
    /// As the agent has it
    #[arg(long, default_value = "/var/lib/landfall/agent", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// As the agent has it
    #[arg(long, default_value = "/run/landfall/instance", value_name = "FILE")]
    pub(crate) instance_file: PathBuf,
}
