//! What the indexes are made of, and who reads what of them.

use super::Replica;
use crate::index::IndexFigures;
use crate::sync::{lock, read};
use landfall_types::{LogId, Lsn};

/// The index of a log as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexStatus {
    /// Of which log.
    pub log: LogId,
    /// Run files.
    pub runs: usize,
    /// Pieces of records in them.
    pub pieces: u64,
    /// Records that are in memory only.
    pub tail_records: usize,
    /// A merge that goes on: of the records behind, up to and including. Both old and new files
    /// take room until it ends.
    pub merging: Option<(Lsn, Lsn)>,
}

/// Who reads an index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexReader {
    /// The branch's name; `None` for a view, and for the replica's own log.
    pub branch: Option<String>,
    /// The log that it was opened on.
    pub log: LogId,
    /// Its position; `None`: the newest.
    pub at: Option<Lsn>,
    /// Files and pieces of memory that it has read last, of all logs of its history. They pin
    /// nothing: a merge replaces them without waiting, and whoever reads goes on with the files
    /// that it has open. What keeps *records* is in [`Replica::holds`].
    pub runs: usize,
}

impl Replica {
    /// The indexes of the kept logs. No I/O.
    #[must_use]
    pub fn indexes(&self) -> Vec<IndexStatus> {
        let logs: Vec<_> = lock(&self.core).logs.iter().map(|(log, kept)| (*log, kept.1)).collect();
        let figures = logs.into_iter().filter_map(|(log, slot)| {
            let IndexFigures { runs, pieces, tail_records, merging } =
                self.medium.index(slot).ok()?.figures();
            Some(IndexStatus { log, runs, pieces, tail_records, merging })
        });
        figures.collect()
    }

    /// Open views, branches and the replica's own log, with what they read. No I/O.
    #[must_use]
    pub fn index_readers(&self) -> Vec<IndexReader> {
        let line = self.line();
        let own = (None, line.log.id(), None, line.scene.run_count());
        let views = self.viewed().into_iter();
        let views = views.map(|(log, at, runs)| (None, log, Some(at), runs));
        let branches = read(&self.branches);
        let branches = branches.values().map(|branch| {
            let (entry, line) = (branch.entry(), branch.line());
            (Some(entry.name.clone()), entry.log, None, line.scene.run_count())
        });
        let reader = |(branch, log, at, runs)| IndexReader { branch, log, at, runs };
        [own].into_iter().chain(views).chain(branches).map(reader).collect()
    }
}
