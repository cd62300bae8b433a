use clap::{Args, Subcommand, ValueEnum};
use landfall_api_types::request::Consistency;

/// Points of several machines at once.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a point at which all machines were frozen at one moment
    #[command(after_help = "\
Every machine is frozen until the last one has its moment; where one can't keep that, there is no
point, and the machine is named.

Example:
  landfall group mark nightly shop-db shop-web shop-files --consistency application")]
    Mark(GroupMarkArgs),
    /// List the points that all of these machines have together
    Points {
        /// Names of the machines
        #[arg(required = true)]
        machines: Vec<String>,
    },
}

/// `landfall group mark`.
#[derive(Clone, Debug, Args)]
pub(crate) struct GroupMarkArgs {
    /// Name of the point, at most 128 bytes
    pub(crate) name: String,
    /// Names of the machines, at least two
    #[arg(required = true)]
    pub(crate) machines: Vec<String>,
    /// What it promises of each machine
    #[arg(long, value_enum, default_value_t)]
    pub(crate) consistency: GroupPromise,
}

/// What a point of several machines promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum GroupPromise {
    /// All mounted file systems of the protected disks are frozen for the moment
    #[default]
    FileSystem,
    /// That, and the agents' hooks are called before and after
    Application,
}

impl From<GroupPromise> for Consistency {
    fn from(promise: GroupPromise) -> Self {
        match promise {
            GroupPromise::FileSystem => Self::FileSystem,
            GroupPromise::Application => Self::Application,
        }
    }
}
