//! Reading content: who holds it, the payloads of logs, and the image beneath.

use crate::error::{ContentError, StorageError};
use crate::index::{Floor, Held, IndexPool, LogIndex, Scene};
use crate::replica::Rot;
use crate::sums::{BLOCK_BYTES, Sums};
use crate::sync::{lock, read, write};
use bytes::Bytes;
use landfall_blockdev::{BlockDevice, Dir};
use landfall_index::{Holder, PayloadAt};
use landfall_journal::{Entry, JournalError, Location, Log};
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, Lsn, RecordHeader, RecordKind};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};

/// Payloads kept in memory after a piece of them was read: small reads of a large record's
/// neighbors come in a row.
const PAYLOADS_KEPT: usize = 16;

/// Places of rot that readers meet between two looks; the scrub finds the others.
const MET_MAX: usize = 1_024;

/// Times that a block is read before it counts as rotten.
const CHECK_TRIES: u32 = 3;

/// Place of a log in a [`Medium`]'s table: keeps the extents small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Slot(u16);

/// Sizes and sectors of all disks, at one position.
pub(crate) type Geometries = BTreeMap<DiskIndex, DiskGeometry>;

/// The checksums of the images.
pub(crate) type AllSums = BTreeMap<DiskIndex, Arc<Sums>>;

type Devices = BTreeMap<DiskIndex, Arc<dyn BlockDevice>>;

/// Log and position of a record, its first byte on the disk, and what it wrote.
type Payload = (Slot, Lsn, (u64, Bytes));

/// The logs and images of a replica, as far as reading needs them.
#[derive(Debug)]
pub(crate) struct Medium {
    logs: RwLock<Vec<Option<Arc<LogIndex>>>>,
    /// None once the images were handed over.
    devices: RwLock<Option<Arc<Devices>>>,
    sums: RwLock<Arc<AllSums>>,
    /// Held for reading while content is read, for writing while the floor rises and logs are
    /// trimmed: so no reader holds the place of a payload that is being forgotten.
    pub(crate) trims: RwLock<()>,
    payloads: Mutex<VecDeque<Payload>>,
    /// What readers have found rotten, until somebody takes it up.
    met: Mutex<Vec<Rot>>,
    pub(crate) pool: Arc<IndexPool>,
    /// Records up to here are not looked at: the image has them.
    pub(crate) floor: Arc<Floor>,
}

impl Medium {
    /// Without logs and images.
    pub(crate) fn new(pool: Arc<IndexPool>) -> Self {
        Self {
            logs: RwLock::default(),
            devices: RwLock::default(),
            sums: RwLock::default(),
            trims: RwLock::default(),
            payloads: Mutex::default(),
            met: Mutex::default(),
            pool,
            floor: Arc::default(),
        }
    }

    /// Adds a log to the table, and takes up its index in the replica's directory.
    pub(crate) fn add_log(&self, log: Arc<Log>, dir: &Arc<dyn Dir>) -> Result<Slot, StorageError> {
        let slot = {
            let mut logs = write(&self.logs);
            logs.push(None);
            // Slots are never used again; a replica would need 65 536 branches in one run of the
            // process.
            Slot(u16::try_from(logs.len() - 1).expect("fewer than 65 536 logs in one run"))
        };
        let (pool, floor) = (Arc::clone(&self.pool), Arc::clone(&self.floor));
        let index = LogIndex::open(log, slot, Arc::clone(dir), pool, floor)?;
        write(&self.logs)[usize::from(slot.0)] = Some(index);
        Ok(slot)
    }

    /// The index of a log.
    pub(crate) fn index(&self, slot: Slot) -> Result<Arc<LogIndex>, StorageError> {
        let logs = read(&self.logs);
        logs.get(usize::from(slot.0)).cloned().flatten().ok_or(StorageError::LogMissing)
    }

    /// Forgets a log: nothing refers to it any more.
    pub(crate) fn drop_log(&self, slot: Slot) {
        let mut logs = write(&self.logs);
        logs[usize::from(slot.0)] = None;
        drop(logs);
        let mut payloads = lock(&self.payloads);
        payloads.retain(|(kept, _, _)| *kept != slot);
    }

    /// Hands the images in.
    pub(crate) fn set_devices(&self, devices: Option<Devices>) {
        *write(&self.devices) = devices.map(Arc::new);
    }

    /// Hands the images' checksums in.
    pub(crate) fn set_sums(&self, sums: AllSums) {
        *write(&self.sums) = Arc::new(sums);
    }

    /// The images' checksums.
    pub(crate) fn sums(&self) -> Arc<AllSums> {
        Arc::clone(&read(&self.sums))
    }

    /// The images.
    pub(crate) fn devices(&self) -> Result<Arc<Devices>, StorageError> {
        let devices = read(&self.devices);
        devices.clone().ok_or(StorageError::Released)
    }

    /// Makes the images durable.
    pub(crate) fn flush_images(&self) -> Result<(), StorageError> {
        for device in self.devices()?.values() {
            device.flush().map_err(StorageError::device("flush image"))?;
        }
        Ok(())
    }

    /// Fills `buf` with the content that `scene` describes. The caller holds `trims` for reading,
    /// or is the only one that trims.
    pub(crate) fn read(
        &self,
        scene: &Scene,
        geometry: Option<DiskGeometry>,
        (disk, offset): (DiskIndex, u64),
        buf: &mut [u8],
    ) -> Result<(), ContentError> {
        let size = geometry.ok_or(ContentError::UnknownDisk(disk))?.size_bytes;
        let range = within(offset, buf.len() as u64, size)?;
        for (piece, held) in scene.pieces(disk, range)? {
            let from =
                usize::try_from(piece.start - offset).expect("a piece lies within the buffer");
            let to = usize::try_from(piece.end - offset).expect("a piece lies within the buffer");
            let out = &mut buf[from..to];
            match held {
                None => self.read_image(disk, piece.start, out)?,
                Some(held) => match self.payload(disk, &held)? {
                    None => out.fill(0),
                    Some((start, bytes)) => {
                        let skip = usize::try_from(piece.start - start)
                            .expect("a piece lies within its record");
                        out.copy_from_slice(&bytes[skip..skip + out.len()]);
                    }
                },
            }
        }
        Ok(())
    }

    /// A record's first byte on the disk, and its payload; `None` for one that says "reads as
    /// zeroes".
    pub(crate) fn payload(
        &self,
        disk: DiskIndex,
        held: &Held,
    ) -> Result<Option<(u64, Bytes)>, StorageError> {
        let Held { holder: Holder { lsn, .. }, slot } = *held;
        let kept = {
            let payloads = lock(&self.payloads);
            payloads.iter().find(|kept| (kept.0, kept.1) == (slot, lsn)).map(|kept| kept.2.clone())
        };
        if kept.is_some() {
            return Ok(kept);
        }
        let Some(found) = self.read_payload(disk, held)? else { return Ok(None) };
        let mut payloads = lock(&self.payloads);
        payloads.push_back((slot, lsn, found.clone()));
        if payloads.len() > PAYLOADS_KEPT {
            payloads.pop_front();
        }
        Ok(Some(found))
    }

    /// As [`Medium::payload`], always from the log: a fold reads each record once, and must not
    /// push out what readers want.
    pub(crate) fn read_payload(
        &self,
        disk: DiskIndex,
        held: &Held,
    ) -> Result<Option<(u64, Bytes)>, StorageError> {
        let Held { holder: Holder { lsn, payload }, slot } = *held;
        let Some(payload) = payload else { return Ok(None) };
        // The log checks length and CRC: a slice of it can be taken.
        let index = self.index(slot)?;
        let bytes = index.log.read(&entry(disk, lsn, &payload)).inspect_err(|error| {
            if let JournalError::Corrupt { .. } = error {
                let (start, length) = (payload.record_start, u64::from(payload.record_length));
                let range = ByteRange { start, end: start + length };
                self.meet(Rot::Record { log: index.log.id(), lsn, disk, range });
            }
        })?;
        Ok(Some((payload.record_start, bytes)))
    }

    /// A reader has met rot: it is refused there, and whoever asks the source wants to know.
    fn meet(&self, rot: Rot) {
        let mut met = lock(&self.met);
        if met.len() < MET_MAX && !met.contains(&rot) {
            met.push(rot);
        }
    }

    /// What readers have found rotten since the last call.
    pub(crate) fn take_met(&self) -> Vec<Rot> {
        std::mem::take(&mut *lock(&self.met))
    }

    /// What lies beyond the image's end reads as zeroes: the disk grew, and nothing was folded
    /// there yet.
    fn read_image(&self, disk: DiskIndex, offset: u64, out: &mut [u8]) -> Result<(), ContentError> {
        let devices = self.devices()?;
        let device = devices.get(&disk).ok_or(ContentError::UnknownDisk(disk))?;
        let kept = device.size().saturating_sub(offset).min(out.len() as u64);
        let kept = usize::try_from(kept).expect("no longer than the buffer");
        let (inside, beyond) = out.split_at_mut(kept);
        beyond.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        match self.sums().get(&disk) {
            Some(sums) => read_checked(disk, &**device, sums, offset, inside),
            None => device.read_at(offset, inside).map_err(StorageError::image(disk)),
        }
        .inspect_err(|error| {
            if let StorageError::Rot { disk, offset } = *error {
                let end = device.size().min(offset + BLOCK_BYTES);
                self.meet(Rot::Image { disk, range: ByteRange { start: offset, end } });
            }
        })?;
        Ok(())
    }
}

/// The record that the index names, as its log knows it.
fn entry(disk: DiskIndex, lsn: Lsn, payload: &PayloadAt) -> Entry {
    let header = RecordHeader {
        kind: RecordKind::Write,
        catch_up: payload.catch_up,
        disk,
        payload_crc: payload.crc,
        lsn,
        offset: payload.record_start,
        length: payload.record_length.into(),
    };
    Entry { header, location: Location::from_parts(payload.segment, payload.at) }
}

/// The range cut into stretches: true where a record says that it reads as zeroes. Where that can't
/// be read, nothing is known to.
pub(crate) fn zeroes(scene: &Scene, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
    let zero = |held: Option<Held>| held.is_some_and(|held| held.holder.payload.is_none());
    let pieces = scene.pieces(disk, range).inspect_err(|error| {
        tracing::warn!(%disk, %error, "what reads as zeroes can't be told");
    });
    let mut out: Vec<(ByteRange, bool)> = Vec::new();
    for (piece, held) in pieces.unwrap_or_else(|_| vec![(range, None)]) {
        match out.last_mut() {
            Some((last, same)) if *same == zero(held) => last.end = piece.end,
            _ => out.push((piece, zero(held))),
        }
    }
    out
}

/// Reads from an image, and compares the blocks with their checksums: rot is never served (promise
/// P5).
fn read_checked(
    disk: DiskIndex,
    device: &dyn BlockDevice,
    sums: &Sums,
    offset: u64,
    out: &mut [u8],
) -> Result<(), StorageError> {
    let first = offset / BLOCK_BYTES;
    let start = first * BLOCK_BYTES;
    let end = (offset + out.len() as u64).next_multiple_of(BLOCK_BYTES).min(device.size());
    let in_memory = |bytes: u64| usize::try_from(bytes).expect("hardly more than the buffer");
    let whole = start == offset && end == offset + out.len() as u64;
    let mut bounce = if whole { vec![] } else { vec![0; in_memory(end - start)] };
    let mut wrong = None;
    // Content and checksum are not read at one moment: a fold can end between the two.
    for _ in 0..CHECK_TRIES {
        let content = if whole { &mut *out } else { &mut bounce[..] };
        device.read_at(start, content).map_err(StorageError::device("read image"))?;
        wrong = sums.check(first, content)?;
        if wrong.is_none() {
            break;
        }
    }
    if let Some(block) = wrong {
        return Err(StorageError::Rot { disk, offset: block * BLOCK_BYTES });
    }
    if !whole {
        let skip = in_memory(offset - start);
        out.copy_from_slice(&bounce[skip..skip + out.len()]);
    }
    Ok(())
}

/// The range, if it lies within a disk of this size.
pub(crate) fn within(offset: u64, length: u64, size: u64) -> Result<ByteRange, ContentError> {
    match ByteRange::at(offset, length) {
        Some(range) if range.end <= size => Ok(range),
        _ => Err(ContentError::OutOfRange { offset, length, size }),
    }
}
