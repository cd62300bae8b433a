use crate::bugs::SeededBug;
use crate::log::sealed::Sealed;
use crate::log::{Log, lock};
use crate::{JournalError, Position, limits};
use landfall_types::Lsn;

impl Log {
    /// Order: superblock durable in both copies, then the segments are forgotten, then their files
    /// are free. Were a file used again first, a power cut could leave a superblock that still
    /// counts on what it held.
    pub(super) fn trim_segments(&self, through: Lsn) -> Result<Lsn, JournalError> {
        let mut superblock = lock(&self.superblock);
        let (count, first, base) = {
            let state = self.state();
            state.check_poison()?;
            // A segment goes when the next one begins at or before `through`; the last one has no
            // next.
            let count = state.sealed.iter().take_while(|old| old.tail.lsn <= through).count();
            match state.sealed.get(count) {
                Some(first) => (count, first.header.sequence, *first.base()),
                None => (count, state.last.header.sequence, *state.last.table.base()),
            }
        };
        if count == 0 {
            return Ok(base.lsn);
        }
        if self.bugs.has(SeededBug::ReuseBeforeSuperblock) {
            let gone = self.forget(count);
            self.free_files(gone)?;
            return Ok(base.lsn);
        }
        self.update_superblock(&mut superblock, |next| {
            let Position { lsn, chain, .. } = base;
            (next.first_segment, next.base, next.base_chain) = (first, lsn, chain);
        })?;
        let gone = self.forget(count);
        self.free_files(gone)?;
        Ok(base.lsn)
    }

    fn forget(&self, count: usize) -> Vec<Sealed> {
        let mut state = self.state();
        let gone: Vec<Sealed> = state.sealed.drain(..count).collect();
        let first = state.sealed.front().map_or(state.last.header.sequence, |s| s.header.sequence);
        state.tables.retain(|sequence| sequence >= first);
        gone
    }

    /// Keeps some files to be written again and removes the rest. A removal that a power cut undoes
    /// leaves a spare file.
    fn free_files(&self, gone: Vec<Sealed>) -> Result<(), JournalError> {
        let mut removed = false;
        for segment in gone {
            let mut state = self.state();
            if state.spares.len() < limits::SPARE_FILES_MAX {
                state.spares.push(segment.name);
                continue;
            }
            drop(state);
            self.dir
                .remove(&segment.name)
                .map_err(|error| self.poison(JournalError::device("remove a segment")(error)))?;
            removed = true;
        }
        if removed {
            let synced = self.dir.sync().map_err(JournalError::device("sync the directory"));
            synced.map_err(|error| self.poison(error))?;
        }
        Ok(())
    }
}
