use crate::bugs::Bugs;
use crate::cover::Cover;
use crate::log::ahead::Ahead;
use crate::log::backlog::Backlog;
use crate::log::state::State;
use crate::superblock_file::SuperblockFile;
use crate::{
    Entry, JournalError, LogBatch, LogConfig, LogStat, Position, RecoveryReport, SegmentStat, Stamp,
};
use bytes::Bytes;
use landfall_blockdev::{Claim, Dir};
use landfall_types::{Chain, Control, LogId, Lsn, Record, ReplicaId};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

mod ahead;
mod append;
pub(crate) mod backlog;
mod create;
mod cursor;
mod flush;
mod read;
mod roll;
pub(crate) mod sealed;
pub(crate) mod segment;
pub(crate) mod state;
mod trim;
mod workers;

/// What [`Log::on_durable`] takes.
type Listener = Box<dyn Fn(Position) + Send + Sync>;

/// An open log: the only writer of its directory, which it claims. All methods may be called from
/// any thread; those that do I/O block.
///
/// # Locks
/// In this order: `appending` (one append or roll at a time, held across I/O), `superblock` (held
/// across its I/O),
/// `state` (never held across I/O), `listeners`.
pub struct Log {
    dir: Arc<dyn Dir>,
    cover: Cover,
    id: LogId,
    replica: ReplicaId,
    sector_bytes: u32,
    segment_bytes: u64,
    bugs: Bugs,
    appending: Mutex<()>,
    superblock: Mutex<SuperblockFile>,
    state: Mutex<State>,
    /// Signaled when a flush ends.
    flushed: Condvar,
    listeners: Mutex<Vec<Listener>>,
    backlog: Arc<Backlog>,
    ahead: Arc<Ahead>,
    /// Nobody else writes in the directory. The last field: given up when all else has ended.
    _claim: Claim,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("id", &self.id)
            .field("tail", &self.tail())
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Makes a new log in an empty directory (or one where making a log was cut off), durable when
    /// this returns. Its content is sealed where the directory has a key
    /// ([`landfall_blockdev::KeyedDir`]).
    ///
    /// # Errors
    /// [`JournalError::Exists`], [`JournalError::SegmentBytes`], [`JournalError::Full`],
    /// [`JournalError::InUse`], storage errors.
    pub fn create(dir: Arc<dyn Dir>, config: LogConfig) -> Result<Self, JournalError> {
        create::create(dir, &config, Bugs::default())
    }

    /// Opens a log and recovers it: what was acknowledged is there, what was not may have been cut
    /// off.
    ///
    /// # Errors
    /// [`JournalError::NotALog`], [`JournalError::Corrupt`] (never repaired by guessing),
    /// [`JournalError::KeyMissing`], [`JournalError::WrongKey`], [`JournalError::NotSealed`],
    /// [`JournalError::Version`], [`JournalError::InUse`], storage errors.
    pub fn open(dir: Arc<dyn Dir>) -> Result<(Self, RecoveryReport), JournalError> {
        create::open(dir, Bugs::default())
    }

    /// [`Log::create`] with a defect, to test the tests.
    ///
    /// # Errors
    /// As [`Log::create`].
    #[cfg(any(test, feature = "testing"))]
    pub fn create_with_bug(
        dir: Arc<dyn Dir>,
        config: LogConfig,
        bug: Option<crate::SeededBug>,
    ) -> Result<Self, JournalError> {
        create::create(dir, &config, Bugs::seeded(bug))
    }

    /// [`Log::open`] with a defect, to test the tests.
    ///
    /// # Errors
    /// As [`Log::open`].
    #[cfg(any(test, feature = "testing"))]
    pub fn open_with_bug(
        dir: Arc<dyn Dir>,
        bug: Option<crate::SeededBug>,
    ) -> Result<(Self, RecoveryReport), JournalError> {
        create::open(dir, Bugs::seeded(bug))
    }

    /// Which log.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.id
    }
    /// Whose log.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Appends records with LSNs from `tail + 1` on, without gaps. Not durable before
    /// [`Log::flush`]. An empty slice is no error.
    ///
    /// All or nothing where the records fit into one segment; of more, a prefix may have been taken
    /// when it fails, and
    /// [`Log::tail`] says how much.
    ///
    /// # Errors
    /// [`JournalError::NotNext`], [`JournalError::Record`], [`JournalError::Control`],
    /// [`JournalError::Fenced`],
    /// [`JournalError::TooLong`], [`JournalError::Full`] (try again when there is room),
    /// [`JournalError::Poisoned`], storage errors.
    pub fn append(&self, stamp: Stamp, records: &[Record]) -> Result<(), JournalError> {
        let controls = append::check_records(records)?;
        let guard = lock(&self.appending);
        self.append_checked(&guard, &stamp, records, controls)
    }

    /// Appends what `build` makes of the tail, with nothing appended in between: for producers
    /// whose records get their LSN here (a branch's writes, catch-up; trap T-2). `build` may read
    /// this log, but not append to it or trim it. Returns the position after the append and
    /// whatever `build` returned beside the records.
    ///
    /// # Errors
    /// As [`Log::append`], or what `build` returns.
    pub fn append_with<T, E: From<JournalError>>(
        &self,
        build: impl FnOnce(Position) -> Result<(Stamp, Vec<Record>, T), E>,
    ) -> Result<(Position, T), E> {
        let guard = lock(&self.appending);
        let (stamp, records, extra) = build(self.tail())?;
        let controls = append::check_records(&records)?;
        self.append_checked(&guard, &stamp, &records, controls)?;
        Ok((self.tail(), extra))
    }

    /// Makes everything durable that was appended before this call, and returns the durable
    /// position. Concurrent callers share one flush.
    ///
    /// # Errors
    /// [`JournalError::Full`] (nothing is lost; flush again when there is room),
    /// [`JournalError::Poisoned`], storage errors (which poison the log).
    pub fn flush(&self) -> Result<Position, JournalError> {
        let target = self.state().tail().lsn;
        self.flush_through(target)
    }

    /// Returns when `lsn` is durable; takes part in the group flush if it has to.
    ///
    /// # Errors
    /// As [`Log::flush`]; [`JournalError::Beyond`] for a record that was never appended.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<Position, JournalError> {
        let tail = self.tail().lsn;
        if lsn > tail {
            return Err(JournalError::Beyond { lsn, tail });
        }
        self.flush_through(lsn)
    }

    /// Calls `listener` after each advance of the durable position, from the flushing thread and
    /// with positions that never go back: it must not block and must not call this log's writing
    /// methods. It stays for the life of the log.
    pub fn on_durable(&self, listener: Box<dyn Fn(Position) + Send + Sync>) {
        lock(&self.listeners).push(listener);
    }

    /// The last record, durable or not.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.state().tail()
    }
    /// The last durable record.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.state().durable
    }
    /// The position before the oldest kept record, and the chain there.
    #[must_use]
    pub fn base(&self) -> (Lsn, Chain) {
        let base = self.state().base();
        (base.lsn, base.chain)
    }

    /// The position at any kept LSN, from the base to the tail; `None` elsewhere. Reads the record
    /// table of a sealed segment where it was not used lately.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`], storage errors: what the position is remains unknown then.
    pub fn position_at(&self, lsn: Lsn) -> Result<Option<Position>, JournalError> {
        {
            let state = self.state();
            let ends = [state.base(), state.tail()];
            if let Some(position) = ends.into_iter().find(|position| position.lsn == lsn) {
                return Ok(Some(position));
            }
        }
        match self.with_table(lsn, |table, _| table.position_at(lsn)) {
            Err(JournalError::Trimmed { .. }) => Ok(None),
            found => Ok(found?.flatten()),
        }
    }

    /// Headers and places of the records after `after` up to and including `through`, in order.
    /// Reads the record tables of sealed segments; whoever wants many records asks for some
    /// thousands at a time.
    ///
    /// # Errors
    /// [`JournalError::Trimmed`] when `after` lies before the base, [`JournalError::Beyond`] when
    /// `through` lies behind the tail; [`JournalError::Corrupt`], storage errors.
    pub fn entries(&self, after: Lsn, through: Lsn) -> Result<Vec<Entry>, JournalError> {
        self.entries_between(after, through)
    }

    /// A record's payload, checked against its CRC; empty for zeroes and discards.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] with the LSN, [`JournalError::Trimmed`], storage errors.
    pub fn read(&self, entry: &Entry) -> Result<Bytes, JournalError> {
        self.read_payload(entry)
    }

    /// *Durable* records from `from` on, of one epoch and one incarnation: whole frames, at least
    /// one (of at most 512 KiB payload and 2000 records, less where `from` lies within), further
    /// ones while all stay below `bytes_max`.
    /// `None` when there is none. What is not durable is never sent: a receiver must not be ahead
    /// of its sender after a power cut (trap T-1).
    ///
    /// # Errors
    /// [`JournalError::Trimmed`], [`JournalError::Corrupt`], storage errors.
    pub fn batch(&self, from: Lsn, bytes_max: usize) -> Result<Option<LogBatch>, JournalError> {
        self.durable_batch(from, bytes_max)
    }

    /// All kept control records (markers, windows, geometry) in order, held in memory.
    #[must_use]
    pub fn controls(&self) -> Vec<(Lsn, Control)> {
        let state = self.state();
        let sealed = state.sealed.iter().flat_map(|segment| segment.controls.iter());
        sealed.chain(state.last.table.controls()).cloned().collect()
    }

    /// Forgets whole segments that hold nothing behind `through`; the superblock says so durably
    /// before their space is used again. Returns the new base. The segment being written always
    /// stays.
    ///
    /// # Errors
    /// Storage errors, which poison the log.
    pub fn trim(&self, through: Lsn) -> Result<Lsn, JournalError> {
        self.trim_segments(through)
    }

    /// How much room it takes. No I/O.
    #[must_use]
    pub fn stat(&self) -> LogStat {
        let state = self.state();
        let sealed = state.sealed.iter().map(|segment| SegmentStat {
            sequence: segment.header.sequence,
            base: segment.base().lsn,
            last: segment.tail.lsn,
            used_bytes: segment.end,
        });
        let last = SegmentStat {
            sequence: state.last.header.sequence,
            base: state.last.table.base().lsn,
            last: state.last.table.tail_lsn(),
            used_bytes: state.last.end,
        };
        let segments: Vec<SegmentStat> = sealed.chain([last]).collect();
        let spare_files = state.spares.len() + self.ahead.ready();
        let files = (segments.len() + spare_files) as u64;
        LogStat {
            log: self.id,
            base: state.base().lsn,
            tail: state.tail().lsn,
            durable: state.durable.lsn,
            segments,
            spare_files,
            file_bytes: files * self.segment_bytes,
        }
    }

    /// How many segments are kept, the one being written included.
    #[must_use]
    pub fn segments_kept(&self) -> usize {
        self.state().sealed.len() + 1
    }

    /// Flushes, and notes durably where the log ends, so that a missing end is known as corruption
    /// from now on. Dropping a log without this is no error: recovery then decides by what it
    /// finds.
    ///
    /// # Errors
    /// As [`Log::flush`].
    pub fn close(&self) -> Result<Position, JournalError> {
        let durable = self.flush()?;
        let mut superblock = lock(&self.superblock);
        if superblock.current().floor < durable.lsn {
            self.update_superblock(&mut superblock, |next| next.floor = durable.lsn)?;
        }
        Ok(durable)
    }

    /// True after a failed write or sync: only another opening, which recovers, goes on from there.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.state().poisoned
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// An error that leaves it unknown what the medium holds ends this log object: [`Log::open`]
    /// finds out.
    fn poison(&self, error: JournalError) -> JournalError {
        if poisons(&error) {
            self.state().poisoned = true;
            self.flushed.notify_all();
        }
        error
    }

    fn update_superblock(
        &self,
        superblock: &mut SuperblockFile,
        change: impl FnOnce(&mut crate::format::superblock::Superblock),
    ) -> Result<(), JournalError> {
        self.state().check_poison()?;
        superblock.update(change, self.bugs).map_err(|error| self.poison(error))
    }
}

/// Lack of room leaves the log as it was; after any other error it is unknown what the medium
/// holds.
const fn poisons(error: &JournalError) -> bool {
    !matches!(error, JournalError::Full { .. })
}

/// A panic elsewhere leaves nothing half-done behind these locks: every change is made in one go
/// after its I/O.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
