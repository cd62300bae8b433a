use crate::bugs::SeededBug;
use crate::log::backlog::Frame;
use crate::log::{Log, lock, poisons, workers};
use crate::{JournalError, Position, limits};
use landfall_blockdev::File;
use landfall_types::Lsn;
use std::sync::{Arc, PoisonError};

impl Log {
    /// Group commit: whoever finds no flush in progress flushes all that was appended; the others
    /// wait for it and look again. One flush at a time, so that positions become durable in the
    /// order of LSNs.
    pub(super) fn flush_through(&self, target: Lsn) -> Result<Position, JournalError> {
        let mut state = self.state();
        let mut overlapped = false;
        loop {
            state.check_poison()?;
            if state.durable.lsn >= target {
                return Ok(state.durable);
            }
            if !state.flushing {
                break;
            }
            if !overlapped && state.pending_bytes >= limits::OVERLAP_BYTES {
                // Much to write: it goes to the disk while the flush before it is under way, and
                // the flush after it has only to sync. Little waits, to share a frame with what
                // others append meanwhile.
                overlapped = true;
                state.complete_frame();
                let (frames, _) = state.waiting();
                let file = Arc::clone(&state.last().file);
                drop(state);
                self.write_now(&*file, &frames)?;
                state = self.state();
                continue;
            }
            state.waiters += 1;
            state = self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
        state.flushing = true;
        state.complete_frame();
        let file = Arc::clone(&state.last().file);
        drop(state);
        let result = self.write_pending(&*file).and_then(|written| {
            self.sync(&*file)?;
            Ok(written)
        });
        let mut state = self.state();
        state.flushing = false;
        match &result {
            Ok(written) => {
                state.durable = *written;
                state.syncs += 1;
            }
            // Before a waiter can begin its own flush: a sync that is tried again succeeds without
            // having written what the failed one lost.
            Err(error) => state.poisoned |= poisons(error),
        }
        // A wake-up is a system call even when nobody sleeps.
        let waiters = state.waiters > 0;
        drop(state);
        if waiters {
            self.flushed.notify_all();
        }
        let durable = result.map_err(|error| self.poison(error))?;
        self.tell_listeners();
        self.fill_ahead();
        Ok(durable)
    }

    /// Without room the frames wait again, and the flush says so.
    fn write_now(&self, file: &dyn File, frames: &[Arc<Frame>]) -> Result<(), JournalError> {
        match self.backlog.write(file, frames) {
            Ok(()) | Err(JournalError::Full { .. }) => Ok(()),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Lets complete frames be written when there are some, without making them durable: the disk
    /// works while the next ones are copied, their memory is free sooner, and the flush has less to
    /// do. Called while appending.
    pub(super) fn write_behind(&self) -> Result<(), JournalError> {
        if let Some(error) = self.backlog.take_failure()
            && poisons(&error)
        {
            return Err(self.poison(error));
        }
        let mut state = self.state();
        state.reap();
        if state.pending_bytes < limits::HAND_OVER_BYTES.min(self.segment_bytes / 4) {
            return Ok(());
        }
        let (frames, bytes) = state.waiting();
        let file = Arc::clone(&state.last().file);
        let pending_bytes = state.pending_bytes;
        drop(state);
        if frames.is_empty() {
            return Ok(());
        }
        if pending_bytes < limits::WRITE_BEHIND_BYTES.min(self.segment_bytes / 4) {
            if bytes >= limits::HAND_OVER_BYTES && self.dir.takes_background_work() {
                self.hand_over(file, frames);
            }
            return Ok(());
        }
        // So much that the disk can't follow: this thread writes too, instead of filling memory.
        self.write_now(&*file, &frames)?;
        drop(frames);
        self.state().reap();
        Ok(())
    }

    /// To a thread of the pool. Where there is none the frames go on waiting for the flush.
    fn hand_over(&self, file: Arc<dyn File>, frames: Vec<Arc<Frame>>) {
        let backlog = Arc::clone(&self.backlog);
        workers::submit(move || backlog.write_as_helper(&*file, frames));
    }

    /// Writes the frames that are complete now, and returns the position after all that is written.
    /// Only the thread that has set `flushing` calls this. Without room nothing is lost: the frames
    /// stay in memory, and are written again, the same bytes to the same place, by the next one.
    pub(super) fn write_pending(&self, file: &dyn File) -> Result<Position, JournalError> {
        let frames: Vec<Arc<Frame>> = self.state().pending.iter().cloned().collect();
        loop {
            self.backlog.write(file, &frames)?;
            self.backlog.wait(&frames);
            match self.backlog.take_failure() {
                Some(error) if poisons(&error) => return Err(error),
                // Whoever had claimed frames found no room for them: they wait again.
                _ if frames.iter().any(|frame| frame.waits()) => {}
                _ => break,
            }
        }
        drop(frames);
        let mut state = self.state();
        state.reap();
        Ok(state.written)
    }

    /// What threads of the pool do at a moment and in an order that a test can't choose: every
    /// other complete frame is written, the newest first, and nothing is synced.
    ///
    /// # Errors
    /// As [`Log::append`].
    #[cfg(any(test, feature = "testing"))]
    pub fn write_every_other_frame(&self) -> Result<(), JournalError> {
        let mut state = self.state();
        state.check_poison()?;
        state.complete_frame();
        let frames: Vec<Arc<Frame>> = state.pending.iter().cloned().collect();
        let file = Arc::clone(&state.last().file);
        drop(state);
        for frame in frames.iter().rev().step_by(2) {
            self.write_now(&*file, std::slice::from_ref(frame))?;
        }
        Ok(())
    }

    /// Any error of a sync poisons, lack of room as well: what had been written may be gone.
    fn sync(&self, file: &dyn File) -> Result<(), JournalError> {
        if self.bugs.has(SeededBug::AckBeforeFlush) {
            return Ok(());
        }
        file.sync_data().map_err(|source| JournalError::Device { doing: "sync the log", source })
    }
}

impl Drop for Log {
    /// Nothing of this log is under way any more when its directory is given up.
    fn drop(&mut self) {
        self.backlog.close();
        self.ahead.close();
        // Spares that were filled in the end are found again by the next opening.
        drop(lock(&self.listeners).drain(..));
    }
}
