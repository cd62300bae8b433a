//! Folding with the overwritten content kept, and putting it back. File format:
//! `docs/formats/volume.md`.

use super::Replica;
use crate::body::{Body, UndoEntry, UndoPhase};
use crate::error::{FoldError, StorageError};
use crate::frame::{FRAME_HEADER_BYTES, seal, unseal};
use crate::index::Held;
use crate::replica::fold::{Extent, Plan, Unpaced};
use crate::sums::{BLOCK_BYTES, Sum};
use crate::sync::{lock, write};
use landfall_blockdev::{BlockDevice, File};
use landfall_crypt::{DataKey, SEAL_BYTES};
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::borrow::Cow;
use std::sync::Arc;

const ENTRY_MAGIC: &[u8; 8] = b"LFUNDOEN";
const END_MAGIC: &[u8; 8] = b"LFUNDOED";
/// Bytes of old content per entry: below the frame's limit, and a good size for reading.
const ENTRY_BYTES: u64 = 1 << 20;
/// Bytes before the old content in an entry's body: disk (4), CRC-32C of the new content (4),
/// offset (8), length (8).
const ENTRY_HEADER_BYTES: usize = 24;

/// One stretch of old content.
struct Saved {
    disk: DiskIndex,
    offset: u64,
    /// CRC-32C of what the fold writes there.
    new_crc: u32,
    old: Vec<u8>,
}

impl Saved {
    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(ENTRY_HEADER_BYTES + self.old.len());
        body.extend_from_slice(&u32::from(self.disk.0).to_le_bytes());
        body.extend_from_slice(&self.new_crc.to_le_bytes());
        body.extend_from_slice(&self.offset.to_le_bytes());
        body.extend_from_slice(&(self.old.len() as u64).to_le_bytes());
        // Old content of zeroes (a fresh disk) takes no room: an entry without bytes means zeroes.
        if self.old.iter().any(|byte| *byte != 0) {
            body.extend_from_slice(&self.old);
        }
        body
    }

    fn from_body(body: &[u8]) -> Option<Self> {
        let header = body.get(..ENTRY_HEADER_BYTES)?;
        let word = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let long = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let length = usize::try_from(long(16)?.min(ENTRY_BYTES + 1)).ok()?;
        let bytes = &body[ENTRY_HEADER_BYTES..];
        let old = match bytes.len() {
            0 => vec![0; length],
            found if found == length => bytes.to_vec(),
            _ => return None,
        };
        let disk = DiskIndex(u16::try_from(word(0)?).ok()?);
        Some(Self { disk, offset: long(8)?, new_crc: word(4)?, old })
    }
}

/// How entries stand in an undo file: as they are, or sealed.
struct UndoCover<'a> {
    key: Option<DataKey>,
    /// Of the file, which names the position: no entry of another undo is taken for one of it.
    name: &'a str,
}

impl UndoCover<'_> {
    fn context(&self, count: u64) -> Vec<u8> {
        [b"undo", self.name.as_bytes(), &count.to_le_bytes()].concat()
    }

    fn cover(&self, count: u64, body: Vec<u8>) -> Result<Vec<u8>, StorageError> {
        let Some(key) = &self.key else { return Ok(body) };
        Ok(key.batch()?.sealed(&self.context(count), &body))
    }

    fn open<'b>(&self, count: u64, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let Some(key) = &self.key else { return Some(Cow::Borrowed(body)) };
        let mut body = body.to_vec();
        let open = key.open(&self.context(count), &mut body).ok()?.to_vec();
        Some(Cow::Owned(open))
    }
}

impl Replica {
    /// Like [`Replica::fold`], with the old content of everything that is overwritten saved and
    /// durable before the first block is. Records are kept. Cut off earlier: goes on. Returns the
    /// bytes written.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn fold_with_undo(&self, to: Lsn) -> Result<u64, FoldError> {
        let _folding = lock(&self.folding);
        let body = self.body().map_err(FoldError::Storage)?;
        match &body.undo {
            Some(undo) if undo.phase == UndoPhase::Saved && body.horizon() == to => {
                let bytes = undo.folded_bytes;
                if body.fold_through.is_some() {
                    self.copy_records(to, &Unpaced, false)?;
                    self.end_fold(to)?;
                }
                return Ok(bytes);
            }
            Some(_) => return Err(FoldError::UndoKept),
            None => self.check_fold(&body, to)?,
        }
        let plan = self.plan(to)?;
        let folded_bytes = plan.total_bytes();
        let file = format!("undo-{to}");
        self.save_old(&plan, &file)?;
        {
            let mut core = lock(&self.core);
            let body = core.store.body()?.clone();
            self.check_fold(&body, to)?;
            let undo = UndoEntry {
                file,
                from: body.folded,
                base: body.base,
                phase: UndoPhase::Saved,
                folded_bytes,
                geometry: body.disks.iter().map(|disk| (disk.index, disk.geometry)).collect(),
            };
            // One version says both: that the image becomes a mix, and where the way back is.
            let (fold_through, undo) = (Some(to), Some(undo));
            core.store.write(Body { fold_through, fold_done: None, undo, ..body })?;
        }
        self.copy_records(to, &Unpaced, true)?;
        self.end_fold(to)?;
        Ok(folded_bytes)
    }

    /// Puts the old content back; the image is where it was before the fold with undo. Cut off:
    /// goes on.
    ///
    /// # Errors
    /// [`FoldError::NoUndo`]; [`FoldError::ForeignWrite`] when a block holds neither what the fold
    /// wrote nor what was there before (nothing is changed then); storage errors.
    pub fn undo(&self) -> Result<(), FoldError> {
        self.undo_and(|_| {})
    }

    /// As [`Replica::undo`]; `also` changes what else holds from the same moment on.
    pub(super) fn undo_and(&self, also: impl FnOnce(&mut Body)) -> Result<(), FoldError> {
        let _folding = lock(&self.folding);
        let body = self.body()?;
        let undo = body.undo.clone().ok_or(FoldError::NoUndo)?;
        let file = self.dir.open(&undo.file).map_err(StorageError::device("open undo file"))?;
        let cover = UndoCover { key: self.dir.data_key(), name: &undo.file };
        let from = (&*file, &cover);
        let devices = self.medium.devices()?;
        let device = |disk| devices.get(&disk).ok_or(StorageError::UnknownDisk(disk));
        if undo.phase == UndoPhase::Saved && body.fold_through.is_none() {
            // Not where the fold itself was cut off: its own torn blocks look like anything, and
            // nobody else has had the disks yet. The whole file is read before anything is changed:
            // a damaged one, or a disk that the machine has written (trap T-13), leaves all as it
            // is.
            each_saved(from, |saved| {
                let mut now = vec![0; saved.old.len()];
                let found = device(saved.disk)?.read_at(saved.offset, &mut now);
                found.map_err(StorageError::image(saved.disk))?;
                if now != saved.old && crc32c::crc32c(&now) != saved.new_crc {
                    return Err(FoldError::ForeignWrite { disk: saved.disk, offset: saved.offset });
                }
                Ok(())
            })?;
        }
        if undo.phase == UndoPhase::Saved {
            // Until here a damaged file leaves all as it is.
            each_saved(from, |_| Ok(()))?;
            let undo = UndoEntry { phase: UndoPhase::Undoing, ..undo.clone() };
            lock(&self.core).store.write(Body { undo: Some(undo), ..body })?;
        }
        self.forget_sums(from)?;
        each_saved(from, |saved| {
            // What was a hole becomes one again.
            let put = if saved.old.iter().all(|byte| *byte == 0) {
                device(saved.disk)?.zero(saved.offset, saved.old.len() as u64)
            } else {
                device(saved.disk)?.write_at(saved.offset, &saved.old)
            };
            Ok(put.map_err(StorageError::device("put old content back"))?)
        })?;
        self.medium.flush_images()?;
        self.end_undo(&undo, also)?;
        self.dir.remove(&undo.file).map_err(StorageError::device("remove undo file"))?;
        Ok(())
    }

    /// Nothing is known any more of what the undo will write: durably, before it does. The next
    /// scrub takes the checksums anew.
    fn forget_sums(&self, from: (&dyn File, &UndoCover<'_>)) -> Result<(), FoldError> {
        let all = self.medium.sums();
        each_saved(from, |saved| {
            let Some(sums) = all.get(&saved.disk) else { return Ok(()) };
            let end = saved.offset + saved.old.len() as u64;
            let blocks = saved.offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
            Ok(sums.set(&blocks.map(|block| (block, Sum::UNKNOWN)).collect())?)
        })?;
        Ok(all.values().try_for_each(|sums| sums.sync())?)
    }

    fn end_undo(&self, undo: &UndoEntry, also: impl FnOnce(&mut Body)) -> Result<(), StorageError> {
        // No map may be built or read between the two: the records up to where the image was are
        // needed again.
        let _trims = write(&self.medium.trims);
        let mut core = lock(&self.core);
        let body = core.store.body()?.clone();
        let mut body = Body {
            undo: None,
            fold_through: None,
            fold_done: None,
            folded: undo.from,
            base: undo.base,
            ..body
        };
        // The sizes of then, too: a disk that grew in between would show its points with the size
        // of now (trap T-9).
        for (disk, geometry) in &undo.geometry {
            let kept = body.disks.iter_mut().find(|kept| kept.index == *disk);
            if let Some(kept) = kept {
                kept.geometry = *geometry;
            }
        }
        also(&mut body);
        core.store.write(body.clone())?;
        let line = self.line();
        // Who holds the content needs no change: while undo is kept the records say it, whatever
        // the image holds.
        *write(&line.timeline) = core.timeline(&body, body.log, line.log.tail().lsn)?;
        Ok(())
    }

    /// Saves what the image holds where `plan` will be written, durably.
    fn save_old(&self, plan: &Plan, name: &str) -> Result<(), FoldError> {
        let device_error = || StorageError::device("write undo file");
        // An attempt that was cut off before it was entered into the superblock.
        if self.dir.list().map_err(device_error())?.iter().any(|kept| kept == name) {
            self.dir.remove(name).map_err(device_error())?;
        }
        let file = self.dir.create(name).map_err(device_error())?;
        let cover = UndoCover { key: self.dir.data_key(), name };
        let devices = self.medium.devices()?;
        let mut at = 0;
        let mut count = 0;
        for extent in plan.extents(None) {
            let Extent { disk, range, held } = extent?;
            let device = devices.get(&disk).ok_or(StorageError::UnknownDisk(disk))?;
            // A block beyond the image's end has no old content: the image only grew (our own
            // files).
            let range = ByteRange { end: range.end.min(device.size()), ..range };
            for piece in chunks(range) {
                let saved = self.saved(disk, device, piece, &held)?;
                let frame = seal(ENTRY_MAGIC, count, &cover.cover(count, saved.body())?);
                file.write_at(at, &frame).map_err(device_error())?;
                at += frame.len() as u64;
                count += 1;
            }
        }
        file.write_at(at, &seal(END_MAGIC, count, &[])).map_err(device_error())?;
        file.sync_data().map_err(device_error())?;
        self.dir.sync().map_err(device_error())?;
        Ok(())
    }

    fn saved(
        &self,
        disk: DiskIndex,
        device: &Arc<dyn BlockDevice>,
        piece: ByteRange,
        held: &Held,
    ) -> Result<Saved, StorageError> {
        let length = usize::try_from(piece.len()).expect("at most 1 MiB");
        let mut old = vec![0; length];
        device.read_at(piece.start, &mut old).map_err(StorageError::image(disk))?;
        let new_crc = match self.medium.payload(disk, held)? {
            None => crc32c::crc32c(&vec![0; length]),
            Some((first, bytes)) => {
                let at = usize::try_from(piece.start - first).expect("within the record");
                crc32c::crc32c(&bytes[at..at + length])
            }
        };
        Ok(Saved { disk, offset: piece.start, new_crc, old })
    }
}

fn chunks(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let starts =
        (0..).map(move |n| range.start + n * ENTRY_BYTES).take_while(move |at| *at < range.end);
    starts.map(move |start| ByteRange { start, end: range.end.min(start + ENTRY_BYTES) })
}

/// Calls `each` for every entry; an undo file that does not end as written is refused.
fn each_saved(
    (file, cover): (&dyn File, &UndoCover<'_>),
    mut each: impl FnMut(&Saved) -> Result<(), FoldError>,
) -> Result<(), FoldError> {
    let device_error = || StorageError::device("read undo file");
    let length = file.len().map_err(device_error())?;
    let mut at = 0;
    for count in 0.. {
        let most = (FRAME_HEADER_BYTES + ENTRY_HEADER_BYTES + SEAL_BYTES) as u64 + ENTRY_BYTES;
        let mut bytes = vec![0; usize::try_from(most.min(length - at)).expect("about 1 MiB")];
        file.read_at(at, &mut bytes).map_err(device_error())?;
        if unseal(END_MAGIC, &bytes).is_ok_and(|(sequence, _)| sequence == count) {
            return Ok(());
        }
        let entry = unseal(ENTRY_MAGIC, &bytes).ok().filter(|(sequence, _)| *sequence == count);
        let (_, body) = entry.ok_or(StorageError::UndoDamaged)?;
        let open = cover.open(count, body);
        let saved = open.and_then(|open| Saved::from_body(&open));
        each(&saved.ok_or(StorageError::UndoDamaged)?)?;
        at += (FRAME_HEADER_BYTES + body.len()) as u64;
    }
    Err(FoldError::Storage(StorageError::UndoDamaged))
}
