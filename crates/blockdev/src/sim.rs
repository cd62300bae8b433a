//! A simulated medium: files and directories in memory that know what is durable, lose power at
//! every point, fail on order and rot.
//!
//! ```text
//! SimMedium ── root() ──► SimDir ──► SimFile      every change is recorded as an [`Op`]
//!     │ promise()         what the code under test has just promised to its caller
//!     ▼
//!   Trace ── for_each_power_cut ──► Cut { medium as it may be found, promises made before }
//! ```
//!
//! # Rules of the medium (fault model F2, F3)
//! * Every sector written since the last completed sync of its file is old, new or garbage after a
//!   cut, each on its own.
//! * Changes of a file's length, and of names (create, remove, rename), are done or not, each on
//!   its own.
//! * A completed sync of a file makes its content and length durable, not its name; a sync of a
//!   directory the reverse.
//! * A failed sync leaves any part of what was pending; the handle takes nothing more.
//!
//! The promises are indexes into a list that the test keeps: whatever was promised before the cut
//! must hold after it.

mod cuts;
mod fault;
mod image;
mod medium;
mod trace;

pub use cuts::{Cut, CutOptions, CutStat, for_each_power_cut};
pub use fault::{Fault, FaultPlan, Rot};
pub use image::{DirId, FileId};
pub use medium::SimMedium;
pub use trace::{Op, Trace};
