use crate::bugs::SeededBug;
use crate::log::state::Frame;
use crate::log::{Log, poisons};
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
        loop {
            state.check_poison()?;
            if state.durable.lsn >= target {
                return Ok(state.durable);
            }
            if !state.flushing {
                break;
            }
            state = self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
            Ok(written) => state.durable = *written,
            // Before a waiter can begin its own flush: a sync that is tried again succeeds without
            // having written what the failed one lost.
            Err(error) => state.poisoned |= poisons(error),
        }
        drop(state);
        self.flushed.notify_all();
        let durable = result.map_err(|error| self.poison(error))?;
        self.tell_listeners();
        Ok(durable)
    }

    /// Writes complete frames when there are many, without making them durable: their memory is
    /// free for the next ones, and the flush has less to do. Called while appending.
    pub(super) fn write_behind(&self) -> Result<(), JournalError> {
        let limit = limits::WRITE_BEHIND_BYTES.min(self.segment_bytes / 4);
        let mut state = self.state();
        if state.flushing || state.pending_bytes < limit || state.pending.is_empty() {
            return Ok(());
        }
        state.flushing = true;
        let file = Arc::clone(&state.last().file);
        drop(state);
        let result = self.write_pending(&*file);
        let mut state = self.state();
        state.flushing = false;
        state.poisoned |= result.as_ref().is_err_and(poisons);
        drop(state);
        self.flushed.notify_all();
        match result {
            // The records are in the log; that there is no room is for the flush to say.
            Ok(_) | Err(JournalError::Full { .. }) => Ok(()),
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Writes the frames that are complete now, and returns the position after all that is written.
    /// Only the thread that has set `flushing` calls this. Without room nothing is lost: the frames
    /// stay in memory, and are written again, the same bytes to the same place, by the next one.
    pub(super) fn write_pending(&self, file: &dyn File) -> Result<Position, JournalError> {
        let frames: Vec<Arc<Frame>> = self.state().pending.iter().cloned().collect();
        // Frames lie one behind the other.
        if let Some(first) = frames.first() {
            let parts: Vec<&[u8]> = frames.iter().map(|frame| &*frame.bytes).collect();
            file.write_all_at(first.offset, &parts)
                .map_err(JournalError::device("write to the log"))?;
        }
        let count = frames.len();
        drop(frames);
        let mut state = self.state();
        state.frames_written(count);
        Ok(state.written)
    }

    /// Any error of a sync poisons, lack of room as well: what had been written may be gone.
    fn sync(&self, file: &dyn File) -> Result<(), JournalError> {
        if self.bugs.has(SeededBug::AckBeforeFlush) {
            return Ok(());
        }
        file.sync_data().map_err(|source| JournalError::Device { doing: "sync the log", source })
    }
}
