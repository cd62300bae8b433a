//! Errors by family of operations. Every one has a `class()`, and those that an operator sees have a stable `code()`
//! of the registry in `landfall-api-types`.

use crate::body::Role;
use crate::timeline::Point;
use landfall_blockdev::DeviceError;
use landfall_journal::JournalError;
use landfall_types::{
    ByteRange, Class, ControlError, DiskIndex, Epoch, InstanceId, LineageError, Lsn, RecordError,
    ReplicaId, UnixNanos, WindowsError,
};

/// Storage, and what is on it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file, directory or image failed.
    #[error("{doing}")]
    Device {
        /// What was being done.
        doing: &'static str,
        /// What storage said.
        #[source]
        source: DeviceError,
    },
    /// A log failed.
    #[error("the replica's log failed")]
    Journal(#[source] JournalError),
    /// No readable superblock: quarantine, never guess.
    #[error("the replica's superblock is damaged: no copy of it can be read")]
    Superblock,
    /// The vault's manifest is damaged.
    #[error("the manifest of the retention volume is damaged")]
    Manifest,
    /// Written by a later version of Landfall.
    #[error("written in format version {found}, which this version of Landfall does not know")]
    Version {
        /// What it has.
        found: u16,
    },
    /// A body that can't be encoded.
    #[error("the superblock can't be encoded")]
    Encode,
    /// A write of the superblock has failed before: the replica must be opened anew.
    #[error("a write of the superblock has failed before: the replica must be opened anew")]
    Poisoned,
    /// A replica of this ID is here.
    #[error("replica {0} exists")]
    Exists(ReplicaId),
    /// No replica of this ID is here.
    #[error("replica {0} is not here")]
    UnknownReplica(ReplicaId),
    /// A log that the superblock names can't be had.
    #[error("a log that the content needs is not kept")]
    LogMissing,
    /// The undo file is damaged.
    #[error("the undo file is damaged: the image can't be put back")]
    UndoDamaged,
    /// A log holds a record for a disk that the replica does not have.
    #[error("the log names disk {0}, which the replica does not have")]
    UnknownDisk(DiskIndex),
    /// A disk's image can't hold it.
    #[error(
        "disk {disk} has {needed} bytes in sectors of {needed_sector}; {image} has {size} in sectors of {sector}"
    )]
    ImageMismatch {
        /// Which disk.
        disk: DiskIndex,
        /// Path of the image.
        image: String,
        /// Bytes that the disk has.
        needed: u64,
        /// Its sector size in bytes.
        needed_sector: u32,
        /// Bytes that the image has.
        size: u64,
        /// The image's sector size in bytes.
        sector: u32,
    },
    /// The images were handed over to the machine.
    #[error("the images were handed over to the machine")]
    Released,
}

impl StorageError {
    pub(crate) const fn device(doing: &'static str) -> impl FnOnce(DeviceError) -> Self {
        move |source| Self::Device { doing, source }
    }

    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Device { source, .. } => source.class(),
            Self::Journal(source) => source.class(),
            Self::Superblock
            | Self::Manifest
            | Self::UndoDamaged
            | Self::LogMissing
            | Self::UnknownDisk(_) => Class::Corrupt,
            Self::Version { .. }
            | Self::Poisoned
            | Self::Exists(_)
            | Self::UnknownReplica(_)
            | Self::ImageMismatch { .. }
            | Self::Released => Class::Permanent,
            Self::Encode => Class::Bug,
        }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Device { source, .. } if source.is_full() => "retention-full",
            Self::Journal(JournalError::Full { .. }) => "retention-full",
            Self::Device {
                source: DeviceError::Busy { .. } | DeviceError::NotADisk { .. },
                ..
            } => "disk-unusable",
            Self::ImageMismatch { .. } => "disk-mismatch",
            _ => match self.class() {
                Class::Corrupt => "corrupt",
                Class::Fenced => "fenced",
                Class::Bug => "internal",
                Class::Transient | Class::Permanent => "node-failed",
            },
        }
    }

    /// True when there is no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        match self {
            Self::Device { source, .. } => source.is_full(),
            Self::Journal(source) => matches!(source, JournalError::Full { .. }),
            _ => false,
        }
    }
}

impl From<JournalError> for StorageError {
    fn from(source: JournalError) -> Self {
        Self::Journal(source)
    }
}

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
}

impl PointError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InWindow { .. } => "point-in-window",
            Self::NoneYet => "no-point-yet",
            Self::Ambiguous { .. } => "ambiguous-time",
            Self::NotKept { .. } | Self::NoMarkerBefore { .. } | Self::NoMarkerNamed { .. } => {
                "no-such-point"
            }
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
    /// The sender's history continues ours in an epoch that this replica was not told to follow yet.
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
