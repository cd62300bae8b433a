//! Room for the benchmarks' files: `LANDFALL_BENCH_DIR`, else the system's temporary directory.
//!
//! On a tmpfs durable writes cost nothing, and B2 means nothing; the notes say which file system it
//! was.

use anyhow::{Context, Result};
use std::path::PathBuf;
use tempfile::TempDir;

/// A directory that goes when it is dropped.
pub(super) fn directory() -> Result<TempDir> {
    let parent =
        std::env::var_os("LANDFALL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new()
        .prefix("landfall-bench-")
        .tempdir_in(&parent)
        .with_context(|| format!("make a directory in {}", parent.display()))
}
