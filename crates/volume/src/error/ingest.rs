use crate::body::Role;
use crate::error::StorageError;
use landfall_journal::JournalError;
use landfall_types::{
    ByteRange, Class, ControlError, DiskIndex, Epoch, InstanceId, Lsn, RecordError, WindowsError,
};

/// Taking frames.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Storage failed.
    #[error("the records can't be stored")]
    Storage(#[from] StorageError),
    /// The replica takes no frames in its role.
    #[error("the replica is {0} and takes no records")]
    NotReplicating(Role),
    /// An epoch that is over, or none of ours (design section 5.4).
    #[error("records of epoch {offered}: at {lsn} the replica is in epoch {current}")]
    Fenced {
        /// Given.
        offered: Epoch,
        /// What the lineage has there.
        current: Epoch,
        /// Where.
        lsn: Lsn,
    },
    /// Another history.
    #[error("histories have diverged: they agree up to {common}, the replica is at {durable}")]
    Diverged {
        /// Last LSN that both agree on.
        common: Lsn,
        /// The replica's durable LSN.
        durable: Lsn,
    },
    /// The sender's history continues ours in an epoch that this replica was not told to follow
    /// yet.
    #[error("the replica was not told yet to follow epoch {0}")]
    NotFollowing(Epoch),
    /// Another instance than the one with authority (trap T-11).
    #[error("instance {0} has no authority for this replica")]
    OtherInstance(InstanceId),
    /// Not the next LSN.
    #[error("record {found} came where {expected} was due")]
    Gap {
        /// Due.
        expected: Lsn,
        /// Came.
        found: Lsn,
    },
    /// Another history under the same positions (trap T-1).
    #[error("the chain at {lsn} does not fit")]
    ChainMismatch {
        /// Where.
        lsn: Lsn,
    },
    /// A record that is none.
    #[error("a record can't be stored")]
    Record(#[source] RecordError),
    /// A control record that can't be read.
    #[error("the control record at {lsn} can't be read")]
    Control {
        /// Where.
        lsn: Lsn,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// A window record that does not fit what is open.
    #[error("the window record at {lsn} does not fit")]
    Window {
        /// Where.
        lsn: Lsn,
        /// Why.
        #[source]
        source: WindowsError,
    },
    /// A window over the image closes as exact before the image has all of it.
    #[error(
        "the first copy's window closes at {lsn}, but disk {disk} has only {durable_bytes} bytes of {size_bytes}"
    )]
    ImageIncomplete {
        /// Where.
        lsn: Lsn,
        /// Which disk.
        disk: DiskIndex,
        /// Bytes that are durable in the image.
        durable_bytes: u64,
        /// Bytes of the disk.
        size_bytes: u64,
    },
    /// Outside the disk (trap T-9).
    #[error("record {lsn} covers bytes {} to {} of disk {disk}, which has {size}", range.start, range.end)]
    OutOfBounds {
        /// Which record.
        lsn: Lsn,
        /// Which disk.
        disk: DiskIndex,
        /// What it covers.
        range: ByteRange,
        /// The disk's size in bytes.
        size: u64,
    },
    /// No such disk.
    #[error("record {lsn} is for disk {disk}, which the replica does not have")]
    UnknownDisk {
        /// Which record.
        lsn: Lsn,
        /// Which disk.
        disk: DiskIndex,
    },
    /// A geometry that the image can't follow (trap T-9).
    #[error(
        "at {lsn} disk {disk} changes to {size} bytes in sectors of {sector}, which its image can't hold"
    )]
    Geometry {
        /// Which record.
        lsn: Lsn,
        /// Which disk.
        disk: DiskIndex,
        /// Size in bytes.
        size: u64,
        /// Sector size in bytes.
        sector: u32,
    },
    /// A piece of a first copy that does not fit.
    #[error("a piece of the first copy does not fit: {0}")]
    Piece(&'static str),
}

impl IngestError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Storage(source) => source.class(),
            Self::Fenced { .. } | Self::OtherInstance(_) => Class::Fenced,
            Self::NotReplicating(_) | Self::NotFollowing(_) | Self::Gap { .. } => Class::Transient,
            Self::Diverged { .. } | Self::ChainMismatch { .. } => Class::Permanent,
            Self::OutOfBounds { .. } | Self::UnknownDisk { .. } | Self::Geometry { .. } => {
                Class::Permanent
            }
            Self::Record(_)
            | Self::Control { .. }
            | Self::Window { .. }
            | Self::ImageIncomplete { .. }
            | Self::Piece(_) => Class::Bug,
        }
    }
}

impl From<JournalError> for IngestError {
    fn from(source: JournalError) -> Self {
        Self::Storage(StorageError::Journal(source))
    }
}
