//! The ordered log of writes on disk: appended in LSN order, acknowledged after a group flush,
//! recovered after any power cut, trimmed by whole segments. Used by a master target for replicas
//! and branches, and by a process server as spool. Normative format: `docs/formats/journal.md`.
//!
//! ```text
//! append ──► open frame (memory) ──► flush: frames written, one fdatasync ──► durable
//!                                        │ segment full: index, next segment
//! trim ───► superblock first ──► slots of old segments are used again
//! ```
//!
//! # Invariants
//! * What [`Log::flush`] has reported durable is there after any power cut, or [`Log::open`] says
//!   [`JournalError::Corrupt`]; it is never cut off silently.
//! * What was not reported durable is there as a prefix, or not at all: no hole, no record of an
//!   earlier use of the disk.
//! * A cut made by recovery is durable before the first append after it.
//! * Space is used again only after the superblock that gives it up is durable.
//!
//! # Where to start
//! [`Log`], then `recovery/decide.rs` (the decision table), then `format/`.
//!
//! # Deliberately absent
//! Rewriting: a log is never truncated but by recovery, and a record is never changed.

mod bugs;
mod cover;
mod error;
mod format;
#[cfg(feature = "testing")]
pub mod fuzzing;
pub mod inspect;
mod limits;
mod log;
mod recovery;
pub mod salvage;
mod superblock_file;
mod table;
mod types;

#[cfg(any(test, feature = "testing"))]
pub use bugs::SeededBug;
pub use error::JournalError;
pub use log::Log;
pub use types::{
    Entry, Location, LogBatch, LogConfig, LogStat, Position, RecoveryReport, SegmentStat, Stamp,
    TailVerdict,
};
