//! Scrub: everything that is kept is read and compared with its checksum, in the background.

use super::{FoldPace, Replica, rot};
use crate::body::{Body, Role, ScrubPlace, ScrubState};
use crate::error::StorageError;
use crate::sums::{BLOCK_BYTES, NewSums, Sum, Sums};
use crate::sync::lock;
use landfall_blockdev::{BlockDevice, DeviceError};
use landfall_journal::{JournalError, Log};
use landfall_types::{ByteRange, DiskIndex, LogId, Lsn};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Records looked at between two questions for the pace.
const RECORDS_AT_ONCE: u64 = 256;
/// Bytes of an image read at once.
const READ_BYTES: u64 = 1 << 20;
/// Places of rot that are kept; a medium with more is lost anyway.
pub(super) const ROT_MAX: usize = 4_096;

/// Something that is not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rot {
    /// A record's payload.
    Record {
        /// In which log.
        log: LogId,
        /// Which.
        lsn: Lsn,
        /// Of which disk.
        disk: DiskIndex,
        /// The bytes of the disk that it holds.
        range: ByteRange,
    },
    /// Blocks of an image.
    Image {
        /// Of which disk.
        disk: DiskIndex,
        /// Which bytes.
        range: ByteRange,
    },
}

/// What a scrub has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Records whose payloads were compared.
    pub records: u64,
    /// Bytes of them.
    pub record_bytes: u64,
    /// Bytes of images that were compared.
    pub image_bytes: u64,
    /// Bytes of images of which nothing was known before (after a first copy): their checksums were
    /// taken now.
    pub adopted_bytes: u64,
    /// What had rotted.
    pub rot: Vec<Rot>,
    /// It came to its end, at this time as the caller counts it; else it goes on where it was.
    pub finished_s: Option<u64>,
}

/// Why a scrub stops before its end.
enum Stop {
    Pace,
    Failed(StorageError),
}

impl<E: Into<StorageError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Replica {
    /// Reads everything that is kept and compares it, going on where an earlier scrub was stopped.
    /// A report without [`ScrubReport::finished_s`] is one that was stopped: by `pace`, or because
    /// the images are being changed. `now_s` is entered at the end.
    ///
    /// # Errors
    /// [`StorageError`]; rot is no error but part of the report.
    pub fn scrub(&self, pace: &dyn FoldPace, now_s: u64) -> Result<ScrubReport, StorageError> {
        let _scrubbing = lock(&self.scrubbing);
        let body = self.body()?;
        let state = body.scrub.clone().unwrap_or_default();
        let mut walk = Walk {
            replica: self,
            pace,
            state: ScrubState { last: state.last.clone(), ..state },
            unsaved: 0,
        };
        match walk.all(&body) {
            Ok(()) => {
                let done = ScrubReport { finished_s: Some(now_s), ..walk.state.so_far };
                let state = ScrubState { last: Some(done.clone()), ..ScrubState::default() };
                self.save_scrub(state, &done.rot)?;
                Ok(done)
            }
            Err(Stop::Pace) => {
                let so_far = walk.state.so_far.clone();
                walk.save()?;
                Ok(so_far)
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The last scrub that came to its end, and the one that has not.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    pub fn scrub_reports(
        &self,
    ) -> Result<(Option<ScrubReport>, Option<ScrubReport>), StorageError> {
        let state = self.body()?.scrub.unwrap_or_default();
        Ok((state.last, state.place.map(|_| state.so_far)))
    }

    /// Notes how far it is; `found` is rotten from now on.
    fn save_scrub(&self, state: ScrubState, found: &[Rot]) -> Result<(), StorageError> {
        let mut core = lock(&self.core);
        let body = core.store.body()?.clone();
        // What is rotten now is also changed by readers and folds, meanwhile.
        let rot = body.scrub.as_ref().map_or_else(Vec::new, |scrub| scrub.rot.clone());
        let rot = rot::with(rot, found.iter().copied());
        core.store.write(Body { scrub: Some(ScrubState { rot, ..state }), ..body })
    }
}

struct Walk<'a> {
    replica: &'a Replica,
    pace: &'a dyn FoldPace,
    state: ScrubState,
    /// Bytes looked at since the place was noted durably.
    unsaved: u64,
}

impl Walk<'_> {
    fn all(&mut self, body: &Body) -> Result<(), Stop> {
        let logs: Vec<LogId> =
            body.logs.iter().filter(|node| !node.dropped).map(|node| node.log).collect();
        let disks: Vec<DiskIndex> = body.disks.iter().map(|disk| disk.index).collect();
        let begun = self.state.place;
        // What lies before the place where it was stopped is done; a log that is gone since then is
        // done too.
        let skip = match begun {
            Some(ScrubPlace::Log { log, .. }) => logs.iter().position(|l| *l == log).unwrap_or(0),
            Some(ScrubPlace::Image { .. }) => logs.len(),
            None => 0,
        };
        for log in logs.into_iter().skip(skip) {
            let after = match begun {
                Some(ScrubPlace::Log { log: at, after }) if at == log => after,
                _ => Lsn::ZERO,
            };
            self.log(log, after)?;
        }
        for disk in disks {
            let from = match begun {
                Some(ScrubPlace::Image { disk: at, .. }) if disk < at => continue,
                Some(ScrubPlace::Image { disk: at, offset }) if at == disk => offset,
                _ => 0,
            };
            self.image(disk, from)?;
        }
        Ok(())
    }

    fn log(&mut self, id: LogId, after: Lsn) -> Result<(), Stop> {
        let log: Option<Arc<Log>> =
            lock(&self.replica.core).log(id).ok().map(|(log, _)| Arc::clone(log));
        let Some(log) = log else { return Ok(()) };
        let mut at = after;
        loop {
            self.state.place = Some(ScrubPlace::Log { log: id, after: at });
            at = at.max(log.base().0);
            let through = log.durable().lsn.min(at.plus(RECORDS_AT_ONCE));
            if through <= at {
                return Ok(());
            }
            let entries = match log.entries(at, through) {
                // Trimmed between the two looks.
                Err(JournalError::Trimmed { .. }) => continue,
                other => other?,
            };
            for entry in entries {
                let bytes = entry.header.payload_len();
                let Some(range) = entry.header.range().filter(|_| bytes > 0) else { continue };
                let after = entry.header.lsn.prev();
                self.state.place = Some(ScrubPlace::Log { log: id, after });
                self.turn(bytes)?;
                match log.read(&entry) {
                    Ok(_) => {}
                    Err(JournalError::Trimmed { .. }) => continue,
                    Err(JournalError::Corrupt { lsn, .. }) => {
                        self.found(Rot::Record { log: id, lsn, disk: entry.header.disk, range });
                    }
                    Err(error) => return Err(error.into()),
                }
                self.state.so_far.records += 1;
                self.state.so_far.record_bytes += bytes;
            }
            at = through;
        }
    }

    fn image(&mut self, disk: DiskIndex, from: u64) -> Result<(), Stop> {
        let mut offset = from;
        loop {
            self.state.place = Some(ScrubPlace::Image { disk, offset });
            self.turn(READ_BYTES)?;
            // Nothing else changes an image that has recovery points.
            let _folding = lock(&self.replica.folding);
            let body = self.replica.body()?;
            let still = body.fold_through.is_none() && body.undo.is_none();
            if body.role == Role::Released || !still || self.replica.newest_legal()?.is_none() {
                return Err(Stop::Pace);
            }
            let (devices, sums) = (self.replica.medium.devices()?, self.replica.medium.sums());
            let Some(device) = devices.get(&disk) else { return Ok(()) };
            let size = body.disk(disk).map_or(0, |disk| disk.geometry.size_bytes);
            let end = device.size().min(size).min(offset + READ_BYTES);
            if offset >= end {
                return Ok(());
            }
            let range = ByteRange { start: offset, end };
            match sums.get(&disk) {
                Some(sums) => self.blocks(disk, &**device, sums, range)?,
                None => self.sealed_blocks(disk, &**device, range)?,
            }
            offset = end;
        }
    }

    fn blocks(
        &mut self,
        disk: DiskIndex,
        device: &dyn BlockDevice,
        sums: &Sums,
        range: ByteRange,
    ) -> Result<(), Stop> {
        let mut content = vec![0; usize::try_from(range.len()).unwrap_or(0)];
        device.read_at(range.start, &mut content).map_err(StorageError::device("read image"))?;
        let mut adopted = NewSums::new();
        let first = range.start / BLOCK_BYTES;
        let blocks = content.chunks(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX));
        for (block, content) in (first..).zip(blocks) {
            let bytes = content.len() as u64;
            let known = sums.get(block)?;
            if known == Sum::UNKNOWN {
                adopted.insert(block, Sum::of(block, content));
                self.state.so_far.adopted_bytes += bytes;
                continue;
            }
            self.state.so_far.image_bytes += bytes;
            if !known.fits(block, content) {
                let start = block * BLOCK_BYTES;
                self.found(Rot::Image { disk, range: ByteRange { start, end: start + bytes } });
            }
        }
        if !adopted.is_empty() {
            sums.set(&adopted)?;
            sums.sync()?;
        }
        Ok(())
    }

    /// Blocks of an image that is sealed: reading them says whether they are what was written.
    fn sealed_blocks(
        &mut self,
        disk: DiskIndex,
        device: &dyn BlockDevice,
        range: ByteRange,
    ) -> Result<(), Stop> {
        let mut buf = vec![0; usize::try_from(range.len()).unwrap_or(0)];
        self.state.so_far.image_bytes += range.len();
        match device.read_at(range.start, &mut buf) {
            Err(DeviceError::Unauthentic { .. }) => {}
            other => return Ok(other.map_err(StorageError::device("read image"))?),
        }
        // Somewhere in it: which blocks?
        let step = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        for (start, block) in (range.start..).step_by(step).zip(buf.chunks_mut(step)) {
            match device.read_at(start, block) {
                Err(DeviceError::Unauthentic { .. }) => {
                    let range = ByteRange { start, end: start + block.len() as u64 };
                    self.found(Rot::Image { disk, range });
                }
                other => other.map_err(StorageError::device("read image"))?,
            }
        }
        Ok(())
    }

    fn found(&mut self, new: Rot) {
        let rot = &mut self.state.so_far.rot;
        if let (Some(Rot::Image { disk, range }), Rot::Image { disk: same, range: next }) =
            (rot.last_mut(), new)
            && (*disk, range.end) == (same, next.start)
        {
            range.end = next.end;
            return;
        }
        if rot.len() < ROT_MAX && !rot.contains(&new) {
            rot.push(new);
        }
    }

    /// Waits for its turn, and notes the place from time to time.
    fn turn(&mut self, bytes: u64) -> Result<(), Stop> {
        if !self.pace.before(bytes) {
            return Err(Stop::Pace);
        }
        self.unsaved += bytes;
        if self.unsaved >= self.pace.checkpoint_bytes() {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), StorageError> {
        self.unsaved = 0;
        self.replica.save_scrub(self.state.clone(), &self.state.so_far.rot)
    }
}
