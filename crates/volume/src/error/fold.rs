use crate::body::Role;
use crate::error::StorageError;
use landfall_journal::JournalError;
use landfall_types::{Class, DiskIndex, Lsn};

/// Moving the image forward or back.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Storage failed; a fold that was begun is taken up again (it is redo only).
    #[error("the image can't be folded")]
    Storage(#[from] StorageError),
    /// The role does not allow it.
    #[error("the replica is {0}: its image stays as it is")]
    WrongRole(Role),
    /// Not a recovery point (trap T-6).
    #[error("position {0} is no recovery point: the image never stops there")]
    NotLegal(Lsn),
    /// Behind the image already.
    #[error("the image is at {folded} already, past {asked}")]
    Past {
        /// Asked for.
        asked: Lsn,
        /// Where the image is.
        folded: Lsn,
    },
    /// A view, branch or divergence needs what would be overwritten.
    #[error("a view, branch or divergence needs position {pin}: the image can't go to {asked}")]
    Pinned {
        /// Asked for.
        asked: Lsn,
        /// How far it can go.
        pin: Lsn,
    },
    /// What the old disks held was not discarded by name (trap T-15).
    #[error("what diverged was not discarded: {}", names.join(", "))]
    DivergenceKept {
        /// Names.
        names: Vec<String>,
    },
    /// An undo is kept: it would not fit any more.
    #[error("the undo of an earlier fold is kept")]
    UndoKept,
    /// Its pace has stopped it; it is taken up again by the next one.
    #[error("the fold was stopped before its end")]
    Stopped,
    /// There is none.
    #[error("no undo is kept")]
    NoUndo,
    /// Someone else wrote to the disk since it was folded (trap T-13).
    #[error("disk {disk} was written by someone else at {offset}: undo would mix its writes in")]
    ForeignWrite {
        /// Which disk.
        disk: DiskIndex,
        /// First byte of the block.
        offset: u64,
    },
}

impl FoldError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Storage(source) => source.class(),
            Self::Stopped => Class::Transient,
            _ => Class::Permanent,
        }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Storage(source) => source.code(),
            Self::DivergenceKept { .. } => "divergence-kept",
            Self::ForeignWrite { .. } => "point-change-refused",
            Self::NotLegal(_) => "no-such-point",
            Self::WrongRole(_)
            | Self::Past { .. }
            | Self::Pinned { .. }
            | Self::Stopped
            | Self::UndoKept
            | Self::NoUndo => "wrong-state",
        }
    }
}

impl From<JournalError> for FoldError {
    fn from(source: JournalError) -> Self {
        Self::Storage(StorageError::Journal(source))
    }
}
