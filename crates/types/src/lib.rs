//! The vocabulary of Landfall: typed identities, log positions and the log record itself.
//!
//! Every other crate speaks in these types, so that a log position can't be mistaken for a byte
//! offset and an epoch can't be mistaken for an incarnation. No input or output, no clock, no
//! async.
//!
//! # Invariants
//! * An [`Lsn`] is dense: 1, 2, 3 … per machine, over all its disks (design section 14.1).
//!   [`Lsn::ZERO`] means "nothing yet".
//! * A record is identified by *(epoch, incarnation, LSN)* and by the running [`Chain`] (trap T-1).
//! * The encodings in [`record`] and [`control`] are used on disk and on the wire;
//!   `docs/formats/records.md` is normative.
//!
//! # Where to start
//! [`record::Record`], then [`control::Control`] (markers and windows), then [`lineage::Lineage`].

mod chain;
mod class;
pub mod control;
mod disk;
mod epoch;
mod ids;
pub mod lineage;
mod lsn;
mod range;
pub mod record;
pub mod retention;
mod time;
mod windows;

pub use chain::Chain;
pub use class::Class;
pub use control::{
    Control, ControlError, Marker, MarkerKind, WindowClose, WindowId, WindowMode, WindowOpen,
    WindowReason,
};
pub use disk::{DiskGeometry, DiskIndex};
pub use epoch::{Epoch, EpochId, Incarnation};
pub use ids::{
    BranchId, DiskId, GroupPointId, InstanceId, JobId, LogId, MachineId, NodeId, OrderId, ReplicaId,
};
pub use lineage::{Lineage, LineageEntry, LineageError};
pub use lsn::Lsn;
pub use range::ByteRange;
pub use record::{HEADER_BYTES, PAYLOAD_BYTES_MAX, Record, RecordError, RecordHeader, RecordKind};
pub use retention::{PolicyError, RetentionPolicy, ThinningTier};
pub use time::UnixNanos;
pub use windows::{WINDOWS_OPEN_MAX, Windows, WindowsError};
