//! A log with the index of its newest content, and the two ways to append to it, which exclude each
//! other by type.

use crate::error::{ContentError, IngestError, StorageError};
use crate::index::{LogIndex, Scene};
use crate::medium::{Geometries, Medium, zeroes};
use crate::sync::{lock, read, write};
use crate::timeline::Timeline;
use landfall_journal::{Log, Position, Stamp};
use landfall_types::{
    ByteRange, Control, DiskGeometry, DiskIndex, HEADER_BYTES, Lsn, Record, RecordKind,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// A log, and what reading its newest content needs.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) log: Arc<Log>,
    pub(crate) index: Arc<LogIndex>,
    /// Who holds the newest content.
    pub(crate) scene: Scene,
    /// Held while records are appended *and* put into the index: two overlapping writes must get
    /// there in the order of their positions, else the older would be read for ever.
    append: Mutex<()>,
    geometries: RwLock<Geometries>,
    pub(crate) timeline: RwLock<Timeline>,
    /// The last record that index and timeline know. Another caller's flush can make records
    /// durable before they are followed: a window among them would not be seen yet (trap T-4).
    followed: AtomicU64,
    /// Bytes of records that were appended since the process began.
    appended: AtomicU64,
}

impl Line {
    pub(crate) fn new(
        index: Arc<LogIndex>,
        scene: Scene,
        geometries: Geometries,
        timeline: Timeline,
    ) -> Self {
        let log = Arc::clone(&index.log);
        let followed = AtomicU64::new(log.tail().lsn.get());
        Self {
            followed,
            appended: AtomicU64::new(0),
            log,
            index,
            scene,
            append: Mutex::new(()),
            geometries: RwLock::new(geometries),
            timeline: RwLock::new(timeline),
        }
    }

    /// The last position that can be judged and chosen: durable, and followed by index and
    /// timeline. To be asked before the timeline is, never after.
    pub(crate) fn settled(&self) -> Lsn {
        self.log.durable().lsn.min(Lsn::new(self.followed.load(Ordering::Acquire)))
    }

    /// Bytes of records that were appended since the process began.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Does something with the timeline.
    pub(crate) fn with_timeline<T>(&self, look: impl FnOnce(&Timeline) -> T) -> T {
        look(&read(&self.timeline))
    }

    /// Size and sectors of a disk at the newest position.
    pub(crate) fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        read(&self.geometries).get(&disk).copied()
    }

    /// Of all disks.
    pub(crate) fn geometries(&self) -> Geometries {
        read(&self.geometries).clone()
    }

    /// Fills `buf` with the newest content from `offset` of a disk. The caller holds `trims` for
    /// reading.
    pub(crate) fn read(
        &self,
        medium: &Medium,
        disk: DiskIndex,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), ContentError> {
        medium.read(&self.scene, self.geometry(disk), (disk, offset), buf)
    }

    /// The range cut into stretches: true where the newest content is known to read as zeroes.
    pub(crate) fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        zeroes(&self.scene, disk, range)
    }

    fn lock_append(&self) -> MutexGuard<'_, ()> {
        lock(&self.append)
    }

    /// Appends what was checked, and follows it. The append lock is held.
    ///
    /// An append that needs more than one segment can fail after a part of it was taken: that part
    /// is in the log, will be flushed and sent, and so is followed here too. Were it not, reads
    /// would show what was there before records that the next sender is told to leave out.
    fn append_locked(&self, stamp: Stamp, records: &[Record]) -> Result<(), StorageError> {
        let appended = self.log.append(stamp, records);
        let tail = self.log.tail().lsn;
        let taken = records.partition_point(|record| record.header.lsn <= tail);
        let followed = self.follow(&records[..taken]);
        appended?;
        followed
    }

    fn follow(&self, records: &[Record]) -> Result<(), StorageError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let (first, last) = (first.header.lsn, last.header.lsn);
        // Where their payloads stand, only the log knows.
        self.index.follow(&self.log.entries(first.prev(), last)?);
        let bytes = |record: &Record| (HEADER_BYTES + record.payload.len()) as u64;
        self.appended.fetch_add(records.iter().map(bytes).sum(), Ordering::Relaxed);
        for record in records {
            if record.header.kind != RecordKind::Control {
                continue;
            }
            // Checked by the caller before it was appended.
            let Ok(control) = Control::decode(&record.payload) else { continue };
            if let Control::Geometry(geometry) = &control {
                let (disk, _, geometry) = geometry.parts();
                write(&self.geometries).insert(disk, geometry);
            }
            let mut timeline = write(&self.timeline);
            if timeline.apply(record.header.lsn, &control).is_err() {
                return Err(StorageError::LogMissing);
            }
        }
        self.followed.store(last.get(), Ordering::Release);
        Ok(())
    }
}

/// A log that takes frames. It can't be written by an export: there is no method for that, and a
/// log is held by one of the two types at a time (design section 7). Neither can be copied:
///
/// ```compile_fail,E0277
/// fn has_two_holders<T: Clone>() {}
/// has_two_holders::<landfall_volume::AppliedLog>();
/// ```
#[derive(Debug)]
pub struct AppliedLog(Arc<Line>);

impl AppliedLog {
    /// Takes over a line that nothing appends to.
    pub(crate) const fn new(line: Arc<Line>) -> Self {
        Self(line)
    }

    /// The line, for reading.
    pub(crate) const fn line(&self) -> &Arc<Line> {
        &self.0
    }

    /// Appends records of a frame as they came; `check` sees the tail that they would follow, with
    /// nothing appended in between, and says which of them are new.
    pub(crate) fn apply<'a>(
        &self,
        stamp: Stamp,
        check: impl FnOnce(Position, &Timeline) -> Result<&'a [Record], IngestError>,
    ) -> Result<Position, IngestError> {
        let _append = self.0.lock_append();
        let new = self.0.with_timeline(|timeline| check(self.0.log.tail(), timeline))?;
        self.0.append_locked(stamp, new)?;
        Ok(self.0.log.tail())
    }
}

/// A log that an export or a catch-up writes: positions are given here, in the order of the calls.
/// Frames can't be applied to it, and once it takes frames it can't be written any more:
///
/// ```compile_fail,E0382
/// fn follow(branch: landfall_volume::BranchLog) {
///     let applied = branch.into_applied();
///     let written_again = branch.into_applied();
/// }
/// ```
/// ```compile_fail,E0277
/// fn has_two_holders<T: Clone>() {}
/// has_two_holders::<landfall_volume::BranchLog>();
/// ```
#[derive(Debug)]
pub struct BranchLog {
    line: Arc<Line>,
    stamp: Stamp,
}

impl BranchLog {
    /// Takes over a line that nothing appends to.
    pub(crate) const fn new(line: Arc<Line>, stamp: Stamp) -> Self {
        Self { line, stamp }
    }

    /// Appends what `build` makes of the next position, with nothing appended in between (trap
    /// T-2): content that it reads is the newest when its record gets its place. Not durable before
    /// the log is flushed. Where `build` reads, the caller holds `trims` for reading, from before
    /// this call on: taken under the append lock it would wait for a fold that waits for a view
    /// that waits for the append lock.
    pub(crate) fn write_with(
        &self,
        medium: &Medium,
        build: impl FnOnce(Lsn, &Newest<'_>) -> Result<Vec<Record>, ContentError>,
    ) -> Result<Lsn, ContentError> {
        let _append = self.line.lock_append();
        let newest = Newest { medium, line: &self.line };
        let records = build(self.line.log.tail().lsn.next(), &newest)?;
        self.line.append_locked(self.stamp, &records)?;
        Ok(self.line.log.tail().lsn)
    }

    /// Ends the writing: from here on the log takes frames.
    #[must_use]
    pub fn into_applied(self) -> AppliedLog {
        AppliedLog(self.line)
    }
}

/// The newest content of a branch, while nothing is appended to it.
#[derive(Debug)]
pub struct Newest<'a> {
    medium: &'a Medium,
    line: &'a Line,
}

impl Newest<'_> {
    /// Fills `buf` from `offset` of a disk.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn read(&self, disk: DiskIndex, offset: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        self.line.read(self.medium, disk, offset, buf)
    }
}
