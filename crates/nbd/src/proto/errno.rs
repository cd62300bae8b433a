use crate::ExportError;

/// The error numbers of the protocol (they are those of Linux, and fixed by the document).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Errno {
    /// The export is read-only.
    NotPermitted = 1,
    /// The store failed.
    Io = 5,
    /// Out of memory; never sent by us.
    NoMemory = 12,
    /// The request makes no sense.
    Invalid = 22,
    /// No space, or beyond the end for writes.
    NoSpace = 28,
    /// More than can be answered in one reply.
    Overflow = 75,
    /// A fast zero that would not be fast.
    NotSupported = 95,
    /// The server goes away, or the export was revoked.
    Shutdown = 108,
}

impl Errno {
    /// As it stands on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// From the wire; what the document doesn't list counts as EINVAL (section "Error values").
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::NotPermitted,
            5 => Self::Io,
            12 => Self::NoMemory,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::Shutdown,
            _ => Self::Invalid,
        }
    }
}

/// What a failed operation does to the disk decides how "outside the disk" is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Reads, status, trim.
    Looks,
    /// Writes and zeroes.
    Stores,
}

impl Errno {
    /// The number that answers a failure of the export (protocol document, section "Error values").
    pub(crate) fn of(error: &ExportError, effect: Effect) -> Self {
        match error {
            ExportError::Unknown(_) | ExportError::Absent { .. } => Self::Invalid,
            ExportError::ReadOnly => Self::NotPermitted,
            ExportError::Revoked => Self::Shutdown,
            ExportError::OutOfRange { .. } if effect == Effect::Stores => Self::NoSpace,
            ExportError::OutOfRange { .. } => Self::Invalid,
            ExportError::NoSpace => Self::NoSpace,
            ExportError::Io(_) => Self::Io,
        }
    }
}
