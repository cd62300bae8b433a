//! Reading content: from an extent map, the payloads of logs, and the image beneath.

use crate::error::{ContentError, StorageError};
use crate::extent::ExtentMap;
use crate::sync::{lock, read, write};
use bytes::Bytes;
use landfall_blockdev::BlockDevice;
use landfall_journal::{Entry, Log};
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, Lsn, RecordHeader, RecordKind};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};

/// Payloads kept in memory after a piece of them was read: small reads of a large record's
/// neighbors come in a row.
const PAYLOADS_KEPT: usize = 16;

/// Place of a log in a [`Medium`]'s table: keeps the extents small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Slot(u16);

/// What holds a stretch of a disk newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// The record.
    pub(crate) lsn: Lsn,
    /// Its log; `None`: it says "reads as zeroes", there are no bytes.
    pub(crate) payload: Option<Slot>,
}

/// The newest holder of every byte of one disk, and its size there.
#[derive(Clone, Debug)]
pub(crate) struct DiskMap {
    pub(crate) extents: ExtentMap<Holder>,
    pub(crate) geometry: DiskGeometry,
}

/// Of all disks, at one position of one history.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskMaps(BTreeMap<DiskIndex, DiskMap>);

impl DiskMaps {
    /// Nothing but the image.
    pub(crate) fn new(disks: impl IntoIterator<Item = (DiskIndex, DiskGeometry)>) -> Self {
        let empty = |(disk, geometry)| (disk, DiskMap { extents: ExtentMap::default(), geometry });
        Self(disks.into_iter().map(empty).collect())
    }

    /// Follows one record; control records are no content.
    pub(crate) fn insert(&mut self, slot: Slot, header: &RecordHeader) -> Result<(), StorageError> {
        let Some(range) = header.range() else { return Ok(()) };
        let disk = self.0.get_mut(&header.disk);
        let disk = disk.ok_or(StorageError::UnknownDisk(header.disk))?;
        let payload = (header.kind == RecordKind::Write).then_some(slot);
        disk.extents.insert(range, Holder { lsn: header.lsn, payload });
        Ok(())
    }

    /// Forgets what the image holds now.
    pub(crate) fn prune(&mut self, folded: Lsn) {
        for disk in self.0.values_mut() {
            disk.extents.retain(|holder| holder.lsn > folded);
        }
    }

    /// One disk.
    pub(crate) fn disk(&self, disk: DiskIndex) -> Option<&DiskMap> {
        self.0.get(&disk)
    }

    /// A disk's size changes.
    pub(crate) fn set_geometry(&mut self, disk: DiskIndex, geometry: DiskGeometry) {
        if let Some(disk) = self.0.get_mut(&disk) {
            disk.geometry = geometry;
        }
    }

    /// The range cut into stretches: true where a record says that it reads as zeroes.
    pub(crate) fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        let Some(map) = self.disk(disk) else { return vec![] };
        let zero = |holder: Option<Holder>| holder.is_some_and(|holder| holder.payload.is_none());
        let mut out: Vec<(ByteRange, bool)> = Vec::new();
        for (piece, holder) in map.extents.pieces(range) {
            match out.last_mut() {
                Some((last, same)) if *same == zero(holder) => last.end = piece.end,
                _ => out.push((piece, zero(holder))),
            }
        }
        out
    }

    /// All disks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DiskIndex, &DiskMap)> {
        self.0.iter().map(|(index, disk)| (*index, disk))
    }
}

type Devices = BTreeMap<DiskIndex, Arc<dyn BlockDevice>>;

/// The logs and images of a replica, as far as reading needs them.
#[derive(Debug, Default)]
pub(crate) struct Medium {
    logs: RwLock<Vec<Option<Arc<Log>>>>,
    /// None once the images were handed over.
    devices: RwLock<Option<Arc<Devices>>>,
    /// Held for reading while content is read or a map is built, for writing while maps are pruned
    /// and logs trimmed: so no reader holds the place of a payload that is being forgotten.
    pub(crate) trims: RwLock<()>,
    /// With each record's first byte on the disk.
    payloads: Mutex<VecDeque<(Slot, Lsn, (u64, Bytes))>>,
}

impl Medium {
    /// Adds a log to the table.
    pub(crate) fn add_log(&self, log: Arc<Log>) -> Slot {
        let mut logs = write(&self.logs);
        logs.push(Some(log));
        // Slots are never used again; a replica would need 65 536 branches in one run of the
        // process.
        Slot(u16::try_from(logs.len() - 1).expect("fewer than 65 536 logs are opened in one run"))
    }

    /// Forgets a log: nothing refers to it any more.
    pub(crate) fn drop_log(&self, slot: Slot) {
        let mut logs = write(&self.logs);
        logs[usize::from(slot.0)] = None;
        drop(logs);
        let mut payloads = lock(&self.payloads);
        payloads.retain(|(kept, _, _)| *kept != slot);
    }

    fn log(&self, slot: Slot) -> Result<Arc<Log>, StorageError> {
        let logs = read(&self.logs);
        logs.get(usize::from(slot.0)).cloned().flatten().ok_or(StorageError::LogMissing)
    }

    /// Hands the images in.
    pub(crate) fn set_devices(&self, devices: Option<Devices>) {
        *write(&self.devices) = devices.map(Arc::new);
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

    /// Fills `buf` with the content that `maps` describes. The caller holds `trims` for reading, or
    /// is the only one that trims.
    pub(crate) fn read(
        &self,
        maps: &RwLock<DiskMaps>,
        disk: DiskIndex,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), ContentError> {
        let length = buf.len() as u64;
        let pieces = {
            let maps = read(maps);
            let map = maps.disk(disk).ok_or(ContentError::UnknownDisk(disk))?;
            let range = within(offset, length, map.geometry.size_bytes)?;
            map.extents.pieces(range)
        };
        for (piece, holder) in pieces {
            let from =
                usize::try_from(piece.start - offset).expect("a piece lies within the buffer");
            let to = usize::try_from(piece.end - offset).expect("a piece lies within the buffer");
            let out = &mut buf[from..to];
            match holder {
                None => self.read_image(disk, piece.start, out)?,
                Some(Holder { payload: None, .. }) => out.fill(0),
                Some(Holder { lsn, payload: Some(slot) }) => {
                    let (start, bytes) = self.payload(slot, lsn)?;
                    let skip = usize::try_from(piece.start - start)
                        .expect("a piece lies within its record");
                    out.copy_from_slice(&bytes[skip..skip + out.len()]);
                }
            }
        }
        Ok(())
    }

    /// A record's first byte on the disk, and its payload.
    pub(crate) fn payload(&self, slot: Slot, lsn: Lsn) -> Result<(u64, Bytes), StorageError> {
        let kept = {
            let payloads = lock(&self.payloads);
            payloads.iter().find(|kept| (kept.0, kept.1) == (slot, lsn)).map(|kept| kept.2.clone())
        };
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let (offset, bytes) = self.read_payload(slot, lsn)?;
        let mut payloads = lock(&self.payloads);
        payloads.push_back((slot, lsn, (offset, bytes.clone())));
        if payloads.len() > PAYLOADS_KEPT {
            payloads.pop_front();
        }
        Ok((offset, bytes))
    }

    /// As [`Medium::payload`], always from the log: a fold reads each record once, and must not
    /// push out what readers want.
    pub(crate) fn read_payload(&self, slot: Slot, lsn: Lsn) -> Result<(u64, Bytes), StorageError> {
        let log = self.log(slot)?;
        let entry: Entry =
            *log.entries(lsn.prev(), lsn)?.first().ok_or(StorageError::LogMissing)?;
        let bytes = log.read(&entry)?;
        // The log has checked the CRC; the length decides whether a slice of it can be taken at
        // all.
        if bytes.len() as u64 != entry.header.length {
            return Err(StorageError::LogMissing);
        }
        Ok((entry.header.offset, bytes))
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
        device.read_at(offset, inside).map_err(StorageError::device("read image"))?;
        Ok(())
    }
}

/// The range, if it lies within a disk of this size.
pub(crate) fn within(offset: u64, length: u64, size: u64) -> Result<ByteRange, ContentError> {
    match ByteRange::at(offset, length) {
        Some(range) if range.end <= size => Ok(range),
        _ => Err(ContentError::OutOfRange { offset, length, size }),
    }
}
