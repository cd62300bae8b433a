//! The spool: a journal, and what is still to be delivered of it.

use crate::RelayError;
use crate::store::{Divergence, RouteFile, Store};
use landfall_journal::{Entry, JournalError, Log};
use landfall_types::{HEADER_BYTES, Lsn, WindowId, Windows};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Record headers that are read at once when a spool is opened.
const ENTRIES_AT_ONCE: u64 = 16 << 10;

/// Opens the spool that the file names. One that can't be opened is lost: the route begins anew at
/// the next hop's position, and whoever sends has to look at that (never a skip). What is left of
/// it is kept as divergence.
pub(super) fn open(
    store: &Store,
    mut file: RouteFile,
) -> Result<(RouteFile, Option<Arc<Log>>), RelayError> {
    let Some(spool) = &file.spool else { return Ok((file, None)) };
    let names = store.dir.list_subdirs();
    let names = names.map_err(|source| RelayError::Store { doing: "list the spools", source })?;
    let there = names.contains(&spool.dir);
    let opened = if there {
        let dir = store.dir.subdir(&spool.dir);
        let dir = dir.map_err(|source| RelayError::Store { doing: "open the spool", source })?;
        Log::open(dir)
    } else {
        Err(JournalError::NotALog)
    };
    match opened {
        Ok((log, report)) => {
            tracing::info!(replica = %file.replica, ?report, "spool opened");
            Ok((file, Some(Arc::new(log))))
        }
        Err(error) if error.class() == landfall_types::Class::Transient => {
            Err(RelayError::Spool(error))
        }
        Err(error) => {
            tracing::error!(replica = %file.replica, %error, "the spool is lost");
            if there && !matches!(error, JournalError::NotALog) {
                let unknown = Lsn::ZERO;
                let (dir, epoch) = (spool.dir.clone(), file.floor);
                file.divergence.push(Divergence {
                    dir,
                    epoch,
                    delivered: unknown,
                    through: unknown,
                });
            }
            file.spool = None;
            store.save(&file)?;
            Ok((file, None))
        }
    }
}

/// The windows that are open at `through`, a position of the log at or after the file's own.
pub(super) fn windows_at(log: &Log, at: Lsn, open: &[WindowId], through: Lsn) -> Vec<WindowId> {
    let mut windows = Windows::from_open(open);
    for (lsn, control) in log.controls() {
        if lsn > at && lsn <= through {
            // A closing that fits no opening changes nothing; the target will judge it.
            let _ = windows.apply(&control);
        }
    }
    windows.open_ids()
}

/// Batches that the next hop does not have, oldest first.
#[derive(Debug, Default)]
pub(super) struct Undelivered {
    batches: VecDeque<Waiting>,
    bytes: u64,
    records: u64,
}

#[derive(Debug)]
struct Waiting {
    last: Lsn,
    bytes: u64,
    records: u64,
    since: Instant,
}

impl Undelivered {
    /// All that the log holds: after a start it is not known what of it was delivered.
    pub(super) fn of(log: &Log) -> Result<Self, JournalError> {
        let (base, tail) = (log.base().0, log.tail().lsn);
        let mut all = Self::default();
        let mut bytes = 0;
        let mut at = base;
        while at < tail {
            // Some at a time: their headers take memory.
            let to = tail.min(at.plus(ENTRIES_AT_ONCE));
            let entries = log.entries(at, to)?;
            let length = |entry: &Entry| HEADER_BYTES as u64 + entry.header.payload_len();
            bytes += entries.iter().map(length).sum::<u64>();
            at = to;
        }
        if base < tail {
            all.push(tail, bytes, tail.records_since(base));
        }
        Ok(all)
    }

    pub(super) fn push(&mut self, last: Lsn, bytes: u64, records: u64) {
        self.batches.push_back(Waiting { last, bytes, records, since: Instant::now() });
        self.bytes += bytes;
        self.records += records;
    }

    /// Forgets what was delivered; returns its bytes. A batch counts until all of it was.
    pub(super) fn delivered(&mut self, through: Lsn) -> u64 {
        let mut freed = 0;
        while let Some(first) = self.batches.front().filter(|first| first.last <= through) {
            freed += first.bytes;
            self.records -= first.records;
            self.batches.pop_front();
        }
        self.bytes -= freed;
        freed
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    /// Since the oldest of them came; zero when there is none.
    pub(super) fn age(&self) -> Duration {
        self.batches.front().map_or(Duration::ZERO, |first| first.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_until_all_of_it_is_delivered() {
        let mut undelivered = Undelivered::default();
        undelivered.push(Lsn::new(3), 300, 3);
        undelivered.push(Lsn::new(5), 200, 2);
        assert_eq!(undelivered.delivered(Lsn::new(2)), 0);
        assert_eq!(undelivered.delivered(Lsn::new(4)), 300);
        assert_eq!((undelivered.bytes(), undelivered.records()), (200, 2));
        assert_eq!(undelivered.delivered(Lsn::new(9)), 200);
        assert_eq!((undelivered.bytes(), undelivered.age()), (0, Duration::ZERO));
    }
}
