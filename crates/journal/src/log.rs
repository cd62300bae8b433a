use crate::{Entry, JournalError, LogBatch, LogConfig, LogStat, Position, RecoveryReport, Stamp};
use bytes::Bytes;
use landfall_blockdev::Dir;
use landfall_types::{Chain, Control, LogId, Lsn, Record, ReplicaId};
use std::sync::Arc;

/// An open log: the only writer of its directory. All methods may be called from any thread; those that do I/O block.
#[derive(Debug)]
pub struct Log {
    dir: Arc<dyn Dir>,
}

impl Log {
    /// Makes a new log in an empty directory (or one where making a log was cut off), durable when this returns.
    ///
    /// # Errors
    /// [`JournalError::Exists`], [`JournalError::SegmentBytes`], [`JournalError::Full`], storage errors.
    pub fn create(dir: Arc<dyn Dir>, config: LogConfig) -> Result<Self, JournalError> {
        let _ = config;
        Ok(Self { dir })
    }

    /// Opens a log and recovers it: what was acknowledged is there, what was not may have been cut off.
    ///
    /// # Errors
    /// [`JournalError::NotALog`], [`JournalError::Corrupt`] (never repaired by guessing), storage errors.
    pub fn open(dir: Arc<dyn Dir>) -> Result<(Self, RecoveryReport), JournalError> {
        todo!("{dir:?}")
    }

    /// Which log.
    #[must_use]
    pub fn id(&self) -> LogId {
        todo!("{:?}", self.dir)
    }
    /// Whose log.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        todo!()
    }

    /// Appends records with LSNs from `tail + 1` on, without gaps. Not durable before [`Log::flush`].
    /// All or nothing: after an error none of them is in the log. An empty slice is no error.
    ///
    /// # Errors
    /// [`JournalError::NotNext`], [`JournalError::Record`], [`JournalError::Fenced`], [`JournalError::TooLong`],
    /// [`JournalError::Full`] (try again when there is room), [`JournalError::Poisoned`], storage errors.
    pub fn append(&self, stamp: Stamp, records: &[Record]) -> Result<(), JournalError> {
        let _ = (stamp, records);
        todo!()
    }

    /// Appends what `build` makes of the tail, with nothing appended in between: for producers whose records get their
    /// LSN here (a branch's writes, catch-up; trap T-2). `build` may read this log, but not append to it.
    /// Returns the position after the append and whatever `build` returned beside the records.
    ///
    /// # Errors
    /// As [`Log::append`], or what `build` returns.
    pub fn append_with<T, E: From<JournalError>>(
        &self,
        build: impl FnOnce(Position) -> Result<(Stamp, Vec<Record>, T), E>,
    ) -> Result<(Position, T), E> {
        let _ = build;
        todo!()
    }

    /// Makes everything durable that was appended before this call, and returns the durable position.
    /// Concurrent callers share one flush.
    ///
    /// # Errors
    /// [`JournalError::Full`] (nothing is lost; flush again when there is room), [`JournalError::Poisoned`], storage errors
    /// (which poison the log).
    pub fn flush(&self) -> Result<Position, JournalError> {
        todo!()
    }

    /// Returns when `lsn` is durable; takes part in the group flush if it has to.
    ///
    /// # Errors
    /// As [`Log::flush`]; [`JournalError::Beyond`] for a record that was never appended.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<Position, JournalError> {
        let _ = lsn;
        todo!()
    }

    /// Calls `listener` after each advance of the durable position, from the flushing thread: it must not block and
    /// must not call this log's writing methods. It stays for the life of the log.
    pub fn on_durable(&self, listener: Box<dyn Fn(Position) + Send + Sync>) {
        drop(listener);
        todo!()
    }

    /// The last record, durable or not.
    #[must_use]
    pub fn tail(&self) -> Position {
        todo!()
    }
    /// The last durable record.
    #[must_use]
    pub fn durable(&self) -> Position {
        todo!()
    }
    /// The position before the oldest kept record, and the chain there.
    #[must_use]
    pub fn base(&self) -> (Lsn, Chain) {
        todo!()
    }

    /// The position at any kept LSN, from the base to the tail; `None` elsewhere.
    #[must_use]
    pub fn position_at(&self, lsn: Lsn) -> Option<Position> {
        let _ = lsn;
        todo!()
    }

    /// Headers and places of the records after `after` up to and including `through`, in order. No I/O.
    ///
    /// # Errors
    /// [`JournalError::Trimmed`] when `after` lies before the base, [`JournalError::Beyond`] when `through` lies
    /// behind the tail.
    pub fn entries(&self, after: Lsn, through: Lsn) -> Result<Vec<Entry>, JournalError> {
        let _ = (after, through);
        todo!()
    }

    /// A record's payload, checked against its CRC; empty for zeroes and discards.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] with the LSN, [`JournalError::Trimmed`], storage errors.
    pub fn read(&self, entry: &Entry) -> Result<Bytes, JournalError> {
        let _ = entry;
        todo!()
    }

    /// *Durable* records from `from` on, of one epoch and one incarnation, at least one and otherwise at most `bytes_max`
    /// bytes; `None` when there is none. What is not durable is never sent: a receiver must not be ahead of its
    /// sender after a power cut (trap T-1).
    ///
    /// # Errors
    /// [`JournalError::Trimmed`], [`JournalError::Corrupt`], storage errors.
    pub fn batch(&self, from: Lsn, bytes_max: usize) -> Result<Option<LogBatch>, JournalError> {
        let _ = (from, bytes_max);
        todo!()
    }

    /// All kept control records (markers, windows, geometry) in order, held in memory.
    #[must_use]
    pub fn controls(&self) -> Vec<(Lsn, Control)> {
        todo!()
    }

    /// Forgets whole segments that hold nothing behind `through`; the superblock says so durably before their space
    /// is used again. Returns the new base. The segment being written always stays.
    ///
    /// # Errors
    /// Storage errors, which poison the log.
    pub fn trim(&self, through: Lsn) -> Result<Lsn, JournalError> {
        let _ = through;
        todo!()
    }

    /// How much room it takes. No I/O.
    #[must_use]
    pub fn stat(&self) -> LogStat {
        todo!()
    }

    /// Flushes, and notes durably where the log ends, so that a missing end is known as corruption from now on.
    /// Dropping a log without this is no error: recovery then decides by what it finds.
    ///
    /// # Errors
    /// As [`Log::flush`].
    pub fn close(&self) -> Result<Position, JournalError> {
        todo!()
    }
}
