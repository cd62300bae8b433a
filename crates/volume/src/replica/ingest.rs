//! Taking frames: the checks that nothing is applied twice, out of order, of another history, or
//! outside a disk.

use super::{Receiving, Replica};
use crate::body::{Body, ImageCopy, ImageOwner};
use crate::error::{IngestError, StorageError};
use crate::line::Line;
use crate::sync::read;
use crate::timeline::Timeline;
use landfall_journal::{Position, Stamp};
use landfall_types::{
    Chain, Control, DiskGeometry, DiskIndex, Epoch, Incarnation, InstanceId, Lineage, Lsn, Record,
    RecordKind, WindowClose, WindowId, WindowMode, WindowOpen, Windows,
};
use std::collections::BTreeMap;

/// Records of one epoch and one producer's run, as a session brings them.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The epoch that they were written in.
    pub epoch: Epoch,
    /// The producer's run.
    pub incarnation: Incarnation,
    /// The producer's own position after the last of them.
    pub source_position: u64,
    /// The chain before the first of them.
    pub chain_before: Chain,
    /// They.
    pub records: &'a [Record],
}

/// Where a replica stands, for a sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its history.
    pub lineage: Lineage,
    /// What is durable.
    pub durable: Position,
    /// A first copy in progress, as far as it is durable.
    pub image_copy: Option<ImageCopy>,
    /// Windows that are open there.
    pub open_windows: Vec<WindowId>,
}

impl Replica {
    /// A sender announces itself: checks role, instance and history, makes durable what was
    /// received, and says where the replica stands.
    ///
    /// # Errors
    /// [`IngestError::NotReplicating`], [`IngestError::OtherInstance`], [`IngestError::Fenced`],
    /// [`IngestError::Diverged`], storage errors.
    pub fn greet(&self, lineage: &Lineage, instance: InstanceId) -> Result<Standing, IngestError> {
        let image_copy = self.body()?.image_copy;
        let receiving = read(&self.receiving);
        let receiving = receiving.as_ref().ok_or_else(|| self.not_replicating())?;
        if receiving.instance != instance {
            return Err(IngestError::OtherInstance(instance));
        }
        // Everything received becomes durable before the position is told: what lay behind it would
        // be taken for another history when a new run of the sender numbers from there.
        let durable = receiving.log.line().log.flush()?;
        check_lineage(&receiving.lineage, lineage, durable.lsn)?;
        let line = receiving.log.line();
        let open_windows = line.with_timeline(|timeline| timeline.windows().open_ids());
        // Over with the first recovery point, whatever brought it: nothing more may go into the
        // image beneath it.
        let legal = line.with_timeline(|t| t.newest_legal(Lsn::ZERO, Lsn::MAX).is_some());
        let image_copy = image_copy.filter(|_| !legal);
        Ok(Standing { lineage: receiving.lineage.clone(), durable, image_copy, open_windows })
    }

    /// Takes a frame; not durable before [`Replica::flush`]. Duplicates with the same chain are
    /// dropped.
    ///
    /// # Errors
    /// [`IngestError`]; none of the frame's records is taken then.
    pub fn ingest(&self, frame: Frame<'_>) -> Result<Position, IngestError> {
        for record in frame.records {
            record.verify().map_err(IngestError::Record)?;
        }
        let receiving = read(&self.receiving);
        let receiving = receiving.as_ref().ok_or_else(|| self.not_replicating())?;
        // Before the log is held: whoever opens a view holds the superblock while it waits for the
        // log.
        let control = |record: &Record| record.header.kind == RecordKind::Control;
        let body = if frame.records.iter().any(control) { Some(self.body()?) } else { None };
        let stamp = Stamp {
            epoch: frame.epoch,
            incarnation: frame.incarnation,
            source_position: frame.source_position,
        };
        receiving.log.apply(stamp, |tail, timeline| {
            let line = receiving.log.line();
            let new = new_records(line, tail, &frame)?;
            check_epoch(receiving, &frame, new)?;
            self.check_content(body.as_ref(), line, timeline, new)?;
            Ok(new)
        })
    }

    /// Makes durable what was taken. Concurrent callers share one flush.
    ///
    /// # Errors
    /// Storage errors.
    pub fn flush(&self) -> Result<Position, StorageError> {
        Ok(self.line().log.flush()?)
    }

    pub(super) fn not_replicating(&self) -> IngestError {
        match self.body() {
            Ok(body) => IngestError::NotReplicating(body.role),
            Err(error) => error.into(),
        }
    }

    /// Every record lies within its disk (trap T-9), and every control record fits what is open.
    /// `body` is there when there are control records.
    fn check_content(
        &self,
        body: Option<&Body>,
        line: &Line,
        timeline: &Timeline,
        new: &[Record],
    ) -> Result<(), IngestError> {
        let mut sizes = line.geometries();
        let mut windows = None;
        let mut opened: Vec<WindowOpen> = vec![];
        for record in new {
            let lsn = record.header.lsn;
            if record.header.kind == RecordKind::Control {
                let body = body.expect("it was read because there are control records");
                let control = Control::decode(&record.payload)
                    .map_err(|source| IngestError::Control { lsn, source })?;
                let windows = windows.get_or_insert_with(|| timeline.windows().clone());
                windows.apply(&control).map_err(|source| IngestError::Window { lsn, source })?;
                self.check_geometry(body, lsn, &control, &mut sizes)?;
                match control {
                    Control::WindowOpen(open) => opened.push(open),
                    Control::WindowClose(close)
                        if close.exact && needs_image(line, &opened, windows, &close, &sizes) =>
                    {
                        Self::check_image_complete(body, lsn, close.window, &sizes)?;
                    }
                    _ => {}
                }
                continue;
            }
            let disk = record.header.disk;
            let size = sizes.get(&disk).ok_or(IngestError::UnknownDisk { lsn, disk })?.size_bytes;
            let Some(range) = record.header.range() else { continue };
            if range.end > size {
                return Err(IngestError::OutOfBounds { lsn, disk, range, size });
            }
        }
        Ok(())
    }

    fn check_geometry(
        &self,
        body: &Body,
        lsn: Lsn,
        control: &Control,
        sizes: &mut BTreeMap<DiskIndex, DiskGeometry>,
    ) -> Result<(), IngestError> {
        let Control::Geometry(geometry) = control else { return Ok(()) };
        let (disk, _, new) = geometry.parts();
        let old = *sizes.get(&disk).ok_or(IngestError::UnknownDisk { lsn, disk })?;
        if !self.image_can_follow(body, disk, old, new)? {
            let (size, sector) = (new.size_bytes, new.sector_bytes);
            return Err(IngestError::Geometry { lsn, disk, size, sector });
        }
        sizes.insert(disk, new);
        Ok(())
    }

    /// Our own images grow when they are folded; a foreign disk has to be large enough already.
    fn image_can_follow(
        &self,
        body: &Body,
        disk: DiskIndex,
        old: DiskGeometry,
        new: DiskGeometry,
    ) -> Result<bool, IngestError> {
        let Some(kept) = body.disk(disk) else { return Ok(false) };
        let fits = match kept.owner {
            ImageOwner::Ours => true,
            ImageOwner::Foreign => {
                let devices = self.medium.devices()?;
                devices.get(&disk).is_some_and(|device| device.size() >= new.size_bytes)
            }
        };
        Ok(fits && old.sector_bytes == new.sector_bytes)
    }

    /// The closing of a first copy counts only when the image has all of it, durably (design
    /// section 14.5).
    fn check_image_complete(
        body: &Body,
        lsn: Lsn,
        window: WindowId,
        sizes: &BTreeMap<DiskIndex, DiskGeometry>,
    ) -> Result<(), IngestError> {
        let copy = body.image_copy.as_ref().filter(|copy| copy.window == window);
        let durable = copy.map_or(&[][..], |copy| &copy.durable_bytes);
        for (disk, geometry) in sizes {
            let found = durable.iter().find(|(index, _)| index == disk);
            let durable_bytes = found.map_or(0, |(_, bytes)| *bytes);
            if durable_bytes < geometry.size_bytes {
                let size_bytes = geometry.size_bytes;
                return Err(IngestError::ImageIncomplete {
                    lsn,
                    disk: *disk,
                    durable_bytes,
                    size_bytes,
                });
            }
        }
        Ok(())
    }
}

/// True when the window that closes has put its blocks into the image, and nothing else has brought
/// them: a later comparison of all disks, by another run of the sender, brings what is missing
/// through the log, and decides with its own closing. `opened` are the openings in the frame
/// itself, `windows` stands behind the closing.
fn needs_image(
    line: &Line,
    opened: &[WindowOpen],
    windows: &Windows,
    close: &WindowClose,
    sizes: &BTreeMap<DiskIndex, DiskGeometry>,
) -> bool {
    let logged = line.log.controls().into_iter().filter_map(|(_, control)| match control {
        Control::WindowOpen(open) => Some(open),
        _ => None,
    });
    let all: Vec<WindowOpen> = logged.chain(opened.iter().cloned()).collect();
    let Some(at) = all.iter().rposition(|open| open.window == close.window) else { return false };
    let still_open = windows.open_ids();
    let replaced = all[at + 1..].iter().any(|later| {
        later.mode == WindowMode::Compare
            && !later.into_image
            && still_open.contains(&later.window)
            && sizes.keys().all(|disk| later.disks.contains(&disk.0))
    });
    all[at].into_image && !replaced
}

/// A sender's history must be ours: compared before any position is (trap T-1).
fn check_lineage(ours: &Lineage, theirs: &Lineage, durable: Lsn) -> Result<(), IngestError> {
    if ours == theirs {
        return Ok(());
    }
    if theirs.epoch().number < ours.epoch().number {
        let (offered, current) = (theirs.epoch(), ours.epoch());
        return Err(IngestError::Fenced { offered, current, lsn: durable });
    }
    let common = ours.common_through(theirs).unwrap_or(Lsn::ZERO);
    if ours.is_prefix_of(theirs) && durable <= common {
        return Err(IngestError::NotFollowing(theirs.epoch()));
    }
    let common = common.min(durable);
    Err(IngestError::Diverged { common, durable })
}

/// The records of a frame that the log does not have; the ones that it has must be the same ones
/// (trap T-1).
fn new_records<'a>(
    line: &Line,
    tail: Position,
    frame: &Frame<'a>,
) -> Result<&'a [Record], IngestError> {
    let Some(first) = frame.records.first().map(|record| record.header.lsn) else {
        return Ok(&[]);
    };
    if first > tail.lsn.next() {
        return Err(IngestError::Gap { expected: tail.lsn.next(), found: first });
    }
    let mut expected = first;
    for record in frame.records {
        if record.header.lsn != expected {
            return Err(IngestError::Gap { expected, found: record.header.lsn });
        }
        expected = expected.next();
    }
    // What was trimmed can't be compared; it is older than anything a sender has reason to repeat.
    let fits = |lsn: Lsn, chain: Chain| {
        let kept = line.log.position_at(lsn).map_err(StorageError::Journal)?;
        Ok::<bool, IngestError>(kept.is_none_or(|position| position.chain == chain))
    };
    if !fits(first.prev(), frame.chain_before)? {
        return Err(IngestError::ChainMismatch { lsn: first.prev() });
    }
    let kept = usize::try_from(tail.lsn.next().get() - first.get()).unwrap_or(usize::MAX);
    let (old, new) = frame.records.split_at(kept.min(frame.records.len()));
    let mut chain = frame.chain_before;
    for record in old {
        chain = record.chain(chain);
        if !fits(record.header.lsn, chain)? {
            return Err(IngestError::ChainMismatch { lsn: record.header.lsn });
        }
    }
    Ok(new)
}

/// Each record was written in the epoch that our history has at its place; a lower one is refused
/// for ever (design section 5.4).
fn check_epoch(
    receiving: &Receiving,
    frame: &Frame<'_>,
    new: &[Record],
) -> Result<(), IngestError> {
    for record in [new.first(), new.last()].into_iter().flatten() {
        let lsn = record.header.lsn;
        let entries = receiving.lineage.entries();
        let at = entries.iter().rev().find(|entry| entry.fork < lsn).or(entries.first());
        let current = at.map_or(receiving.lineage.epoch(), |entry| entry.epoch);
        if !current.is(&frame.epoch) {
            return Err(IngestError::Fenced { offered: frame.epoch, current, lsn });
        }
    }
    Ok(())
}
