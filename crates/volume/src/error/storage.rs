use landfall_blockdev::DeviceError;
use landfall_crypt::KeyError;
use landfall_journal::JournalError;
use landfall_types::{Class, DiskIndex, ReplicaId};

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
    /// Not a retention volume.
    #[error("the directory is no retention volume: it has no manifest")]
    NoVault,
    /// The vault's manifest is damaged.
    #[error("the manifest of the retention volume is damaged")]
    Manifest,
    /// Written by a later version of Landfall.
    #[error("written in format version {found}, which this version of Landfall does not know")]
    Version {
        /// What it has.
        found: u16,
    },
    /// A block of an image is not what was written.
    #[error("the block at byte {offset} of disk {disk} is not what was written to its image")]
    Rot {
        /// Which disk.
        disk: DiskIndex,
        /// Its first byte.
        offset: u64,
    },
    /// A body that can't be encoded.
    #[error("the superblock can't be encoded")]
    Encode,
    /// A body that would not be read again.
    #[error("the superblock would have {0} bytes: discard divergence or remove branches")]
    TooLong(usize),
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
    /// A part of a log's index is damaged, and could not be made again.
    #[error("the index of a log is damaged, and can't be made again")]
    Index(#[source] landfall_index::Damaged),
    /// The replica is encrypted, and its key can't be had.
    #[error("the replica is encrypted, and its key can't be had")]
    Key(#[from] KeyError),
    /// An image that can't be encrypted.
    #[error("{image} can't be an image of an encrypted replica: only raw files can be encrypted")]
    NotSealable {
        /// Path of the image.
        image: String,
    },
    /// The replica is not encrypted.
    #[error("the replica is not encrypted")]
    NotEncrypted,
    /// The images were handed over to the machine.
    #[error("the images were handed over to the machine")]
    Released,
}

impl StorageError {
    /// For reading a disk's image: blocks that are not what was sealed have rotted.
    pub(crate) fn image(disk: DiskIndex) -> impl FnOnce(DeviceError) -> Self {
        move |source| match source {
            DeviceError::Unauthentic { offset, .. } => Self::Rot { disk, offset },
            source => Self::Device { doing: "read image", source },
        }
    }

    pub(crate) const fn device(doing: &'static str) -> impl FnOnce(DeviceError) -> Self {
        move |source| Self::Device { doing, source }
    }

    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Device { source, .. } => source.class(),
            Self::Journal(source) => source.class(),
            Self::Key(source) => source.class(),
            Self::Superblock
            | Self::Manifest
            | Self::UndoDamaged
            | Self::Index(_)
            | Self::Rot { .. }
            | Self::LogMissing
            | Self::UnknownDisk(_) => Class::Corrupt,
            Self::Version { .. }
            | Self::TooLong(_)
            | Self::NoVault
            | Self::Poisoned
            | Self::Exists(_)
            | Self::UnknownReplica(_)
            | Self::ImageMismatch { .. }
            | Self::NotSealable { .. }
            | Self::NotEncrypted
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
            Self::NotSealable { .. } | Self::NotEncrypted => "not-supported",
            Self::Key(error) if error.is_wrong() => "key-wrong",
            Self::Journal(JournalError::WrongKey) => "key-wrong",
            Self::Key(_) | Self::Journal(JournalError::KeyMissing) => "key-missing",
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

impl From<landfall_index::Damaged> for StorageError {
    fn from(source: landfall_index::Damaged) -> Self {
        Self::Index(source)
    }
}

impl From<JournalError> for StorageError {
    fn from(source: JournalError) -> Self {
        Self::Journal(source)
    }
}
