use crate::bugs::SeededBug;
use crate::format::segment::SegmentHeader;
use crate::log::Log;
use crate::log::segment::{Sealing, Segment, SegmentState, write_header, write_index};
use crate::table::Table;
use crate::{JournalError, Position};
use landfall_blockdev::File;
use std::sync::{Arc, MutexGuard};

/// Random bits for one use of a segment file.
pub(super) fn new_salt() -> Result<u64, JournalError> {
    getrandom::u64().map_err(|_| JournalError::NoRandomness)
}

/// A file for a segment.
struct Slot {
    file: Arc<dyn File>,
    name: String,
    /// Its name is not durable yet.
    is_new: bool,
}

impl Log {
    /// Begins a new segment. The guard proves that nobody appends meanwhile.
    ///
    /// Order: all frames of the old segment durable, its index, the new segment's header. The
    /// header's existence proves the old segment complete; were it first, a power cut could leave a
    /// segment whose predecessor has a hole.
    pub(super) fn roll(&self, _appending: &MutexGuard<'_, ()>) -> Result<(), JournalError> {
        if self.bugs.has(SeededBug::RollBeforeFlush) {
            return self.roll_before_flush();
        }
        let base = self.flush()?;
        let was = self.state().last().state;
        if was == SegmentState::Open {
            self.seal_last()?;
        }
        let cut =
            (was == SegmentState::Torn).then(|| Sealing::of(self.state().last(), &self.cover));
        let cut = cut.transpose()?;
        self.begin_segment(base)?;
        if let Some(cut) = cut {
            // Only now: the index lies where the torn tail was, and until the new header is durable
            // recovery needs to find the same tail again.
            self.seal_cut(&cut);
        }
        Ok(())
    }

    fn seal_last(&self) -> Result<(), JournalError> {
        let sealing = Sealing::of(self.state().last(), &self.cover)?;
        write_index(&sealing, self.segment_bytes).map_err(|error| self.poison(error))?;
        self.state().last_mut().state = SegmentState::Sealed;
        Ok(())
    }

    /// An index for a segment that was cut: saves reading its frames when it is needed, and nothing
    /// depends on it. A trim may have taken the segment meanwhile: its file is not used again
    /// before the next roll.
    fn seal_cut(&self, sealing: &Sealing) {
        if let Err(error) = write_index(sealing, self.segment_bytes) {
            tracing::warn!(%error, "no index for a segment that was cut");
        }
    }

    fn begin_segment(&self, base: Position) -> Result<(), JournalError> {
        let Slot { file, name, is_new } = self.take_slot().map_err(|error| self.poison(error))?;
        let sequence = self.state().last().header.sequence + 1;
        let header = SegmentHeader {
            sector_bytes: self.sector_bytes,
            log: self.id,
            sequence,
            salt: new_salt()?,
            base,
        };
        if let Err(error) = write_header(&*file, &header) {
            // Without room the file holds nothing yet; anything else leaves that unknown, and
            // poisons.
            return Err(self.poison(self.give_slot_up(&name, error)));
        }
        if is_new && !self.bugs.has(SeededBug::NameNotSynced) {
            let synced = self.dir.sync().map_err(JournalError::device("sync the directory"));
            synced.map_err(|error| self.poison(error))?;
        }
        let first = u64::from(self.sector_bytes);
        let table = Table::new(base);
        let segment = Segment::new(header, name, file, table, first, SegmentState::Open);
        self.state().push_segment(segment);
        Ok(())
    }

    /// A file for the next segment with all its space reserved: one that was emptied by a trim, or
    /// a new one.
    fn take_slot(&self) -> Result<Slot, JournalError> {
        const DOING: &str = "make room for a segment";
        let spare = self.state().spares.pop();
        let (file, name, is_new) = match spare.or_else(|| self.ahead.take()) {
            Some(name) => (self.dir.open(&name).map_err(JournalError::device(DOING))?, name, false),
            None => {
                let name = self.next_name();
                (self.dir.create(&name).map_err(JournalError::device(DOING))?, name, true)
            }
        };
        let reserved = !is_new && file.len().is_ok_and(|length| length == self.segment_bytes);
        if !reserved && let Err(error) = file.allocate(0, self.segment_bytes) {
            // Its name may not be durable: as a spare it would be taken without syncing that.
            return Err(self.give_slot_up(&name, JournalError::device(DOING)(error)));
        }
        Ok(Slot { file, name, is_new })
    }

    /// Removes a file that could not become a segment, durably: were its header on the disk in
    /// spite of the error, and its name back after a power cut, two files would claim one sequence
    /// number. Returns `error`, or the worse one that this met.
    fn give_slot_up(&self, name: &str, error: JournalError) -> JournalError {
        const DOING: &str = "remove an unused segment";
        match self.dir.remove(name).and_then(|()| self.dir.sync()) {
            Ok(()) => error,
            Err(source) => JournalError::Device { doing: DOING, source },
        }
    }

    /// [`SeededBug::RollBeforeFlush`].
    fn roll_before_flush(&self) -> Result<(), JournalError> {
        let mut state = self.state();
        state.complete_frame();
        let base = state.tail();
        let file = Arc::clone(&state.last().file);
        drop(state);
        self.write_pending(&*file)?;
        self.state().durable = base;
        self.begin_segment(base)
    }
}
