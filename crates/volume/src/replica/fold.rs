//! Folding: moving the image forward to a recovery point. Redo only: a fold that was cut off is
//! simply done again.

use super::Replica;
use crate::body::{BaseContent, Body, ImageOwner, Role};
use crate::error::{FoldError, StorageError};
use crate::medium::{DiskMap, DiskMaps, Holder};
use crate::sync::{lock, write};
use crate::tree;
use landfall_blockdev::BlockDevice;
use landfall_types::{ByteRange, Lsn};
use std::sync::Arc;

/// Bytes written to an image at once: large enough for a disk's sequential speed, small enough to
/// keep in memory.
const FOLD_WRITE_BYTES: usize = 1 << 20;

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
        if let Some(through) = body.fold_through {
            return Ok(Some(through));
        }
        let line = self.line();
        let limit = wanted.min(self.pin(&body)).min(line.settled());
        let limit = line.with_timeline(|timeline| timeline.newest_legal(body.folded, limit));
        Ok(limit.filter(|limit| *limit > body.folded))
    }

    /// Moves the image to `to`, then forgets records that nothing needs any more. A fold that was
    /// cut off earlier has to be ended first: [`Replica::fold_limit`] says so. Returns the bytes
    /// written.
    ///
    /// # Errors
    /// [`FoldError`]: not a recovery point, pinned, or storage.
    pub fn fold(&self, to: Lsn) -> Result<u64, FoldError> {
        let _folding = lock(&self.folding);
        {
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
            core.store.write(Body { fold_through: Some(to), ..body })?;
        }
        let bytes = self.copy_records(to)?;
        self.end_fold(to)?;
        self.forget(to)?;
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
        if !durable || !line.with_timeline(|timeline| timeline.legal(to)) {
            return Err(FoldError::NotLegal(to));
        }
        let pin = self.pin(body);
        if to > pin {
            return Err(FoldError::Pinned { asked: to, pin });
        }
        Ok(())
    }

    /// The newest holders of what the records after the image up to `to` touch.
    pub(super) fn records_to(&self, to: Lsn) -> Result<(DiskMaps, Body), StorageError> {
        let core = lock(&self.core);
        let body = core.store.body()?.clone();
        let (maps, _) = core.build(&body, body.log, to)?;
        Ok((maps, body))
    }

    /// Writes the records after the image up to `to` into it, in disk order, and makes it durable.
    pub(super) fn copy_records(&self, to: Lsn) -> Result<u64, FoldError> {
        let (maps, body) = self.records_to(to)?;
        let total_bytes = maps.iter().map(|(_, map)| touched_bytes(map)).sum();
        *lock(&self.fold_progress) = Some(FoldProgress { done_bytes: 0, total_bytes });
        let copied = self.copy_disks(&maps, &body);
        *lock(&self.fold_progress) = None;
        copied?;
        self.medium.flush_images()?;
        Ok(total_bytes)
    }

    fn copy_disks(&self, maps: &DiskMaps, body: &Body) -> Result<(), StorageError> {
        self.grow_images(maps, body)?;
        let devices = self.medium.devices()?;
        for (disk, map) in maps.iter() {
            let device = devices.get(&disk).ok_or(StorageError::UnknownDisk(disk))?;
            self.copy_disk(map, device)?;
        }
        Ok(())
    }

    /// Our own images follow a disk that grew (trap T-9).
    fn grow_images(&self, maps: &DiskMaps, body: &Body) -> Result<(), StorageError> {
        let mut devices = (*self.medium.devices()?).clone();
        let mut grown = false;
        for disk in body.disks.iter().filter(|disk| disk.owner == ImageOwner::Ours) {
            let size = maps.disk(disk.index).map_or(0, |map| map.geometry.size_bytes);
            if devices.get(&disk.index).is_none_or(|device| device.size() >= size) {
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

    /// Neighbors are put together into one write; a record that was overwritten in the meantime is
    /// not written at all.
    fn copy_disk(&self, map: &DiskMap, device: &Arc<dyn BlockDevice>) -> Result<(), StorageError> {
        let mut buf: Vec<u8> = Vec::with_capacity(FOLD_WRITE_BYTES);
        let mut start = 0;
        for (range, holder) in map.extents.iter() {
            let range = ByteRange { end: range.end.min(map.geometry.size_bytes), ..range };
            if range.is_empty() {
                continue;
            }
            let follows = start + buf.len() as u64 == range.start;
            if !follows || buf.len() >= FOLD_WRITE_BYTES || holder.payload.is_none() {
                self.write_out(device, start, &mut buf)?;
                start = range.start;
            }
            match holder {
                Holder { payload: None, .. } => {
                    device
                        .zero(range.start, range.len())
                        .map_err(StorageError::device("fold into image"))?;
                    self.fold_advanced(range.len());
                    start = range.end;
                }
                Holder { lsn, payload: Some(slot) } => {
                    let (first, bytes) = self.medium.payload(slot, lsn)?;
                    let at = |byte: u64| usize::try_from(byte - first).expect("within the record");
                    buf.extend_from_slice(&bytes[at(range.start)..at(range.end)]);
                }
            }
        }
        self.write_out(device, start, &mut buf)
    }

    fn write_out(
        &self,
        device: &Arc<dyn BlockDevice>,
        start: u64,
        buf: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        if !buf.is_empty() {
            device.write_at(start, buf).map_err(StorageError::device("fold into image"))?;
            self.fold_advanced(buf.len() as u64);
            buf.clear();
        }
        Ok(())
    }

    fn fold_advanced(&self, bytes: u64) {
        if let Some(progress) = lock(&self.fold_progress).as_mut() {
            progress.done_bytes += bytes;
        }
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
        body.base = BaseContent::Exact;
        body.image_copy = None;
        core.store.write(body)
    }

    /// Forgets the records that the image holds: in the maps first, then on the disk.
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
            self.prune(folded);
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

/// Bytes that a fold of this map writes.
pub(super) fn touched_bytes(map: &DiskMap) -> u64 {
    let size = map.geometry.size_bytes;
    map.extents.iter().map(|(range, _)| range.end.min(size).saturating_sub(range.start)).sum()
}
