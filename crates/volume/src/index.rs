//! The index of a replica's logs on disk: which record holds each byte, at any position, without
//! reading the logs. The pure part is `landfall-index`; here are its files, caches and the thread
//! that merges. Normative format: `docs/formats/index.md`; why so: `docs/decisions/0010`.
//!
//! ```text
//! append ─► tail (memory) ─► a run file per 16 Ki records ─► merged, eight into one, and so on
//! read   ─► tail's map, where nothing: chunk resolved once over the runs, kept in the cache
//! ```
//!
//! # Invariants
//! * A run holds durable records only: written before, it would name records that a power cut takes
//!   away, and the next ones under the same positions would be read as they.
//! * A run file has its name only when all of it is durable; one that is damaged all the same is
//!   made again from the log, and never believed.
//! * Records up to the *floor* are the image's: whatever the index says of them is not looked at.

mod cover;
mod log_index;
mod maintain;
mod open;
mod pool;
mod run_file;
mod scene;
mod tail;

pub(crate) use log_index::{IndexFigures, LogIndex};
pub(crate) use pool::Floor;
pub use pool::{IndexOptions, IndexPool};
pub(crate) use scene::{Held, Scene, SceneLevel};
