use super::values::parse_time;
use clap::{Args, ValueEnum};
use landfall_api_types::request::{Consistency, PointChoice};
use landfall_types::{Lsn, UnixNanos};
use landfall_volume::PointSelector;

/// Which recovery point (RQ-FO-1).
#[derive(Clone, Debug, Args)]
#[group(id = "which-point", multiple = false)]
pub(crate) struct PointArgs {
    /// The newest one: of all that is on its way, or of what has arrived
    #[arg(long, value_enum)]
    point: Option<Newest>,
    /// Any position outside a window, see `landfall points`
    #[arg(long, value_name = "LSN")]
    at_lsn: Option<Lsn>,
    /// The newest point not later than this, e.g. 2026-03-01T12:00:00Z or "2026-03-01 13:00"
    /// (local)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at_time: Option<UnixNanos>,
    /// A point that was named with `landfall mark`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Newest {
    /// After what is on its way has arrived: lowest RPO
    Latest,
    /// What has arrived by now: lowest RTO
    LatestProcessed,
}

impl PointArgs {
    /// In the words of the store; without an option the newest point.
    pub(crate) fn selector(&self) -> PointSelector {
        match self.choice() {
            PointChoice::Latest | PointChoice::LatestProcessed => PointSelector::Newest,
            PointChoice::Lsn(lsn) => PointSelector::Lsn(lsn),
            PointChoice::Time(time) => PointSelector::Time(time),
            PointChoice::Name(name) => PointSelector::Name(name),
        }
    }

    /// In the words of the API; without an option the newest point.
    pub(crate) fn choice(&self) -> PointChoice {
        if let Some(lsn) = self.at_lsn {
            return PointChoice::Lsn(lsn);
        }
        if let Some(time) = self.at_time {
            return PointChoice::Time(time);
        }
        if let Some(name) = &self.name {
            return PointChoice::Name(name.clone());
        }
        match self.point {
            None | Some(Newest::Latest) => PointChoice::Latest,
            Some(Newest::LatestProcessed) => PointChoice::LatestProcessed,
        }
    }
}

/// What a point promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Promise {
    /// As after a power cut
    #[default]
    Crash,
    /// All mounted file systems of the protected disks are frozen for the moment
    FileSystem,
    /// That, and the agent's hooks are called before and after
    Application,
}

impl From<Promise> for Consistency {
    fn from(promise: Promise) -> Self {
        match promise {
            Promise::Crash => Self::Crash,
            Promise::FileSystem => Self::FileSystem,
            Promise::Application => Self::Application,
        }
    }
}
