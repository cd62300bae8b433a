//! Exports over memory and over plain files, for tests and benchmarks: nothing here replicates
//! anything.

mod file;
pub mod fuzz;
mod map;
mod memory;

pub use file::FileExport;
pub use map::ExportMap;
pub use memory::{Counts, MemoryExport};
