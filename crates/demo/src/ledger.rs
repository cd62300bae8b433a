//! The ledger: what the workload writes and what the checks read back.
//!
//! Entry *n* is first committed to a SQLite database on disk 1, durably, and only then appended to
//! a file on disk 2, durably. So at every moment, and at every LSN of a log that keeps one order
//! across both disks, disk 1 has entries 1..=n without a gap and disk 2 has n or n−1. With the
//! second disk's writes late or early by a few records this breaks.
//!
//! Each entry's sum covers the sum of the one before: an entry that belongs to another history
//! (written at home after the disaster, say) breaks the chain though its number fits.

mod check;
mod database;
mod entry;
mod file;

pub(crate) use check::{Ledger, check};
pub(crate) use database::{Database, JournalMode};
pub(crate) use entry::{Entry, Line, ROOT, Sum};
pub(crate) use file::{LineFile, read_lines};

#[cfg(test)]
mod tests;

/// The database on disk 1.
pub(crate) const DATABASE: &str = "ledger.db";
/// The file on disk 2.
pub(crate) const FILE: &str = "ledger.log";
