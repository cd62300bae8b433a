//! The command line: names, options and help texts; nothing is done here.

mod group;
mod keeping;
mod machine;
mod point;
mod restart;
mod roles;
mod values;
mod vault;

pub(crate) use group::GroupCommand;
#[cfg(test)]
pub(crate) use keeping::SizeLimit;
pub(crate) use keeping::{AlertCommand, PointCommand, PointsArgs, PolicyCommand, PolicyValues};
pub(crate) use machine::{
    ChangePointArgs, DivergenceArgs, FailoverArgs, JobsArgs, JobsCommand, MachineArgs, MarkArgs,
    ProtectArgs, ReprotectArgs, StatusArgs, TestFailoverArgs,
};
pub(crate) use restart::{RestartArgs, RestartCommand};
pub(crate) use roles::{
    AgentArgs, AgentCommand, AgentRunArgs, BandwidthArgs, DiskClientArgs, JournalCommand,
    MasterTargetArgs, NodeArgs, ProcessServerArgs, SalvageArgs, ServerArgs, ServerCommand,
};

pub(crate) use vault::{
    ExportArgs, ImageFormat, InspectArgs, PromoteArgs, RekeyArgs, VaultCommand, VolumeArgs,
};

use crate::output::Format;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Site recovery: replicate machines, fail over to any point, bring them home.
#[derive(Debug, Parser)]
#[command(name = "landfall", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = AFTER_HELP)]
pub struct Cli {
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Directory with the credentials that `landfall server` made for operators
    #[arg(long, global = true, env = "LANDFALL_CREDENTIALS", value_name = "DIR")]
    pub(crate) credentials: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// It runs the role of an agent, with all that this needs.
    #[must_use]
    pub const fn runs_an_agent(&self) -> bool {
        matches!(
            &self.command,
            Command::Agent(AgentArgs { command: None, node: Some(_), run: Some(_) })
        )
    }
}

const AFTER_HELP: &str = "\
Examples:
  landfall demo                                   see the whole cycle on this machine (as root)
  export LANDFALL_CREDENTIALS=/var/lib/landfall/server/operator
  landfall status                                 all machines, their health and RPO
  landfall failover web-1 --source-is-dead \"power is off, I am in the room\"

Exit status: 0 done, 1 failed, 2 usage, 3 refused, 4 a job waits for a person, 5 a server does not
answer, 6 this machine lacks something, 7 stored data is not what was written.";

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a configuration server
    Server(ServerArgs),
    /// Run a process server
    ProcessServer(ProcessServerArgs),
    /// Run a master target
    MasterTarget(MasterTargetArgs),
    /// Run an agent on a machine that is to be protected
    Agent(AgentArgs),

    /// Protect a machine: first copy, then every write
    Protect(ProtectArgs),
    /// Show machines: state, health, RPO, progress
    Status(StatusArgs),
    /// Show the registered servers
    Servers,
    /// Make a certificate for a program that uses disks over NBD: QEMU, nbdcopy, nbdkit
    DiskClient(DiskClientArgs),
    /// Limit what a process server uses of its link to the next hop
    Bandwidth(BandwidthArgs),
    /// Show the recovery points of a machine, or what keeps them
    Points(PointsArgs),
    /// Pin and name recovery points
    #[command(subcommand)]
    Point(PointCommand),
    /// Points of several machines at once
    #[command(subcommand)]
    Group(GroupCommand),
    /// Say how long what is kept
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show what needs attention
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Put a recovery point with a name
    Mark(MarkArgs),
    /// Make a machine's disks of a point available beside running replication; or clean that up
    TestFailover(TestFailoverArgs),
    /// Recover a machine at the recovery site
    Failover(FailoverArgs),
    /// Choose another recovery point after a failover
    ChangePoint(ChangePointArgs),
    /// Settle on the chosen point; older ones can't be chosen any more
    Commit(MachineArgs),
    /// Show what diverged; discard it by name
    Divergence(DivergenceArgs),
    /// Replicate a recovered machine towards home
    Reprotect(ReprotectArgs),
    /// Bring a machine home
    Failback(MachineArgs),
    /// Give a reprotect up that has not ended
    Cancel(MachineArgs),
    /// Stop protecting a machine and forget its points
    Disable(MachineArgs),
    /// Show jobs, follow one, go on with one that waits
    Jobs(JobsArgs),

    /// Look into a retention journal on this machine
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Look into a retention volume on this machine, without its master target; export disks
    #[command(subcommand)]
    Vault(VaultCommand),
    /// See the whole cycle: protect, test, disaster, failover, reprotect, failback (as root)
    #[command(after_help = DEMO_HELP)]
    Demo(landfall_demo::DemoOptions),
    /// The program that runs on the demo's machine
    #[command(hide = true)]
    DemoWorkload(landfall_demo::WorkloadOptions),
}

const DEMO_HELP: &str = "\
It makes two disks, starts all roles as processes, protects, tests, kills everything of one site,
fails over, comes home, and compares every block. It says beforehand what it needs, and leaves
nothing behind; what a killed demo left is removed by the next one.

Examples:
  landfall demo --quick
  landfall demo --seed 7
  landfall demo --keep             go on by hand at the end
  landfall demo --clean-up         remove what --keep left";
