//! Which record holds each byte of a disk newest, at any position of a log, without reading the
//! log: immutable *runs* of sorted pieces, each over a contiguous range of LSNs. Pure; whoever
//! calls brings the pages. Normative format: `docs/formats/index.md`.
//!
//! ```text
//! records ─► pieces (cut at chunks) ─► runs, sorted by (disk, class, start, LSN) ─► merged runs
//! content of a chunk at L  =  for each run, each start: the newest piece up to L; newest LSN wins
//! ```
//!
//! # Invariants
//! * A lookup costs by the number of runs and of different starts in a chunk, never by the number
//!   of versions of a block or by the length of a discard.
//! * A page whose checksum, salt or number does not fit is [`Damaged`], never believed: a run can
//!   always be made again from the log.
//! * No input makes this crate panic.
//!
//! # Where to start
//! [`Piece`], [`resolve()`], [`Sweep`], [`RunBuilder`], [`plan()`].
//!
//! # Deliberately absent
//! Files, caches of pages, threads: `landfall-volume` has them.

mod build;
mod clock;
mod extent;
mod memory;
mod merge;
mod page;
mod piece;
mod plan;
mod resolve;
mod run;
mod sweep;

#[cfg(test)]
mod tests;

pub use build::{Footer, RunBuilder, RunIdentity};
pub use clock::Clock;
pub use extent::ExtentMap;
pub use memory::MemoryRun;
pub use merge::Merge;
pub use page::{Damaged, PAGE_BYTES, Page};
pub use piece::{CHUNK_BYTES, Holder, Item, Key, PayloadAt, Piece, chunk_of};
pub use plan::{FAN_OUT, plan};
pub use resolve::{Extent, Layer, Source, resolve};
pub use run::{Pages, Run};
pub use sweep::Sweep;
