//! Segment files that are written before they are needed.
//!
//! A file system reserves space without writing it, and then each first write into it changes the
//! file system's own records, which every sync has to make durable as well: two flushes where one
//! would do. So where syncs are small, the next segment's file is filled with zeroes beforehand, at
//! leisure and by a thread of its own. Where they are large it would cost more than it gains.

use crate::JournalError;
use crate::log::segment::slot_name;
use crate::log::{Log, lock};
use landfall_blockdev::{AlignedBuf, Dir};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much is written at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// Syncs of a segment before anything is concluded from their size.
const SYNCS_MIN: u64 = 64;
/// Mean bytes of a sync from which on writing twice costs more than the syncs gain.
const SYNC_BYTES_MAX: u64 = 384 << 10;

/// How much of a disk's time the filling may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// A half: after each piece it rests for as long as the piece took.
    Half,
    /// All.
    Full,
}

/// What the log and its filling thread share.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    state: Mutex<AheadState>,
    stop: Condvar,
}

#[derive(Debug, Default)]
struct AheadState {
    stopped: bool,
    /// Names of filled files, durable as they are.
    ready: Vec<String>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// A filled file.
    pub(crate) fn take(&self) -> Option<String> {
        lock(&self.state).ready.pop()
    }

    /// How many filled files there are.
    pub(crate) fn ready(&self) -> usize {
        lock(&self.state).ready.len()
    }

    /// Returns when the thread has ended: were it to go on, it would write zeroes over what the
    /// next opening takes for a spare file.
    pub(crate) fn close(&self) {
        let thread = {
            let mut state = lock(&self.state);
            state.stopped = true;
            state.thread.take()
        };
        self.stop.notify_all();
        if let Some(thread) = thread {
            // A panic there has left a file that the next opening finds empty.
            let _ = thread.join();
        }
    }

    /// Rests; false when it is to stop.
    fn rest(&self, time: Duration) -> bool {
        let state = lock(&self.state);
        if state.stopped || time.is_zero() {
            return !state.stopped;
        }
        let rested = self.stop.wait_timeout_while(state, time, |state| !state.stopped);
        !rested.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}

impl Log {
    /// Makes a segment file ready whose space is written, unless there is one. True when it made
    /// one. A log on a real disk does this by itself where it pays; this is for tests, and for
    /// whoever knows better.
    ///
    /// # Errors
    /// [`JournalError::Full`], storage errors; the log goes on without.
    pub fn prepare_segment(&self) -> Result<bool, JournalError> {
        if !self.state().spares.is_empty() || self.ahead.ready() > 0 {
            return Ok(false);
        }
        let name = self.next_name();
        let filled = fill(&*self.dir, &name, self.segment_bytes, &self.ahead, Pace::Full)?;
        if filled {
            lock(&self.ahead.state).ready.push(name);
        }
        Ok(filled)
    }

    pub(super) fn next_name(&self) -> String {
        let mut state = self.state();
        let name = slot_name(state.next_slot);
        state.next_slot += 1;
        name
    }

    /// Called after each sync: begins to fill the next segment's file when that will be needed and
    /// will pay.
    pub(super) fn fill_ahead(&self) {
        let due = {
            let state = self.state();
            let (syncs, written) = (state.syncs, state.last().end);
            syncs >= SYNCS_MIN
                && written / syncs <= SYNC_BYTES_MAX
                && written >= self.segment_bytes / 4
                && state.spares.is_empty()
                && !state.poisoned
        };
        if !due || !self.dir.takes_background_work() {
            return;
        }
        let mut state = lock(&self.ahead.state);
        let busy = state.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if busy || state.stopped || !state.ready.is_empty() {
            return;
        }
        let name = self.next_name();
        let (dir, ahead) = (Arc::clone(&self.dir), Arc::clone(&self.ahead));
        let bytes = self.segment_bytes;
        let spawned =
            std::thread::Builder::new().name("log-ahead".into()).spawn(move || {
                match fill(&*dir, &name, bytes, &ahead, Pace::Half) {
                    Ok(true) => lock(&ahead.state).ready.push(name),
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "no segment file could be filled ahead"),
                }
            });
        // Without a thread the next segment is merely slower.
        state.thread = spawned.ok();
    }
}

/// Makes a file and fills it; false when it was told to stop. Its name is durable in the end, as
/// that of every spare file: taking one needs no sync of the directory.
fn fill(
    dir: &dyn Dir,
    name: &str,
    length: u64,
    ahead: &Ahead,
    pace: Pace,
) -> Result<bool, JournalError> {
    const DOING: &str = "fill a segment file ahead";
    let file = dir.create(name).map_err(JournalError::device(DOING))?;
    let filled = (|| {
        // All the space first: what fails for lack of room should not have written half of it.
        file.allocate(0, length)?;
        let zeroes = AlignedBuf::zeroed(usize::try_from(CHUNK_BYTES.min(length)).unwrap_or(0));
        let mut at = 0;
        while at < length {
            let began = Instant::now();
            let count = usize::try_from(length - at).unwrap_or(usize::MAX).min(zeroes.len());
            file.write_at(at, &zeroes[..count])?;
            at += count as u64;
            let rest = if pace == Pace::Half { began.elapsed() } else { Duration::ZERO };
            if !ahead.rest(rest) {
                return Ok(false);
            }
        }
        file.sync_data()?;
        dir.sync()?;
        Ok(true)
    })();
    if !matches!(filled, Ok(true)) {
        // A removal that a power cut undoes leaves a spare file with nothing in it.
        let _ = dir.remove(name);
    }
    filled.map_err(JournalError::device(DOING))
}
