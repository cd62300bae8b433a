use super::machine::MarkArgs;
use super::point::PointArgs;
use super::values::{parse_bytes, parse_kind, parse_seconds, parse_thinning, parse_time};
use clap::{Args, Subcommand};
use landfall_types::{Lsn, MarkerKind, ThinningTier, UnixNanos};

/// `landfall points`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  landfall points web-1
  landfall points web-1 --pinned
  landfall points web-1 --from 2026-03-01T12:00:00Z --kind application-consistent --limit 20
  landfall points web-1 --holds          what keeps history from expiring")]
pub(crate) struct PointsArgs {
    /// Name of the machine
    pub(crate) machine: String,
    /// Not before, by the source's clock
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) from: Option<UnixNanos>,
    /// Not after, by the source's clock
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) to: Option<UnixNanos>,
    /// crash-consistent, file-system-consistent, application-consistent or user
    #[arg(long, value_name = "KIND", value_parser = parse_kind)]
    pub(crate) kind: Option<MarkerKind>,
    /// Only those that are pinned
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Only those with a name
    #[arg(long)]
    pub(crate) named: bool,
    /// Only those that resolve to rotten data
    #[arg(long)]
    pub(crate) corrupt: bool,
    /// Behind this LSN: the last one of the page before
    #[arg(long, value_name = "LSN")]
    pub(crate) after: Option<Lsn>,
    /// At most so many, the oldest first
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// List what keeps history from expiring instead, and until when
    #[arg(long, conflicts_with_all = [
        "from", "to", "kind", "pinned", "named", "corrupt", "after", "limit",
    ])]
    pub(crate) holds: bool,
}

/// `landfall point …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PointCommand {
    /// Make a named point: the same as `landfall mark`
    Create(MarkArgs),
    /// Keep a point from expiring, for a time or until it is unpinned
    #[command(after_help = "\
A pinned point keeps everything behind it: `landfall points MACHINE --holds` shows what that costs.

Examples:
  landfall point pin db-1 --name before-upgrade
  landfall point pin db-1 --at-lsn 1200345 --for 720h")]
    Pin {
        /// Name of the machine
        machine: String,
        #[command(flatten)]
        point: PointArgs,
        /// How long [default: until it is unpinned]
        #[arg(long = "for", value_name = "TIME", value_parser = parse_seconds)]
        for_s: Option<u64>,
    },
    /// Let a point expire again
    Unpin {
        /// Name of the machine
        machine: String,
        #[command(flatten)]
        point: PointArgs,
    },
    /// Give a point a name: it stays listed as long as its records are kept
    #[command(after_help = "\
Examples:
  landfall point name db-1 before-the-mistake --at-time 2026-03-01T12:00:00Z
  landfall point name db-1 --remove --at-lsn 1200345")]
    Name {
        /// Name of the machine
        machine: String,
        /// The name, at most 128 bytes
        #[arg(required_unless_present = "remove", value_name = "POINT_NAME")]
        new_name: Option<String>,
        /// Take its name away
        #[arg(long, conflicts_with = "new_name")]
        remove: bool,
        #[command(flatten)]
        point: PointArgs,
    },
}

/// What a policy says; what is left out stays as it is, or as it is by default.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyValues {
    /// How long every write is kept [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) retention: Option<u64>,
    /// Most space of a machine's journal, e.g. 500GiB, or `none`; the oldest history gives way
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) size: Option<SizeLimit>,
    /// Which points stay listed: EVERY:UNTIL_AGE,… [default: 5s:2h,1m:24h,1h:360h]
    #[arg(long, value_name = "TIERS", value_parser = parse_thinning)]
    pub(crate) thinning: Option<Tiers>,
    /// RPO above which an alert is raised [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) rpo: Option<u64>,
}

/// A limit of size in bytes, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SizeLimit(pub(crate) Option<u64>);

/// Tiers of thinning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tiers(pub(crate) Vec<ThinningTier>);

/// `landfall policy …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Make a policy
    #[command(after_help = "\
Every write of the retention can be recovered to with --at-lsn. Thinning only shortens the list.

Example:
  landfall policy create databases --retention 72h --size 500GiB --thinning 5s:2h,1m:24h,1h:360h")]
    Create {
        /// Name, unique
        name: String,
        #[command(flatten)]
        values: PolicyValues,
    },
    /// Change a policy, for all its machines
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        values: PolicyValues,
    },
    /// Show a policy
    Show {
        /// Its name
        name: String,
    },
    /// List the policies
    List,
    /// Let a policy hold for a machine
    Assign {
        /// Name of the machine
        machine: String,
        /// Name of the policy
        policy: String,
    },
    /// Remove a policy that no machine has
    Remove {
        /// Its name
        name: String,
    },
}

/// `landfall alert …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AlertCommand {
    /// List alerts, the newest first
    #[command(after_help = "\
Examples:
  landfall alert list
  landfall alert list --machine web-1 --all --output json")]
    List {
        /// Of this machine
        #[arg(long)]
        machine: Option<String>,
        /// Of this code
        #[arg(long)]
        code: Option<String>,
        /// Those that were cleared too
        #[arg(long)]
        all: bool,
        /// Older than this ID: the last one of the page before
        #[arg(long, value_name = "ID")]
        before: Option<u64>,
        /// At most so many [default: 200]
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
    },
}
