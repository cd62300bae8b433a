use landfall_blockdev::DeviceError;
use landfall_types::{Class, ControlError, Epoch, LogId, Lsn, RecordError};

/// Why a log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Storage failed.
    #[error("journal: {doing}")]
    Device {
        /// What was being done.
        doing: &'static str,
        /// What storage said.
        #[source]
        source: DeviceError,
    },
    /// No room: nothing acknowledged is lost, and the log goes on when there is room again.
    #[error("journal: {doing}: no space left")]
    Full {
        /// What was being done.
        doing: &'static str,
    },
    /// The directory holds no log, or one whose creation never finished.
    #[error("the directory holds no log")]
    NotALog,
    /// The directory holds a log already.
    #[error("the directory holds the log {0} already")]
    Exists(LogId),
    /// Another process, or another [`crate::Log`] of this one, has the directory open.
    #[error("the log in {target} is in use")]
    InUse {
        /// Which directory.
        target: String,
    },
    /// The configuration can't work.
    #[error(
        "segments of {segment_bytes} bytes: must be a multiple of {sector_bytes}, from {min} to {max}"
    )]
    SegmentBytes {
        /// Asked for.
        segment_bytes: u64,
        /// What it must be a multiple of.
        sector_bytes: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Written by a later version of Landfall.
    #[error("{what} has format version {found}, this version of Landfall knows {known}")]
    Version {
        /// Superblock, segment or frame.
        what: &'static str,
        /// What it has.
        found: u16,
        /// What we know.
        known: u16,
    },
    /// A record out of order.
    #[error("record {found} was appended where {expected} was due")]
    NotNext {
        /// Due.
        expected: Lsn,
        /// Given.
        found: Lsn,
    },
    /// An epoch that is over (design section 5.4).
    #[error("records of epoch {offered}: the log is at {current}")]
    Fenced {
        /// Given.
        offered: Epoch,
        /// The log's.
        current: Epoch,
    },
    /// A record that is none.
    #[error("a record that can't be stored")]
    Record(#[source] RecordError),
    /// A control record that this version of Landfall can't read.
    #[error("the control record at {lsn} can't be read")]
    Control {
        /// Which.
        lsn: Lsn,
        /// What is wrong with it.
        #[source]
        source: ControlError,
    },
    /// The log is sealed, and no key was given.
    #[error("the log is encrypted: its key is needed")]
    KeyMissing,
    /// The log is sealed with another key.
    #[error("the log is encrypted with another key")]
    WrongKey,
    /// The log is plain, and its replica is not: someone has put it there.
    #[error("the log is not encrypted, though its replica is")]
    NotSealed,
    /// The system gave no random bits for a salt.
    #[error("the system gives no random bits")]
    NoRandomness,
    /// A record that does not fit into a segment of this log.
    #[error("the record at {lsn} does not fit into a segment of {segment_bytes} bytes")]
    TooLong {
        /// Which.
        lsn: Lsn,
        /// The log's segment size in bytes.
        segment_bytes: u64,
    },
    /// Trimmed, or before the log's begin.
    #[error("position {lsn} is not kept: the log begins after {base}")]
    Trimmed {
        /// Asked for.
        lsn: Lsn,
        /// The position before the oldest kept record.
        base: Lsn,
    },
    /// Not written yet.
    #[error("position {lsn} does not exist yet: the log ends at {tail}")]
    Beyond {
        /// Asked for.
        lsn: Lsn,
        /// The last record.
        tail: Lsn,
    },
    /// What was durable is not what was written: quarantine and alarm.
    #[error("the log is corrupt at {lsn}: {what}")]
    Corrupt {
        /// The first record that can't be had.
        lsn: Lsn,
        /// What was found.
        what: &'static str,
    },
    /// A write or flush has failed before: drop the log and open it anew.
    #[error("a write or flush has failed before: the log must be opened anew")]
    Poisoned,
}

impl JournalError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Device { source, .. } => source.class(),
            Self::Full { .. } | Self::InUse { .. } => Class::Transient,
            Self::NotALog
            | Self::Exists(_)
            | Self::SegmentBytes { .. }
            | Self::Version { .. }
            | Self::TooLong { .. }
            | Self::KeyMissing
            | Self::WrongKey
            | Self::NoRandomness
            | Self::Trimmed { .. }
            | Self::Poisoned => Class::Permanent,
            Self::Beyond { .. } | Self::NotNext { .. } => Class::Bug,
            Self::Fenced { .. } => Class::Fenced,
            Self::NotSealed | Self::Record(_) | Self::Control { .. } | Self::Corrupt { .. } => {
                Class::Corrupt
            }
        }
    }

    /// Wraps a storage error, keeping "no space" apart.
    pub(crate) const fn device(doing: &'static str) -> impl FnOnce(DeviceError) -> Self {
        move |source| {
            if source.is_full() { Self::Full { doing } } else { Self::Device { doing, source } }
        }
    }
}
