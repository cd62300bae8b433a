use super::{DATABASE, Database, FILE, read_lines};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;

/// A ledger that is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub(crate) struct Ledger {
    /// Entries on disk 1.
    pub(crate) disk1: u64,
    /// Entries on disk 2: as many, or one less.
    pub(crate) disk2: u64,
    /// Time of the last entry on disk 1.
    pub(crate) time_ns: u64,
}

/// Checks the ledger on two mounted file systems; the database is recovered as SQLite does after a
/// power cut.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) async fn check(mount1: &Path, mount2: &Path) -> Result<Ledger> {
    let path = mount1.join(DATABASE);
    let mut database = Database::open(&path).await?;
    let entries = database.check().await;
    database.close().await?;
    let entries = entries?;
    let lines = read_lines(&mount2.join(FILE))?;
    let (on1, on2) = (entries.len(), lines.len());
    ensure!(
        on2 == on1 || on2 + 1 == on1,
        "disk 1 has {on1} entries and disk 2 has {on2}: the writes of both disks are not in one order"
    );
    for (entry, line) in entries.iter().zip(&lines) {
        let same = entry.sum == line.sum && entry.time_ns == line.time_ns;
        ensure!(same, "entry {} is another one on disk 1 than on disk 2", entry.number);
    }
    Ok(Ledger {
        disk1: u64::try_from(on1).context("count")?,
        disk2: u64::try_from(on2).context("count")?,
        time_ns: entries.last().map_or(0, |entry| entry.time_ns),
    })
}
