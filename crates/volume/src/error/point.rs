use crate::timeline::Point;
use landfall_types::{Class, Lsn, UnixNanos};

/// Choosing a recovery point.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PointError {
    /// Inside a window (trap T-4).
    #[error("position {lsn} lies inside a window")]
    InWindow {
        /// The position.
        lsn: Lsn,
    },
    /// Nothing can be recovered yet (trap T-5).
    #[error("there is no recovery point yet: no catch-up over all disks has ended")]
    NoneYet,
    /// Outside what is kept.
    #[error("position {lsn} is not kept: {first} to {last} are")]
    NotKept {
        /// The position.
        lsn: Lsn,
        /// First that is kept.
        first: Lsn,
        /// Last that is durable.
        last: Lsn,
    },
    /// Several markers fit (trap T-6).
    #[error("{} recovery points fit", candidates.len())]
    Ambiguous {
        /// They.
        candidates: Vec<Point>,
    },
    /// All markers are later.
    #[error("no recovery point is as old as {} ns since 1970", time.0)]
    NoMarkerBefore {
        /// The time asked for.
        time: UnixNanos,
    },
    /// No such name.
    #[error("no recovery point is named {name:?}")]
    NoMarkerNamed {
        /// The name asked for.
        name: String,
    },
    /// Only markers can be named and pinned.
    #[error("no recovery point is listed at position {lsn}")]
    NoMarker {
        /// The position asked for.
        lsn: Lsn,
    },
    /// Another point has the name.
    #[error("the recovery point at position {lsn} is named {name:?}")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// Whose it is.
        lsn: Lsn,
    },
    /// Too many pinned and named points.
    #[error("{0} points are pinned or named, which is the most there can be")]
    TooMany(usize),
}

impl PointError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InWindow { .. } => "point-in-window",
            Self::NoneYet => "no-point-yet",
            Self::Ambiguous { .. } => "ambiguous-time",
            Self::NotKept { .. }
            | Self::NoMarkerBefore { .. }
            | Self::NoMarkerNamed { .. }
            | Self::NoMarker { .. } => "no-such-point",
            Self::NameTaken { .. } => "name-taken",
            Self::TooMany(_) => "bad-request",
        }
    }
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::NoneYet => Class::Transient,
            _ => Class::Permanent,
        }
    }
}
