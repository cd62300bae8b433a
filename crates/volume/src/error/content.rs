use crate::error::StorageError;
use landfall_journal::JournalError;
use landfall_types::{Class, DiskIndex, Lsn};

/// Reading and writing content.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Storage failed; what is corrupt is never served.
    #[error("the content can't be had")]
    Storage(#[from] StorageError),
    /// Outside the disk.
    #[error("{length} bytes at {offset} lie outside the disk of {size} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The disk's size.
        size: u64,
    },
    /// No such disk.
    #[error("there is no disk {0}")]
    UnknownDisk(DiskIndex),
    /// Authority was taken away.
    #[error("the branch was revoked")]
    Revoked,
    /// Not there yet: the newest content is older than what was asked about.
    #[error("the replica is at {newest}, before {asked}")]
    NotYet {
        /// What it has.
        newest: Lsn,
        /// Asked for.
        asked: Lsn,
    },
}

impl ContentError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Storage(source) => source.class(),
            Self::OutOfRange { .. } | Self::UnknownDisk(_) => Class::Permanent,
            Self::Revoked => Class::Fenced,
            Self::NotYet { .. } => Class::Transient,
        }
    }
}

impl From<JournalError> for ContentError {
    fn from(source: JournalError) -> Self {
        Self::Storage(StorageError::Journal(source))
    }
}
