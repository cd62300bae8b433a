//! The bitmap over a restart of the machine (trap T-16).
//!
//! ```text
//!   protected   Area::prepare      a file of fixed place on the root file system
//!   shutdown    save               after the last unmount: bits and fingerprints into the area
//!   boot        watch              before the root is mounted: programs mark every disk
//!               restore            root mounted read-only: the area is used up, then bits go in
//!   agent       ordinary start     takes the watch over, and sends what is dirty
//! ```
//!
//! # Invariants
//! * What was kept is used once: its seal is broken, durably, before any of it counts, and before
//!   the file system that holds it can be written.
//! * It counts for a disk only if size and [`fingerprint`] are those of the moment of saving, and
//!   if the kernel has counted no write before the watch. What no fingerprint covers is dirty.
//! * It counts only towards a receiver whose newest record is of an incarnation that the bits know
//!   of ([`crate::settled::Ancestry`]): a machine that was put back to an older state of its disks
//!   finds one that is not.
//! * Every doubt is answered by a comparison of the disk, never by a guess.
//!
//! # Deliberately absent
//! A proof against somebody who writes to a disk past its file systems while the machine is off:
//! decision 0022 says what the fingerprint can't see.

pub mod area;
pub mod fingerprint;
mod restore;
mod save;
pub mod saved;

pub use restore::{Restored, restore, watch};
pub use save::{Kept, save};

use crate::state::StateError;
use landfall_capture::CaptureError;
use landfall_types::Class;
use std::io;
use std::path::PathBuf;

/// Why the bitmap can't be kept, or what was kept can't be used. The answer is always the same: the
/// disks are compared.
#[derive(Debug, thiserror::Error)]
pub enum RebootError {
    /// The area in which it is kept.
    #[error("{operation} {}", path.display())]
    Area {
        /// Verb.
        operation: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file can't be written past its file system.
    #[error("{} can't be written past its file system: {why}", path.display())]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// What stands against it.
        why: &'static str,
    },
    /// What the capture has left, or the watch.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The agent's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file system of a protected disk can still be written.
    #[error("{0} is mounted and can be written")]
    Writable(PathBuf),
    /// Somebody wrote while it was saved.
    #[error("a disk was written while the bitmap was saved")]
    Written,
}

impl RebootError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Area { .. } | Self::Unfit { .. } => Class::Permanent,
            Self::Capture(error) => error.class(),
            Self::State(error) => error.class(),
            Self::Writable(_) | Self::Written => Class::Transient,
        }
    }
}
