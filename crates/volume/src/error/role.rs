use crate::body::Role;
use crate::error::{FoldError, PointError, StorageError};
use landfall_journal::JournalError;
use landfall_types::{Class, DiskIndex, Epoch, LineageError, Lsn};

/// Changing what a replica or branch is.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// Storage failed.
    #[error("the change can't be stored")]
    Storage(#[from] StorageError),
    /// The role does not allow it.
    #[error("the replica is {role}: {wanted} needs it otherwise")]
    WrongRole {
        /// What it is.
        role: Role,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The point can't be chosen.
    #[error("the recovery point can't be chosen")]
    Point(#[from] PointError),
    /// An epoch that is over (trap T-17).
    #[error("epoch {offered} is not higher than {highest}, which this replica has seen")]
    EpochNotHigher {
        /// Given.
        offered: Epoch,
        /// Highest number seen.
        highest: u64,
    },
    /// The epoch does not fit the history.
    #[error("the epoch does not fit the replica's history")]
    Lineage(#[source] LineageError),
    /// Already committed: another point can't be chosen any more (design section 14.7).
    #[error("the failover is committed: another point can't be chosen any more")]
    Committed,
    /// Nothing to commit or to demote.
    #[error("no branch has authority")]
    NoAuthority,
    /// Demoting or sending home before commit.
    #[error("the failover is not committed")]
    NotCommitted,
    /// A demotion has ended the branch's authority.
    #[error("the branch was demoted at {at}")]
    Demoted {
        /// Its last record.
        at: Lsn,
    },
    /// The name is taken.
    #[error("a branch is named {0:?}")]
    NameTaken(String),
    /// No such branch, or none that can be dropped.
    #[error("no test branch is named {0:?}")]
    UnknownBranch(String),
    /// No such divergence.
    #[error("no divergence is named {0:?}")]
    UnknownDivergence(String),
    /// The position is not the one expected: another history, or records behind it.
    #[error("the replica's log ends at {found}, not at {expected}, or tells another history there")]
    OtherPosition {
        /// Asked for.
        expected: Lsn,
        /// The log's end.
        found: Lsn,
    },
    /// Only Landfall can read the image: it is sealed.
    #[error("the image of disk {0} is encrypted: it can't be handed over as a disk")]
    Encrypted(DiskIndex),
    /// The image could not be folded or put back.
    #[error("the image can't be changed")]
    Fold(#[source] Box<FoldError>),
}

impl RoleError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Storage(source) => source.class(),
            Self::Point(source) => source.class(),
            Self::EpochNotHigher { .. } => Class::Fenced,
            _ => Class::Permanent,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Storage(source) => source.code(),
            Self::Point(source) => source.code(),
            Self::EpochNotHigher { .. } | Self::Lineage(_) => "fenced",
            Self::Committed => "point-change-refused",
            Self::NameTaken(_) => "name-taken",
            Self::UnknownBranch(_) => "unknown-branch",
            Self::UnknownDivergence(_) => "not-found",
            Self::WrongRole { .. }
            | Self::NoAuthority
            | Self::NotCommitted
            | Self::Demoted { .. }
            | Self::OtherPosition { .. } => "wrong-state",
            Self::Encrypted(_) => "not-supported",
            Self::Fold(source) => source.code(),
        }
    }
}

impl From<JournalError> for RoleError {
    fn from(source: JournalError) -> Self {
        Self::Storage(StorageError::Journal(source))
    }
}

impl From<FoldError> for RoleError {
    fn from(source: FoldError) -> Self {
        match source {
            FoldError::Storage(source) => Self::Storage(source),
            other => Self::Fold(Box::new(other)),
        }
    }
}
