use async_trait::async_trait;
use bytes::Bytes;
use landfall_types::Class;
use std::sync::Arc;

/// One stretch of an export with the same state, as block status reports it (`base:allocation`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Bytes covered.
    pub length: u64,
    /// Reads as zeroes and holds no data.
    pub hole: bool,
}

/// Why an operation on an export failed; each maps to one NBD error number.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No export has this name (`NBD_REP_ERR_UNKNOWN` during negotiation).
    #[error("no export is named {0:?}")]
    Unknown(String),
    /// The name is understood, but what it names can't be served (`NBD_REP_ERR_UNKNOWN` with the
    /// reason during negotiation).
    #[error("{name:?} is not served")]
    Absent {
        /// The name.
        name: String,
        /// Why; told to the client.
        #[source]
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The export is read-only (EPERM).
    #[error("the export is read-only")]
    ReadOnly,
    /// Authority was taken away: the client is answered ESHUTDOWN and disconnected.
    #[error("the export was revoked")]
    Revoked,
    /// Outside the disk (EINVAL, ENOSPC for writes).
    #[error("{length} bytes at {offset} lie outside the disk of {size} bytes")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: u64,
        /// Size of the export.
        size: u64,
    },
    /// No space (ENOSPC).
    #[error("no space is left for the branch")]
    NoSpace,
    /// Anything else (EIO): the data is not served, never served wrong.
    #[error("the store failed")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ExportError {
    /// What the error asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Unknown(_) | Self::Absent { .. } | Self::ReadOnly | Self::OutOfRange { .. } => {
                Class::Permanent
            }
            Self::Revoked => Class::Fenced,
            Self::NoSpace | Self::Io(_) => Class::Transient,
        }
    }
}

/// What a client may do with an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A view.
    ReadOnly,
    /// A branch.
    ReadWrite,
}

/// What [`Export::read_here`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The buffer is filled.
    Data,
    /// The whole range reads as zeroes; the buffer was not touched.
    Zeroes,
}

/// A change of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Bytes.
    Write {
        /// First byte on the disk.
        offset: u64,
        /// What it becomes.
        data: Bytes,
    },
    /// Reads as zeroes from then on.
    Zero {
        /// First byte on the disk.
        offset: u64,
        /// Bytes on the disk.
        length: u64,
    },
    /// Is given up.
    Trim {
        /// First byte on the disk.
        offset: u64,
        /// Bytes on the disk.
        length: u64,
    },
}

/// How far the changes of an export were taken in: [`Export::settle`] of a ticket makes durable
/// that change and all that were taken in before. Later tickets of one export are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// One disk as NBD serves it. Calls are made concurrently; blocking work belongs on a thread of the
/// implementor's.
///
/// The calls whose names end in `_here` are the exception: they may block, and are only made on a
/// thread that serves one client and nobody else. They are what is fast: no other thread has to be
/// woken for a block that lies in memory, and many writes share one flush. An export without them
/// is served through the others.
///
/// The calls of one connection are polled by one task: what an implementor does between two
/// `.await`s delays the other requests of that connection. Size, block size, access and sharing do
/// not change while an export is open.
#[async_trait]
pub trait Export: Send + Sync + 'static {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Smallest unit in bytes that a client should use: the disk's logical sector (512 or 4096).
    fn block_bytes(&self) -> u32;
    /// Read-only or read-write.
    fn access(&self) -> Access;
    /// True once authority was taken away: the server closes the connection.
    fn revoked(&self) -> bool;
    /// True when every opening of this export by the same name shows the same disk, so that a
    /// client may spread one job over several connections (`NBD_FLAG_CAN_MULTI_CONN`).
    ///
    /// A branch is one object, so yes. A view whose name moves (`@latest`) is not: two connections
    /// would open it at two positions, and a copy made through both would be of no moment at all.
    /// Views at a fixed position may say yes.
    fn multi_conn(&self) -> bool {
        self.access() == Access::ReadWrite
    }
    /// Fills `out` on the calling thread; `None` when this export can't.
    fn read_here(&self, _offset: u64, _out: &mut [u8]) -> Option<Result<Content, ExportError>> {
        None
    }
    /// Takes a change in on the calling thread: reads show it, but it counts as done only when its
    /// ticket is settled. `None` when this export can't.
    fn change_here(&self, _change: &Change) -> Option<Result<Ticket, ExportError>> {
        None
    }
    /// Returns when everything up to this ticket is durable (trap T-10). Called only with tickets
    /// of [`Export::change_here`].
    async fn settle(&self, _ticket: Ticket) -> Result<(), ExportError> {
        Ok(())
    }
    /// Reads `length` bytes.
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError>;
    /// Writes; answers only when durable (trap T-10).
    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ExportError>;
    /// Makes a range read as zeroes; answers only when durable.
    async fn zero(&self, offset: u64, length: u64) -> Result<(), ExportError>;
    /// Gives a range up; answers only when durable.
    async fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError>;
    /// All writes answered before are durable when this returns.
    async fn flush(&self) -> Result<(), ExportError>;
    /// Allocation of a range, in order and covering it whole.
    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError>;
}

/// The exports of a server by name.
#[async_trait]
pub trait Exports: Send + Sync + 'static {
    /// Names that a client may list.
    async fn list(&self) -> Vec<String>;
    /// Opens one by name, for instance `machine/0@latest`.
    async fn open(&self, name: &str) -> Result<Arc<dyn Export>, ExportError>;
}
