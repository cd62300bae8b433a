use landfall_types::Class;
use std::io;

/// What was being done when it failed; part of the error's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Opening an existing file or device.
    Open,
    /// Creating a file or directory.
    Create,
    /// Listing a directory.
    List,
    /// Removing.
    Remove,
    /// Renaming.
    Rename,
    /// Asking for size, sector size or free space.
    Query,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Changing the length or reserving space.
    Resize,
    /// Zeroing or discarding.
    Discard,
    /// Syncing.
    Sync,
}

impl Action {
    const fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Query => "query",
            Self::Read => "read",
            Self::Write => "write",
            Self::Resize => "resize",
            Self::Discard => "discard",
            Self::Sync => "sync",
        }
    }
}

/// Why storage did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The operating system says so.
    #[error("{} {target}", action.verb())]
    Io {
        /// What was being done.
        action: Action,
        /// To which file or device.
        target: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No room (ENOSPC, EDQUOT): usable again when there is.
    #[error("{} {target}: no space left", action.verb())]
    Full {
        /// What was being done.
        action: Action,
        /// To which file or device.
        target: String,
    },
    /// The range ends beyond the file or device.
    #[error("{target}: {length} bytes at {offset} end beyond its {size} bytes")]
    OutOfRange {
        /// Which file or device.
        target: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// No such file.
    #[error("{target} does not exist")]
    NotFound {
        /// Which.
        target: String,
    },
    /// A file of that name is there.
    #[error("{target} exists")]
    Exists {
        /// Which.
        target: String,
    },
    /// Not a plain name of a file.
    #[error("{name:?} is not a file name")]
    BadName {
        /// What was given.
        name: String,
    },
    /// Neither a regular file nor a block device.
    #[error("{target} is neither a regular file nor a block device")]
    NotADisk {
        /// Which.
        target: String,
    },
    /// What was read was not sealed with the key in use for this place: rot, or someone's work.
    #[error("{target} at {offset}: what was read is not what was sealed there")]
    Unauthentic {
        /// Which.
        target: String,
        /// First byte that can't be had.
        offset: u64,
    },
    /// No random bits to seal with.
    #[error("{target}: the system gives no random bits")]
    NoRandomness {
        /// Which.
        target: String,
    },
    /// Someone else has the device (mounted, or opened exclusively).
    #[error("{target} is in use")]
    Busy {
        /// Which.
        target: String,
    },
    /// Opened read-only.
    #[error("{target} was opened read-only")]
    ReadOnly {
        /// Which.
        target: String,
    },
    /// A sync has failed before: reopen and recover, never retry (fault F3).
    #[error("{target} is poisoned: a sync has failed before, it must be reopened and recovered")]
    Poisoned {
        /// Which.
        target: String,
    },
}

impl DeviceError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Full { .. } | Self::Busy { .. } => Class::Transient,
            Self::Io { .. }
            | Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::NotADisk { .. }
            | Self::ReadOnly { .. }
            | Self::NoRandomness { .. }
            | Self::Poisoned { .. } => Class::Permanent,
            Self::Unauthentic { .. } => Class::Corrupt,
            Self::OutOfRange { .. } | Self::BadName { .. } => Class::Bug,
        }
    }

    /// True for [`DeviceError::Full`].
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Sorts what the operating system said.
    #[must_use]
    pub fn from_io(action: Action, target: &str, source: io::Error) -> Self {
        let target = target.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, target }
            }
            io::ErrorKind::NotFound => Self::NotFound { target },
            io::ErrorKind::AlreadyExists => Self::Exists { target },
            io::ErrorKind::ResourceBusy => Self::Busy { target },
            _ => Self::Io { action, target, source },
        }
    }
}

/// Refuses a range that ends beyond `size`.
pub(crate) fn range_check(
    target: &str,
    size: u64,
    offset: u64,
    length: u64,
) -> Result<(), DeviceError> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(DeviceError::OutOfRange { target: target.to_owned(), offset, length, size }),
    }
}
