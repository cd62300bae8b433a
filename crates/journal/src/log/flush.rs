use crate::bugs::SeededBug;
use crate::log::Log;
use crate::log::state::Frame;
use crate::{JournalError, Position};
use landfall_blockdev::File;
use landfall_types::Lsn;
use std::sync::{Arc, PoisonError};

impl Log {
    /// Group commit: whoever finds no flush in progress flushes all that was appended; the others wait for it and look
    /// again. One flush at a time, so that positions become durable in the order of LSNs.
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
        let frames: Vec<Arc<Frame>> = state.pending.iter().cloned().collect();
        let file = Arc::clone(&state.last().file);
        drop(state);
        let result = self.write_frames(&*file, &frames);
        let count = frames.len();
        drop(frames);
        let mut state = self.state();
        state.flushing = false;
        if result.is_ok() {
            state.frames_durable(count);
        }
        let durable = state.durable;
        drop(state);
        self.flushed.notify_all();
        match result {
            Ok(()) => {
                self.tell_listeners();
                Ok(durable)
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Writes and syncs. Without room nothing is lost: the frames stay in memory, and are written again, the same bytes to
    /// the same place, by the next flush.
    fn write_frames(&self, file: &dyn File, frames: &[Arc<Frame>]) -> Result<(), JournalError> {
        // Frames lie one behind the other.
        if let Some(first) = frames.first() {
            let parts: Vec<&[u8]> = frames.iter().map(|frame| &*frame.bytes).collect();
            file.write_all_at(first.offset, &parts)
                .map_err(JournalError::device("write to the log"))?;
        }
        if self.bugs.has(SeededBug::AckBeforeFlush) {
            return Ok(());
        }
        file.sync_data().map_err(JournalError::device("sync the log"))
    }
}
