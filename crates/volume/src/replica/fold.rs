//! Folding: moving the image forward to a recovery point. Redo only: a fold that was cut off is
//! simply done again.

use super::Replica;
use crate::body::{BaseContent, Body, FoldMark, ImageOwner, Role};
use crate::error::{FoldError, StorageError};
use crate::sync::{lock, write};
use crate::tree;
use copy::Copy;
use landfall_types::Lsn;
use std::sync::Arc;

mod copy;
mod edges;
mod pace;
mod plan;

pub use pace::{FoldPace, Unpaced};
pub(super) use plan::{Extent, Plan};

/// How far a fold has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FoldProgress {
    /// Bytes written into the images.
    pub done_bytes: u64,
    /// Bytes to write.
    pub total_bytes: u64,
}

impl Replica {
    /// How far the image can be folded now, at most to `wanted`: the newest recovery point that is
    /// durable and not pinned. `None` when that is nowhere ahead of the image. The newest recovery
    /// point never expires: it becomes the image itself (trap T-6).
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn fold_limit(&self, wanted: Lsn) -> Result<Option<Lsn>, StorageError> {
        let body = self.body()?;
        if body.role == Role::Released || body.undo.is_some() {
            return Ok(None);
        }
        let line = self.line();
        let most = self.pin(&body).min(line.settled());
        let legal = |through| line.with_timeline(|t| t.newest_legal(body.folded, through));
        let limit = match body.fold_through {
            Some(through) => Some(through),
            None => legal(wanted.min(most)).filter(|limit| *limit > body.folded),
        };
        let Some(limit) = limit else { return Ok(None) };
        // A position that resolves to rot can't become the image: the next one that does not, or
        // the newest before.
        let corrupt = self.corrupt()?;
        let spoiled = |at: Lsn| {
            corrupt.iter().any(|rot| rot.first <= at && rot.last.is_none_or(|last| at <= last))
        };
        if !spoiled(limit) {
            return Ok(Some(limit));
        }
        let before = corrupt.iter().map(|rot| rot.first.prev()).min().and_then(legal);
        let before = before.filter(|_| body.fold_through.is_none());
        let other = [legal(most), before].into_iter().flatten();
        Ok(other.filter(|at| *at > body.horizon()).find(|at| !spoiled(*at)))
    }

    /// Moves the image to `to`, then forgets records that nothing needs any more. A fold that was
    /// cut off earlier has to be ended first: [`Replica::fold_limit`] says so. Returns the bytes
    /// written.
    ///
    /// # Errors
    /// [`FoldError`]: not a recovery point, pinned, or storage.
    pub fn fold(&self, to: Lsn) -> Result<u64, FoldError> {
        self.fold_paced(to, &Unpaced)
    }

    /// As [`Replica::fold`], in the background: `pace` says when it may go on, and may stop it.
    ///
    /// # Errors
    /// As [`Replica::fold`]; [`FoldError::Stopped`].
    pub fn fold_paced(&self, to: Lsn, pace: &dyn FoldPace) -> Result<u64, FoldError> {
        let _folding = lock(&self.folding);
        let fresh = {
            let mut core = lock(&self.core);
            let body = core.store.body()?.clone();
            if body.undo.is_some() {
                return Err(FoldError::UndoKept);
            }
            if to == body.folded && body.base == BaseContent::Exact {
                return Ok(0);
            }
            self.check_fold(&body, to)?;
            // Durable before the first block is overwritten: from here on nothing before `to` can
            // be shown, and a restart after a cut must know that the image is a mix until the fold
            // was done again.
            let fresh = body.fold_through.is_none();
            let goes_on = body.fold_through == Some(to);
            let fold_done = body.fold_done.filter(|_| goes_on);
            core.store.write(Body { fold_through: Some(to), fold_done, ..body })?;
            fresh
        };
        let bytes = self.copy_records(to, pace, fresh)?;
        self.end_fold(to)?;
        self.forget(to)?;
        // What has rotted in the image may have been written anew.
        self.recheck_rot_folding()?;
        Ok(bytes)
    }

    /// True when a fold was cut off: it should be done again soon, because no newer one can begin.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn fold_pending(&self) -> Result<Option<Lsn>, StorageError> {
        Ok(self.body()?.fold_through)
    }

    /// A fold that runs.
    #[must_use]
    pub fn fold_progress(&self) -> Option<FoldProgress> {
        *lock(&self.fold_progress)
    }

    pub(super) fn check_fold(&self, body: &Body, to: Lsn) -> Result<(), FoldError> {
        if body.role == Role::Released {
            return Err(FoldError::WrongRole(body.role));
        }
        if to < body.horizon() {
            return Err(FoldError::Past { asked: to, folded: body.horizon() });
        }
        let old_disks =
            body.divergence.iter().filter(|entry| entry.log.is_none() && !entry.discarded);
        let names: Vec<String> = old_disks.map(|entry| entry.name.clone()).collect();
        if !names.is_empty() {
            return Err(FoldError::DivergenceKept { names });
        }
        let line = self.line();
        let durable = to <= line.settled();
        // One that was cut off has been judged, perhaps by another log's records: a commit since
        // then may have left a log that begins behind it.
        let judged = body.fold_through == Some(to);
        if !durable || !(judged || line.with_timeline(|timeline| timeline.legal(to))) {
            return Err(FoldError::NotLegal(to));
        }
        let pin = self.pin(body);
        if to > pin {
            return Err(FoldError::Pinned { asked: to, pin });
        }
        Ok(())
    }

    /// Writes the records behind the image up to `to` into it, in disk order, and makes it durable.
    /// Goes on behind the last checkpoint of a fold to the same position that was cut off; `fresh`
    /// when there was none.
    pub(super) fn copy_records(
        &self,
        to: Lsn,
        pace: &dyn FoldPace,
        fresh: bool,
    ) -> Result<u64, FoldError> {
        let plan = self.plan(to)?;
        let total_bytes = plan.total_bytes();
        let mut mark = self.body()?.fold_done;
        let left = if mark.is_some() { plan.bytes_behind(mark)? } else { total_bytes };
        let done_bytes = total_bytes - left;
        *lock(&self.fold_progress) = Some(FoldProgress { done_bytes, total_bytes });
        let copied = self.copy_rounds(&plan, &mut mark, pace, fresh);
        *lock(&self.fold_progress) = None;
        copied?;
        Ok(total_bytes)
    }

    fn copy_rounds(
        &self,
        plan: &Plan,
        mark: &mut Option<FoldMark>,
        pace: &dyn FoldPace,
        fresh: bool,
    ) -> Result<(), FoldError> {
        self.grow_images(plan)?;
        let devices = self.medium.devices()?;
        let advanced = |bytes| {
            if let Some(progress) = lock(&self.fold_progress).as_mut() {
                progress.done_bytes += bytes;
            }
        };
        let sums = self.medium.sums();
        edges::forget(plan, &devices, &sums, fresh)?;
        let medium = &self.medium;
        let copy = Copy { medium, devices: &devices, sums: &sums, pace, advanced: &advanced };
        loop {
            *mark = copy.round(plan, *mark, pace.checkpoint_bytes())?;
            // The image first: a mark that a cut left behind content that is not there would have
            // the next fold leave a hole.
            self.medium.flush_images()?;
            if mark.is_none() {
                edges::renew(plan, &devices, &sums)?;
            }
            for sums in sums.values() {
                sums.sync()?;
            }
            if mark.is_none() {
                return Ok(());
            }
            let mut core = lock(&self.core);
            let body = core.store.body()?.clone();
            core.store.write(Body { fold_done: *mark, ..body })?;
        }
    }

    /// Our own images follow a disk that grew (trap T-9).
    fn grow_images(&self, plan: &Plan) -> Result<(), StorageError> {
        let body = self.body()?;
        let mut devices = (*self.medium.devices()?).clone();
        let mut grown = false;
        for disk in body.disks.iter().filter(|disk| disk.owner == ImageOwner::Ours) {
            let size = plan.geometry(disk.index).map_or(0, |geometry| geometry.size_bytes);
            if devices.get(&disk.index).is_none_or(|device| device.size() >= size) {
                continue;
            }
            if self.grow_sealed(disk, size)? {
                continue;
            }
            self.images.grow(&disk.image, size).map_err(StorageError::device("grow image"))?;
            let device = self.images.open(&disk.image, disk.owner);
            devices.insert(disk.index, device.map_err(StorageError::device("open image"))?);
            grown = true;
        }
        if grown {
            self.medium.set_devices(Some(devices));
        }
        Ok(())
    }

    /// The image is durable at `to`: only now the superblock says so.
    pub(super) fn end_fold(&self, to: Lsn) -> Result<(), StorageError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        let line = self.line();
        for disk in &mut body.disks {
            if let Some(geometry) = line.with_timeline(|timeline| timeline.geometry(disk.index, to))
            {
                disk.geometry = geometry;
            }
        }
        let marker = line.with_timeline(|timeline| timeline.points(to, to)).pop();
        body.folded_marker = marker.map(Into::into);
        body.folded = to;
        body.fold_through = None;
        body.fold_done = None;
        body.doubt = body.doubt.filter(|doubt| to <= *doubt);
        body.base = BaseContent::Exact;
        body.image_copy = None;
        core.store.write(body)
    }

    /// Forgets the records that the image holds: for readers first, then on the disk.
    fn forget(&self, folded: Lsn) -> Result<(), StorageError> {
        let (path, limit) = {
            let core = lock(&self.core);
            let body = core.store.body()?;
            let path = tree::path(&body.logs, body.log, Lsn::MAX);
            let logs = path.iter().filter_map(|(log, _)| core.log(*log).ok());
            let path: Vec<_> = logs.map(|(log, _)| Arc::clone(log)).collect();
            (path, folded.min(*lock(&self.trim_limit)))
        };
        {
            let _trims = write(&self.medium.trims);
            self.medium.floor.raise(folded);
            for log in path {
                log.trim(limit)?;
            }
        }
        let mut core = lock(&self.core);
        let body = core.store.body()?.clone();
        // Logs that only a sender still wants stay until it has sent them.
        if *lock(&self.trim_limit) < folded { Ok(()) } else { self.collect(&mut core, body) }
    }

    /// Keeps records behind `lsn` for a sender, whatever is folded; [`Lsn::MAX`] lifts it.
    pub fn keep_records_behind(&self, lsn: Lsn) {
        *lock(&self.trim_limit) = lsn;
    }
}
