//! Branches: writable children of a position, each with its own log; and test branches, which never
//! get authority.

use super::{Core, Replica, branch_stamp, geometries, log_dir, make_log};
use crate::body::{Body, BranchEntry, Role};
use crate::error::{ContentError, RoleError, StorageError};
use crate::index::LogIndex;
use crate::line::{BranchLog, Line, Newest};
use crate::medium::{Medium, within};
use crate::sync::{lock, read, write};
use crate::timeline::PointSelector;
use crate::tree::{self, LogNode};
use bytes::Bytes;
use landfall_blockdev::{DeviceError, Rank};
use landfall_journal::{Log, LogConfig, Position};
use landfall_types::{
    BranchId, ByteRange, Control, DiskGeometry, DiskIndex, Epoch, Lineage, LogId, Lsn,
    PAYLOAD_BYTES_MAX, Record, RecordKind,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// A branch as its exports see it. Once revoked it refuses everything, for ever; a branch that is
/// served again is another value of this type.
#[derive(Debug)]
pub struct Branch {
    entry: BranchEntry,
    line: Arc<Line>,
    medium: Arc<Medium>,
    /// Held for reading while a write gets its place, taken away by a revocation: after that no
    /// write gets one.
    writer: RwLock<Option<BranchLog>>,
    written_bytes: AtomicU64,
}

impl Branch {
    pub(super) fn open(
        entry: BranchEntry,
        line: Arc<Line>,
        medium: Arc<Medium>,
        writer: Option<BranchLog>,
    ) -> Self {
        let written = line.index.written_bytes();
        Self {
            entry,
            line,
            medium,
            writer: RwLock::new(writer),
            written_bytes: AtomicU64::new(written),
        }
    }

    /// Its ID, name, fork and epoch.
    #[must_use]
    pub const fn entry(&self) -> &BranchEntry {
        &self.entry
    }

    pub(crate) const fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Its log, for senders.
    #[must_use]
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.line.log)
    }

    /// True once authority was taken away, or the branch was thrown away.
    #[must_use]
    pub fn revoked(&self) -> bool {
        read(&self.writer).is_none()
    }

    /// Its newest position, durable or not.
    #[must_use]
    pub fn head(&self) -> Lsn {
        self.line.log.tail().lsn
    }

    /// Bytes that were written to it, counted as often as they were written; catch-up data is not
    /// counted.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Size and sectors of a disk; `None` when there is no such disk.
    #[must_use]
    pub fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        self.line.geometry(disk)
    }

    /// The disks.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskIndex> {
        self.line.geometries().into_keys().collect()
    }

    /// Fills `buf` from `offset` with the newest content.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn read(&self, disk: DiskIndex, offset: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        if self.revoked() {
            return Err(ContentError::Revoked);
        }
        let _trims = read(&self.medium.trims);
        self.line.read(&self.medium, disk, offset, buf)
    }

    /// Writes, and returns when it is durable (trap T-10): a guest that was answered never reads
    /// old data back, also when this machine loses power and the guest does not. Concurrent writers
    /// share flushes.
    ///
    /// # Errors
    /// [`ContentError`]; after a storage error a part may have been written.
    pub fn write(&self, disk: DiskIndex, offset: u64, data: &Bytes) -> Result<(), ContentError> {
        self.wait_durable(self.take_write(disk, offset, data)?)
    }

    /// As [`Branch::write`], but returns as soon as the write has its place: reads show it, and it
    /// must be answered to nobody before [`Branch::wait_durable`] of the position has returned.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn take_write(
        &self,
        disk: DiskIndex,
        offset: u64,
        data: &Bytes,
    ) -> Result<Lsn, ContentError> {
        self.take(disk, offset, data.len() as u64, |first, newest, sectors| {
            let whole = if sectors.len() == data.len() as u64 {
                data.clone()
            } else {
                let length = usize::try_from(sectors.len()).expect("little more than the data");
                let mut whole = vec![0; length];
                newest.read(disk, sectors.start, &mut whole)?;
                let skip = usize::try_from(offset - sectors.start).expect("less than a sector");
                whole[skip..skip + data.len()].copy_from_slice(data);
                Bytes::from(whole)
            };
            Ok(writes(first, disk, sectors.start, &whole))
        })
    }

    /// Makes a range read as zeroes; durable when this returns.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn zero(&self, disk: DiskIndex, offset: u64, length: u64) -> Result<(), ContentError> {
        self.wait_durable(self.take_zero(disk, offset, length)?)
    }

    /// As [`Branch::zero`], with [`Branch::take_write`]'s promise.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn take_zero(
        &self,
        disk: DiskIndex,
        offset: u64,
        length: u64,
    ) -> Result<Lsn, ContentError> {
        self.take_empty(RecordKind::Zero, disk, offset, length)
    }

    /// Gives a range up; durable when this returns, and reads as zeroes from then on.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn discard(&self, disk: DiskIndex, offset: u64, length: u64) -> Result<(), ContentError> {
        self.wait_durable(self.take_discard(disk, offset, length)?)
    }

    /// As [`Branch::discard`], with [`Branch::take_write`]'s promise.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn take_discard(
        &self,
        disk: DiskIndex,
        offset: u64,
        length: u64,
    ) -> Result<Lsn, ContentError> {
        self.take_empty(RecordKind::Discard, disk, offset, length)
    }

    /// Returns when everything up to a position is durable. Those who wait at the same time share
    /// flushes.
    ///
    /// # Errors
    /// [`ContentError`]; then it is not known what of it is.
    pub fn wait_durable(&self, through: Lsn) -> Result<(), ContentError> {
        self.line.log.wait_durable(through)?;
        Ok(())
    }

    fn take_empty(
        &self,
        kind: RecordKind,
        disk: DiskIndex,
        offset: u64,
        length: u64,
    ) -> Result<Lsn, ContentError> {
        let end = offset.saturating_add(length);
        self.take(disk, offset, length, |first, newest, sectors| {
            // A piece of a sector at either end is written with its neighbors; whole sectors need
            // no bytes.
            let sector = self.sector_bytes(disk);
            let inner_start = offset.next_multiple_of(sector).min(sectors.end);
            let inner_end = (end / sector * sector).max(inner_start);
            let mut records = Vec::new();
            let mut lsn = first;
            let edges = [(sectors.start, inner_start), (inner_end, sectors.end)];
            for (start, stop) in edges.into_iter().filter(|(start, stop)| start < stop) {
                let mut whole =
                    vec![0; usize::try_from(stop - start).expect("at most two sectors")];
                newest.read(disk, start, &mut whole)?;
                let at =
                    |byte: u64| usize::try_from(byte.clamp(start, stop) - start).expect("within");
                whole[at(offset)..at(end)].fill(0);
                records.push(Record::write(lsn, disk, start, whole.into()));
                lsn = lsn.next();
            }
            if inner_start < inner_end {
                let make = if kind == RecordKind::Zero { Record::zero } else { Record::discard };
                records.push(make(lsn, disk, inner_start, inner_end - inner_start));
            }
            Ok(records)
        })
    }

    fn sector_bytes(&self, disk: DiskIndex) -> u64 {
        self.geometry(disk).map_or(1, |geometry| geometry.sector_bytes.max(1).into())
    }

    /// Records cover whole sectors only: a power cut can garble a sector that is being folded into
    /// an image, and only a record that covers all of it makes it whole again. `make` gets the
    /// sectors that the range touches.
    fn take(
        &self,
        disk: DiskIndex,
        offset: u64,
        length: u64,
        make: impl FnOnce(Lsn, &Newest<'_>, ByteRange) -> Result<Vec<Record>, ContentError>,
    ) -> Result<Lsn, ContentError> {
        let size = self.geometry(disk).ok_or(ContentError::UnknownDisk(disk))?.size_bytes;
        let range = within(offset, length, size)?;
        if range.is_empty() {
            return Ok(self.line.log.tail().lsn);
        }
        let sector = self.sector_bytes(disk);
        let start = range.start / sector * sector;
        let sectors = ByteRange { start, end: range.end.next_multiple_of(sector).min(size) };
        let last = self.append_with(|first, newest| make(first, newest, sectors))?;
        self.written_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(last)
    }

    /// Appends what `build` makes of the next position and of the newest content, with nothing
    /// appended in between (trap T-2). Not durable before [`Branch::flush`]. Returns the last
    /// position. `build` reads through [`Newest`] alone, never through a branch or a view.
    ///
    /// # Errors
    /// [`ContentError`], also what `build` returns.
    pub fn append_with(
        &self,
        build: impl FnOnce(Lsn, &Newest<'_>) -> Result<Vec<Record>, ContentError>,
    ) -> Result<Lsn, ContentError> {
        // Before the other locks, as everywhere: see `BranchLog::write_with`.
        let _trims = read(&self.medium.trims);
        let writer = read(&self.writer);
        writer.as_ref().ok_or(ContentError::Revoked)?.write_with(&self.medium, build)
    }

    /// Appends a control record.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn append_control(&self, control: &Control) -> Result<Lsn, ContentError> {
        self.append_with(|lsn, _| Ok(vec![Record::control(lsn, control)]))
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn flush(&self) -> Result<Position, ContentError> {
        Ok(self.line.log.flush()?)
    }

    /// The range cut into stretches, in order and covering it whole: true where it is known to read
    /// as zeroes.
    #[must_use]
    pub fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        let _trims = read(&self.medium.trims);
        self.line.zeroes(disk, range)
    }

    /// Takes the writing away: when this returns no further write gets a place in the log.
    pub(super) fn revoke(&self) -> Option<BranchLog> {
        write(&self.writer).take()
    }
}

/// What a test branch is made with.
#[derive(Clone, Debug)]
pub struct NewTestBranch {
    /// Ours.
    pub id: BranchId,
    /// Unique within the replica.
    pub name: String,
    /// Where.
    pub point: PointSelector,
}

impl Replica {
    /// Makes a test branch: a writable child of a recovery point that never gets authority and
    /// changes nothing beside itself (promise P7). Made already: returns it.
    ///
    /// # Errors
    /// [`RoleError::NameTaken`], [`RoleError::Point`], storage errors.
    pub fn test_branch(&self, new: &NewTestBranch) -> Result<Arc<Branch>, RoleError> {
        if let Some(branch) = read(&self.branches).get(&new.id) {
            return Ok(Arc::clone(branch));
        }
        let trims = read(&self.medium.trims);
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if body.role == Role::Released {
            return Err(RoleError::WrongRole { role: body.role, wanted: "a test branch" });
        }
        if body.branches.iter().any(|branch| branch.name == new.name) {
            return Err(RoleError::NameTaken(new.name.clone()));
        }
        let fork = self.resolve_in(&body, &new.point)?;
        let epoch = epoch_at(&body.lineage, fork);
        let made = self.make_branch(&mut core, &mut body, new.id, &new.name, fork, epoch, None)?;
        core.store.write(body)?;
        write(&self.branches).insert(new.id, Arc::clone(&made));
        drop(core);
        drop(trims);
        Ok(made)
    }

    /// Throws a test branch away. Gone already: no error.
    ///
    /// # Errors
    /// [`RoleError::UnknownBranch`] for one that has or had authority; storage errors.
    pub fn drop_test_branch(&self, name: &str) -> Result<(), RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        let Some(entry) = body.branches.iter().find(|branch| branch.name == name).cloned() else {
            return Ok(());
        };
        if entry.lineage.is_some() {
            return Err(RoleError::UnknownBranch(name.to_owned()));
        }
        // The list is not held while the last write ends.
        let dropped = write(&self.branches).remove(&entry.id);
        drop(dropped.and_then(|branch| branch.revoke()));
        body.branches.retain(|branch| branch.id != entry.id);
        self.collect(&mut core, body)?;
        Ok(())
    }

    /// A branch that is open, by name.
    #[must_use]
    pub fn branch(&self, name: &str) -> Option<Arc<Branch>> {
        read(&self.branches).values().find(|branch| branch.entry.name == name).cloned()
    }

    /// All branches that are open, in the order of their making.
    #[must_use]
    pub fn branches(&self) -> Vec<Arc<Branch>> {
        read(&self.branches).values().cloned().collect()
    }

    /// The branch with authority, while it may be written.
    #[must_use]
    pub fn authority(&self) -> Option<Arc<Branch>> {
        let id = self.body().ok()?.authority?;
        let branch = read(&self.branches).get(&id).cloned()?;
        (!branch.revoked()).then_some(branch)
    }

    /// Makes a branch's log, durably, and enters it into `body`, which the caller writes: until
    /// then it is a stray that the next opening removes. The caller holds `trims` for reading.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn make_branch(
        &self,
        core: &mut Core,
        body: &mut Body,
        id: BranchId,
        name: &str,
        fork: Lsn,
        epoch: Epoch,
        lineage: Option<Lineage>,
    ) -> Result<Arc<Branch>, StorageError> {
        let parent = self.line();
        let at_fork = parent.log.position_at(fork)?.ok_or(StorageError::LogMissing)?;
        let timeline = parent.with_timeline(|timeline| timeline.fork(fork));
        let geometries = geometries(body, &timeline, fork);
        let log = LogId::generate();
        let config = LogConfig {
            log,
            replica: self.id,
            epoch,
            base: fork,
            base_chain: at_fork.chain,
            segment_bytes: self.segment_bytes,
        };
        let rank = if lineage.is_some() { Rank::Authority } else { Rank::Trial };
        let made = make_log(&*self.dir, config, core.store.ranks(), rank)?;
        core.add_log(&self.medium, made, &self.dir)?;
        body.logs.push(LogNode { log, parent: Some(body.log), fork, dropped: false });
        let scene = core.scene(&self.medium, body, log, None)?;
        let index = self.medium.index(core.log(log)?.1)?;
        let line = Arc::new(Line::new(index, scene, geometries, timeline));
        let entry = BranchEntry { id, name: name.to_owned(), log, fork, epoch, lineage };
        body.branches.push(entry.clone());
        let writer = BranchLog::new(Arc::clone(&line), branch_stamp(log, epoch));
        Ok(Arc::new(Branch::open(entry, line, Arc::clone(&self.medium), Some(writer))))
    }

    fn remove_index(&self, log: LogId) -> Result<(), StorageError> {
        let removed = self.dir.remove_subdir(&LogIndex::dir_name(log));
        match removed {
            // It never had a file.
            Ok(()) | Err(DeviceError::NotFound { .. }) => Ok(()),
            Err(error) => Err(StorageError::device("remove an index")(error)),
        }
    }

    /// Drops the logs that nothing needs any more: from the superblock first, then from the disk,
    /// so that a cut leaves a stray and never a name without a log.
    pub(super) fn collect(&self, core: &mut Core, mut body: Body) -> Result<(), StorageError> {
        let mut heads = vec![body.log];
        heads.extend(body.branches.iter().map(|branch| branch.log));
        let kept = body.divergence.iter().filter(|entry| !entry.discarded);
        heads.extend(kept.filter_map(|entry| entry.log));
        heads.extend(self.viewed().into_iter().map(|(log, _, _)| log));
        let nodes = tree::collect(&body.logs, &heads, body.folded);
        let stays = |log: LogId| nodes.iter().any(|node| node.log == log && !node.dropped);
        let gone = body.logs.iter().filter(|node| !node.dropped && !stays(node.log));
        let gone: Vec<LogId> = gone.map(|node| node.log).collect();
        let named: Vec<LogId> = nodes.iter().map(|node| node.log).collect();
        body.logs = nodes;
        for node in &mut body.logs {
            node.parent = node.parent.filter(|parent| named.contains(parent));
        }
        core.store.write(body)?;
        for log in gone {
            if let Some((_, slot)) = core.logs.remove(&log) {
                self.medium.drop_log(slot);
            }
            let removed = self.dir.remove_subdir(&log_dir(log));
            removed.map_err(StorageError::device("remove a log"))?;
            self.remove_index(log)?;
        }
        self.dir.sync().map_err(StorageError::device("sync the replica's directory"))
    }
}

/// Bytes as write records of at most [`PAYLOAD_BYTES_MAX`] bytes.
fn writes(first: Lsn, disk: DiskIndex, offset: u64, data: &Bytes) -> Vec<Record> {
    let mut records = Vec::with_capacity(data.len().div_ceil(PAYLOAD_BYTES_MAX));
    let mut lsn = first;
    for start in (0..data.len()).step_by(PAYLOAD_BYTES_MAX) {
        let end = data.len().min(start + PAYLOAD_BYTES_MAX);
        records.push(Record::write(lsn, disk, offset + start as u64, data.slice(start..end)));
        lsn = lsn.next();
    }
    records
}

/// The epoch in force at a position of a history.
fn epoch_at(lineage: &Lineage, lsn: Lsn) -> Epoch {
    let entry = lineage.entries().iter().rev().find(|entry| entry.fork < lsn);
    entry.map_or(lineage.entries()[0].epoch, |entry| entry.epoch)
}
