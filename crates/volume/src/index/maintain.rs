//! Writing runs, merging them, making damaged ones again.

use super::cover::PageCover;
use super::log_index::{LogIndex, item};
use super::run_file::{RunFile, Source};
use super::tail::{Tail, written};
use crate::error::StorageError;
use crate::sync::{lock, read, write};
use landfall_blockdev::{Dir, File};
use landfall_index::{MemoryRun, Merge, PAGE_BYTES, RunBuilder, RunIdentity, plan};
use landfall_types::Lsn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Says when to stop: the process ends, and the work can be done again.
pub(crate) type Stop<'a> = &'a dyn Fn() -> bool;

/// Names of runs begin with this; those that are not complete with the other.
pub(super) const RUN_PREFIX: &str = "run-";
pub(super) const NEW_PREFIX: &str = "new-";

/// Bytes of pages that are written at once.
const WRITE_BYTES: usize = 256 << 10;
/// Pieces between two looks whether to stop.
const STOP_PIECES: u32 = 4096;

impl LogIndex {
    fn unit(&self) -> u32 {
        u32::try_from(self.pool.options().tail_records).unwrap_or(u32::MAX)
    }

    /// The directory of its files, made when the first one is.
    fn dir(&self) -> Result<Arc<dyn Dir>, StorageError> {
        let dir = self.parent.subdir(&Self::dir_name(self.log.id()));
        dir.map_err(StorageError::device("make the index's directory"))
    }

    /// Makes a run of the records in memory when there are enough.
    pub(super) fn write_tail(&self) -> Result<(), StorageError> {
        let _writing = lock(&self.writing);
        loop {
            let frozen = {
                let mut state = write(&self.state);
                let waiting = state.tail.items.len();
                if state.frozen.is_none() && waiting >= self.pool.options().tail_records {
                    let next = Tail::new(state.tail.through);
                    state.frozen = Some(Arc::new(std::mem::replace(&mut state.tail, next)));
                }
                state.frozen.clone()
            };
            let Some(frozen) = frozen else { return Ok(()) };
            // Only then: after a power cut the log could end earlier, and other records would get
            // the positions that the run names.
            self.log.wait_durable(frozen.through)?;
            let source = Source::Memory(Arc::new(MemoryRun::new(&frozen.items)));
            let span = (frozen.after, frozen.through);
            let run = self.write_run([source], span, frozen.written_bytes, &|| false)?;
            let Some(run) = run else { return Ok(()) };
            let mut state = write(&self.state);
            state.runs.push(run);
            state.covered = frozen.through;
            state.frozen = None;
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Writes the pieces of some sources into one file; none when it was stopped. The file gets its
    /// name when all of it is durable.
    fn write_run<S: landfall_index::Source<Error = StorageError>>(
        &self,
        sources: impl IntoIterator<Item = S>,
        (after, through): (Lsn, Lsn),
        written_bytes: u64,
        stop: Stop<'_>,
    ) -> Result<Option<Arc<RunFile>>, StorageError> {
        let device = || StorageError::device("write the index");
        let identity = RunIdentity { log: self.log.id(), salt: salt(), after, through };
        let name = format!("{:016x}-{:016x}-{:016x}", after.get(), through.get(), identity.salt);
        let new = format!("{NEW_PREFIX}{name}");
        let dir = self.dir()?;
        let file = dir.create(&new).map_err(device())?;
        let cover = PageCover::of(&*dir, &new);
        let to = (&*file, &cover);
        let footer = match fill(to, sources, identity, written_bytes, self.floor.get(), stop) {
            Ok(Some(footer)) => footer,
            other => {
                // Left behind it would only take room until the next opening.
                let _ = dir.remove(&new);
                return other.map(|_| None);
            }
        };
        let name = format!("{RUN_PREFIX}{name}");
        dir.rename(&new, &name).map_err(device())?;
        Ok(Some(Arc::new(RunFile::new(name, file, cover, footer, &self.pool))))
    }

    /// One merge, if there is one to be done; before, drops runs that the image has. True when
    /// something was merged.
    pub(super) fn merge_some(&self, stop: Stop<'_>) -> Result<bool, StorageError> {
        let _merging = lock(&self.merging);
        self.drop_folded()?;
        let runs = read(&self.state).runs.clone();
        let sizes: Vec<u32> = runs.iter().map(|run| run.footer().pieces).collect();
        let Some(range) = plan(&sizes, self.unit()) else { return Ok(false) };
        let old = &runs[range];
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(false) };
        let span = (first.footer().identity.after, last.footer().identity.through);
        *lock(&self.merge) = Some(span);
        let merged = self.merge_runs(old, span, stop);
        *lock(&self.merge) = None;
        let Some(new) = merged? else { return Ok(false) };
        self.replace(old, vec![new])?;
        Ok(true)
    }

    fn merge_runs(
        &self,
        old: &[Arc<RunFile>],
        span: (Lsn, Lsn),
        stop: Stop<'_>,
    ) -> Result<Option<Arc<RunFile>>, StorageError> {
        let written = old.iter().map(|run| run.footer().written_bytes).sum();
        let result = self.write_run(old.iter().map(|run| run.streamed()), span, written, stop);
        if old.iter().any(|run| run.damaged()) {
            self.rebuild_damaged()?;
            return Ok(None);
        }
        result
    }

    /// Forgets runs all of whose records the image has.
    fn drop_folded(&self) -> Result<(), StorageError> {
        let floor = self.floor.get();
        let old: Vec<_> = {
            let state = read(&self.state);
            let folded = |run: &&Arc<RunFile>| run.footer().identity.through <= floor;
            state.runs.iter().take_while(folded).cloned().collect()
        };
        if old.is_empty() { Ok(()) } else { self.replace(&old, vec![]) }
    }

    /// Puts runs in the place of neighbors that say the same. Whoever reads the old ones goes on
    /// with the files that it has open.
    fn replace(&self, old: &[Arc<RunFile>], new: Vec<Arc<RunFile>>) -> Result<(), StorageError> {
        if !new.is_empty() {
            // The new name first: a power cut that took it and not the old ones would cost reading
            // all of their records again.
            self.dir()?.sync().map_err(StorageError::device("sync the index's directory"))?;
        }
        {
            let mut state = write(&self.state);
            let at = state.runs.iter().position(|run| Arc::ptr_eq(run, &old[0]));
            let Some(at) = at else { return Ok(()) };
            state.runs.splice(at..at + old.len(), new);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.remove(old)
    }

    pub(super) fn remove(&self, runs: &[Arc<RunFile>]) -> Result<(), StorageError> {
        if runs.is_empty() {
            return Ok(());
        }
        let dir = self.dir()?;
        for run in runs {
            dir.remove(&run.name).map_err(StorageError::device("remove a part of the index"))?;
        }
        Ok(())
    }

    /// Makes every run again in which a damaged page was found.
    pub(crate) fn repair(&self) -> Result<(), StorageError> {
        let _merging = lock(&self.merging);
        self.rebuild_damaged()
    }

    /// The caller holds `merging`.
    fn rebuild_damaged(&self) -> Result<(), StorageError> {
        let runs = read(&self.state).runs.clone();
        for run in runs.into_iter().filter(|run| run.damaged()) {
            let identity = run.footer().identity;
            tracing::warn!(
                log = %self.log.id(), run = run.name,
                "a part of the index is damaged: it is made again from the log"
            );
            let new = self.runs_from_log(identity.after, identity.through)?;
            self.replace(&[run], new)?;
        }
        Ok(())
    }

    /// Runs over kept records, from the log's own tables, in bounded memory.
    pub(super) fn runs_from_log(
        &self,
        after: Lsn,
        through: Lsn,
    ) -> Result<Vec<Arc<RunFile>>, StorageError> {
        let mut runs: Vec<Arc<RunFile>> = Vec::new();
        let mut at = after.max(self.floor.get()).max(self.log.base().0);
        while at < through {
            let to = through.min(at.plus(self.unit().into()));
            let items: Vec<_> = self.log.entries(at, to)?.iter().map(item).collect();
            let written = items.iter().filter(|i| i.holder().is_some()).map(written).sum();
            let source = Source::Memory(Arc::new(MemoryRun::new(&items)));
            runs.extend(self.write_run([source], (at, to), written, &|| false)?);
            at = to;
            self.merge_in(&mut runs)?;
        }
        Ok(runs)
    }

    /// Merges among runs that are in no list yet.
    fn merge_in(&self, runs: &mut Vec<Arc<RunFile>>) -> Result<(), StorageError> {
        let sizes = |runs: &[Arc<RunFile>]| -> Vec<u32> {
            runs.iter().map(|run| run.footer().pieces).collect()
        };
        while let Some(range) = plan(&sizes(runs), self.unit()) {
            let old = runs[range.clone()].to_vec();
            let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(()) };
            let span = (first.footer().identity.after, last.footer().identity.through);
            let written = old.iter().map(|run| run.footer().written_bytes).sum();
            let sources = old.iter().map(|run| run.streamed());
            let merged = self.write_run(sources, span, written, &|| false)?;
            runs.splice(range, merged);
            self.remove(&old)?;
        }
        Ok(())
    }
}

/// Pages of merged sources, then sync. None when it was stopped.
fn fill<S: landfall_index::Source<Error = StorageError>>(
    (file, cover): (&dyn File, &PageCover),
    sources: impl IntoIterator<Item = S>,
    identity: RunIdentity,
    written_bytes: u64,
    floor: Lsn,
    stop: Stop<'_>,
) -> Result<Option<landfall_index::Footer>, StorageError> {
    let device = || StorageError::device("write the index");
    let mut merge = Merge::new(sources, floor)?;
    let mut builder = RunBuilder::new(identity);
    let mut out = Vec::with_capacity(WRITE_BYTES + PAGE_BYTES);
    let mut batch = cover.batch()?;
    let mut pages = 0;
    let mut write = |out: &mut Vec<u8>| {
        let first = pages;
        pages += out.len() / PAGE_BYTES;
        cover.cover(&mut batch, first, out);
        let written = file.write_at((first * cover.stored_bytes()) as u64, out);
        out.clear();
        written.map_err(device())
    };
    let mut count = 0;
    while let Some(piece) = merge.next_piece()? {
        builder.push(piece, &mut out)?;
        count += 1;
        if count % STOP_PIECES == 0 && stop() {
            return Ok(None);
        }
        if out.len() >= WRITE_BYTES {
            write(&mut out)?;
        }
    }
    let footer = builder.finish(written_bytes, &mut out);
    write(&mut out)?;
    file.sync_data().map_err(device())?;
    Ok(Some(footer))
}

/// Tells the pages of this file from whatever stood in its place before.
fn salt() -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&landfall_types::LogId::generate().as_bytes()[8..]);
    u64::from_le_bytes(raw)
}
