use super::IndexPool;
use super::log_index::{LogIndex, State};
use super::maintain::{NEW_PREFIX, RUN_PREFIX};
use super::pool::Floor;
use super::run_file::RunFile;
use super::tail::Tail;
use crate::error::StorageError;
use crate::medium::Slot;
use crate::sync::write;
use landfall_blockdev::Dir;
use landfall_journal::Log;
use landfall_types::Lsn;
use std::sync::Arc;

impl LogIndex {
    /// Takes up what is on disk. What is missing of it is made again from the log: after an unclean
    /// end that is the last few thousand records, else nothing.
    pub(crate) fn open(
        log: Arc<Log>,
        slot: Slot,
        parent: Arc<dyn Dir>,
        pool: Arc<IndexPool>,
        floor: Arc<Floor>,
    ) -> Result<Arc<Self>, StorageError> {
        let start = floor.get().max(log.base().0);
        let end = log.tail().lsn.max(start);
        let state = State { runs: vec![], covered: start, frozen: None, tail: Tail::new(start) };
        let index = Self::assemble(log, slot, parent, pool, floor, state);
        let (chosen, unused) = choose(index.files(end)?, start);
        index.remove(&unused)?;
        let mut runs: Vec<Arc<RunFile>> = Vec::new();
        let mut covered = start;
        for run in chosen {
            let identity = run.footer().identity;
            if identity.after > covered {
                runs.extend(index.runs_from_log(covered, identity.after)?);
            }
            covered = identity.through;
            runs.push(run);
        }
        // More than a tail should hold: without files, say after they were removed by hand.
        let unit = index.pool.options().tail_records as u64;
        if end.records_since(covered) > 2 * unit {
            let to = Lsn::new(end.get() - unit);
            runs.extend(index.runs_from_log(covered, to)?);
            covered = to;
        }
        let entries = index.log.entries(covered, end)?;
        {
            let mut state = write(&index.state);
            state.runs = runs;
            state.covered = covered;
            state.tail = Tail::new(covered);
        }
        index.follow(&entries);
        Ok(index)
    }

    /// The intact run files of this log that end at or before `end`; removes the others.
    fn files(&self, end: Lsn) -> Result<Vec<Arc<RunFile>>, StorageError> {
        let device = || StorageError::device("look for the index");
        let name = Self::dir_name(self.log.id());
        if !self.parent.list_subdirs().map_err(device())?.contains(&name) {
            return Ok(vec![]);
        }
        let dir = self.parent.subdir(&name).map_err(device())?;
        let mut found = Vec::new();
        for name in dir.list().map_err(device())? {
            if !name.starts_with(RUN_PREFIX) {
                if name.starts_with(NEW_PREFIX) {
                    dir.remove(&name).map_err(device())?;
                }
                continue;
            }
            match RunFile::open(&*dir, &name, &self.pool) {
                // One that names records behind the log's end is of another history.
                Ok(run)
                    if run.footer().identity.log == self.log.id()
                        && run.footer().identity.through <= end =>
                {
                    found.push(Arc::new(run));
                }
                Ok(_) => dir.remove(&name).map_err(device())?,
                Err(error) => {
                    tracing::warn!(log = %self.log.id(), name, %error, "a part of the index");
                    dir.remove(&name).map_err(device())?;
                }
            }
        }
        Ok(found)
    }
}

/// Runs that follow one another from `start` on, the longest first; and the rest, which says
/// nothing that they don't: what a merge has replaced, or what lies behind a gap that begins within
/// it.
fn choose(mut found: Vec<Arc<RunFile>>, start: Lsn) -> (Vec<Arc<RunFile>>, Vec<Arc<RunFile>>) {
    found.sort_by_key(|run| {
        let identity = run.footer().identity;
        (identity.after.max(start), std::cmp::Reverse(identity.through))
    });
    let mut covered = start;
    found.into_iter().partition(|run| {
        let identity = run.footer().identity;
        let chosen = identity.after.max(start) >= covered && identity.through > covered;
        if chosen {
            covered = identity.through;
        }
        chosen
    })
}
