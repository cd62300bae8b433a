use super::point::PointArgs;
use super::values::parse_millis;
use clap::{Args, Subcommand};
use landfall_crypt::KeySource;
use landfall_types::JobId;
use std::path::PathBuf;

/// A job is started; whether to see it to its end.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Print the job and return at once; `landfall jobs ID` follows it
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// A machine, and nothing else.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Name of the machine
    pub(crate) machine: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall protect`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  landfall protect web-1 --agent web-1 --process-server ps-home --master-target mt-recovery \\
      --disk /dev/vda --disk /dev/vdb
  landfall protect db-1 --agent db-1 --process-server ps-home --master-target mt-recovery \\
      --disk /dev/vda --image /dev/vg0/db-1 --marker-interval 2s --policy databases")]
pub(crate) struct ProtectArgs {
    /// Name for the machine, unique
    pub(crate) machine: String,
    /// Name or ID of the agent on it
    #[arg(long)]
    pub(crate) agent: String,
    /// Name or ID of the process server near it
    #[arg(long, value_name = "SERVER")]
    pub(crate) process_server: String,
    /// Name or ID of the master target at the recovery site
    #[arg(long, value_name = "SERVER")]
    pub(crate) master_target: String,
    /// A disk on the machine; once per disk
    #[arg(long = "disk", value_name = "PATH", required = true)]
    pub(crate) disks: Vec<String>,
    /// Image of that disk at the master target, once per disk [default: a file of its own]
    #[arg(long = "image", value_name = "PATH")]
    pub(crate) images: Vec<String>,
    /// Time between crash-consistent markers [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    pub(crate) marker_interval: Option<u64>,
    /// Policy that says how long what is kept, see `landfall policy` [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Encrypt the replica with a key on the master target's host: file:PATH, keyring:DESCRIPTION
    /// or command:PATH ARGUMENTS. Without the key the replica can never be read [default: as the
    /// master target is set]
    #[arg(long, value_name = "KEY", conflicts_with = "images")]
    pub(crate) encrypt: Option<KeySource>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  landfall status
  landfall status web-1 --watch
  landfall status web-1 --output json | jq .rpo_s")]
pub(crate) struct StatusArgs {
    /// One machine in detail [default: all in a table]
    pub(crate) machine: Option<String>,
    /// Show it again every second until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `landfall mark`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Where the promise can't be kept there is no point, and the cause is told.

Examples:
  landfall mark db-1 before-upgrade
  landfall mark db-1 nightly --consistency application")]
pub(crate) struct MarkArgs {
    /// Name of the machine
    pub(crate) machine: String,
    /// Name of the point, at most 128 bytes
    pub(crate) name: String,
    /// What it promises
    #[arg(long, value_enum, default_value_t)]
    pub(crate) consistency: super::point::Promise,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall test-failover`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Replication goes on meanwhile. It prints how to mount the disks.

Examples:
  landfall test-failover web-1
  landfall test-failover db-1 --name before-upgrade --branch try-1
  landfall test-failover db-1 --clean-up try-1")]
pub(crate) struct TestFailoverArgs {
    /// Name of the machine
    pub(crate) machine: String,
    #[command(flatten)]
    pub(crate) point: PointArgs,
    /// Name for the test branch [default: test-N]
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,
    /// Throw this test branch away instead
    #[arg(long, value_name = "BRANCH", conflicts_with_all = ["which-point", "branch"])]
    pub(crate) clean_up: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall failover`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The point can be changed until commit. It prints how to mount the disks.

Examples:
  landfall failover web-1 --source-is-dead \"power is off, I am in the room\"
  landfall failover web-1 --at-time 2026-03-01T12:00:00Z --source-is-dead \"host fenced\"")]
pub(crate) struct FailoverArgs {
    /// Name of the machine
    pub(crate) machine: String,
    #[command(flatten)]
    pub(crate) point: PointArgs,
    /// Your recorded word, with how you know it, that the source can't write any more
    #[arg(long, value_name = "HOW YOU KNOW")]
    pub(crate) source_is_dead: Option<String>,
    /// Do not wait for relays within reach; what they hold becomes divergence
    #[arg(long)]
    pub(crate) skip_drain: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall change-point`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What the machine wrote on the former point becomes divergence: shut it down first.

Example:
  landfall change-point web-1 --at-lsn 1200345")]
pub(crate) struct ChangePointArgs {
    /// Name of the machine
    pub(crate) machine: String,
    #[command(flatten)]
    pub(crate) point: PointArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall divergence`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DivergenceArgs {
    /// Name of the machine
    pub(crate) machine: String,
    /// Discard this, for good; once per name
    #[arg(long = "discard", value_name = "NAME")]
    pub(crate) discard: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall reprotect`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The disks at home stay untouched until the failback.

Examples:
  landfall reprotect web-1 --process-server ps-recovery --master-target mt-home --dry-run
  landfall reprotect web-1 --process-server ps-recovery --master-target mt-home \\
      --discard-divergence home-disks")]
pub(crate) struct ReprotectArgs {
    /// Name of the machine
    pub(crate) machine: String,
    /// Name or ID of the process server at the recovery site
    #[arg(long, value_name = "SERVER")]
    pub(crate) process_server: String,
    /// Name or ID of the master target at home
    #[arg(long, value_name = "SERVER")]
    pub(crate) master_target: String,
    /// An original disk as that master target sees it, in order; once per disk [default: the old
    /// paths]
    #[arg(long = "disk", value_name = "PATH")]
    pub(crate) disks: Vec<PathBuf>,
    /// This divergence may be lost, for good; once per name
    #[arg(long = "discard-divergence", value_name = "NAME")]
    pub(crate) discard_divergence: Vec<String>,
    /// Only say what would be sent and what would be lost
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `landfall jobs`.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  landfall jobs
  landfall jobs 0198c1d2-…              follow one to its end
  landfall jobs retry 0198c1d2-…        go on with one that waits for a person"
)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
    /// Follow this one [default: list all]
    pub(crate) id: Option<JobId>,
    /// List those older than this one: the last one of the page before
    #[arg(long, value_name = "JOB", conflicts_with = "id")]
    pub(crate) before: Option<JobId>,
    /// List at most so many, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 200, conflicts_with = "id")]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// What can be done to a job.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Go on with a job that waits for a person
    Retry {
        /// Its ID
        id: JobId,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Give a job up while nothing is promoted; it is undone
    Cancel {
        /// Its ID
        id: JobId,
        #[command(flatten)]
        wait: WaitArgs,
    },
}
