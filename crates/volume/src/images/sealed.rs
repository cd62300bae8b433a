//! An image whose blocks are sealed one by one. The sealed blocks lie in the image's own file, at
//! the places that they have on the disk; what each was sealed with stands in pages of a file of
//! the replica. Normative, with the argument for power cuts: `docs/formats/sealed.md`.
//!
//! ```text
//!   write of whole blocks ──► sealed, in place at once      new seals in memory
//!   write of a part       ──► the whole block in memory
//!   flush                 ──► intent (pages and blocks as they will be), synced
//!                             ──► the same in place, synced
//! ```
//!
//! A block that is written in part is never overwritten before the intent that holds all of it is
//! durable: what was not written of it survives any cut. A block that is written whole may be lost
//! until the next flush has ended, as the contract of [`BlockDevice::write_at`] allows: whoever
//! wrote it writes it again (a fold, a first copy and an undo go on after a cut before anything is
//! read).

mod intent;
mod pages;
mod state;

use self::pages::{BLOCK_BYTES, Seal, SealedSums};
use self::state::{Known, State};
use crate::sync::{lock, read, write};
use landfall_blockdev::{AlignedBuf, BlockDevice, DeviceError, Dir};
use landfall_crypt::DataKey;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock};

/// Smallest part of a block that can be known while the rest is lost.
const SECTOR_BYTES: u64 = 512;
const BLOCK: usize = BLOCK_BYTES as usize;
/// Blocks that are sealed and written at once.
const RUN_BLOCKS: u64 = 256;

/// A sealed image.
pub(crate) struct SealedImage {
    /// Held for reading while blocks and their seals are read, for writing while either changes.
    /// Before `state`.
    raw: RwLock<Arc<dyn BlockDevice>>,
    state: Mutex<State>,
    key: DataKey,
    disk: u16,
    target: String,
}

impl fmt::Debug for SealedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedImage").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Bytes of the file under an image of this size.
pub(crate) const fn raw_bytes(size_bytes: u64) -> u64 {
    size_bytes.next_multiple_of(BLOCK_BYTES)
}

impl SealedImage {
    /// Makes the seals of a new image that reads as zeroes; their files' names are durable with the
    /// next sync of the directory. Those of an attempt that was cut off are replaced.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub(crate) fn create(
        dir: &dyn Dir,
        key: &DataKey,
        disk: u16,
        size_bytes: u64,
    ) -> Result<(), DeviceError> {
        SealedSums::create(dir, key, disk, size_bytes)
    }

    /// An image and its seals. What a flush had begun is finished.
    ///
    /// # Errors
    /// [`DeviceError::Unauthentic`] where the seals are not what was written; others.
    pub(crate) fn open(
        dir: &dyn Dir,
        key: &DataKey,
        disk: u16,
        raw: Arc<dyn BlockDevice>,
        target: &str,
    ) -> Result<Self, DeviceError> {
        let state = State::open(dir, key, disk, &*raw)?;
        Ok(Self {
            raw: RwLock::new(raw),
            state: Mutex::new(state),
            key: key.clone(),
            disk,
            target: target.to_owned(),
        })
    }

    /// The image has become longer: `raw` is its file, and what is new reads as zeroes. Durable
    /// when this returns.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub(crate) fn grow(&self, raw: Arc<dyn BlockDevice>, size: u64) -> Result<(), DeviceError> {
        let mut held = write(&self.raw);
        *held = raw;
        let mut state = lock(&self.state);
        state.grow(size)?;
        state.commit(&**held, &self.key)
    }

    fn unauthentic(&self, block: u64) -> DeviceError {
        DeviceError::Unauthentic { target: self.target.clone(), offset: block * BLOCK_BYTES }
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let size = self.size();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => {
                let target = self.target.clone();
                Err(DeviceError::OutOfRange { target, offset, length, size })
            }
        }
    }

    /// Blocks as they are, by what is known of them. `lost` is told which sectors of a block can't
    /// be had.
    fn load(
        &self,
        raw: &dyn BlockDevice,
        blocks: Range<u64>,
        out: &mut [u8],
        mut lost: impl FnMut(u64, u8),
    ) -> Result<(), DeviceError> {
        let known = lock(&self.state).known(blocks.clone(), &self.key)?;
        let mut number = 0;
        while number < known.len() {
            let run = known[number..].iter().take_while(|k| matches!(k, Known::Sealed(_))).count();
            let at = number * BLOCK;
            if run > 0 {
                let first = blocks.start + number as u64;
                raw.read_at(first * BLOCK_BYTES, &mut out[at..at + run * BLOCK])?;
            }
            for (step, known) in known[number..number + run.max(1)].iter().enumerate() {
                let block = blocks.start + (number + step) as u64;
                let out = &mut out[at + step * BLOCK..][..BLOCK];
                match known {
                    Known::Zero => out.fill(0),
                    Known::Pending(pending) => {
                        out.copy_from_slice(&*pending.content);
                        lost(block, pending.lost);
                    }
                    Known::Sealed(seal) => {
                        let context = pages::block_context(self.disk, block);
                        match self.key.open_apart(&context, &seal.seal, out) {
                            Ok(()) => lost(block, seal.lost),
                            Err(_) => {
                                out.fill(0);
                                lost(block, u8::MAX);
                            }
                        }
                    }
                }
            }
            number += run.max(1);
        }
        Ok(())
    }

    /// Seals whole blocks and writes them in place.
    fn write_whole(&self, first: u64, content: &[u8]) -> Result<(), DeviceError> {
        let no_bits = |_| DeviceError::NoRandomness { target: self.target.clone() };
        let mut batch = self.key.batch().map_err(no_bits)?;
        let mut out = AlignedBuf::zeroed(content.len());
        out.copy_from_slice(content);
        let mut seals = Vec::with_capacity(content.len() / BLOCK);
        for (block, content) in (first..).zip(out.chunks_mut(BLOCK)) {
            let seal = batch.seal_apart(&pages::block_context(self.disk, block), content);
            seals.push(Seal { lost: 0, seal });
        }
        let raw = write(&self.raw);
        let mut state = lock(&self.state);
        state.check_poison(&self.target)?;
        raw.write_at(first * BLOCK_BYTES, &out)?;
        state.set_sealed(first, &seals, &self.key)?;
        state.bound(&**raw, &self.key)
    }

    /// Changes a part of a block, in memory.
    fn write_part(&self, block: u64, at: u64, content: &[u8]) -> Result<(), DeviceError> {
        let raw = write(&self.raw);
        let (mut whole, mut missing) = (Box::new([0; BLOCK]), 0);
        self.load(&**raw, block..block + 1, &mut *whole, |_, lost| missing = lost)?;
        let start = usize::try_from(at).expect("within a block");
        whole[start..start + content.len()].copy_from_slice(content);
        missing &= !covered(at, content.len() as u64);
        let mut state = lock(&self.state);
        state.check_poison(&self.target)?;
        state.set_pending(block, whole, missing);
        state.bound(&**raw, &self.key)
    }

    fn zero_whole(&self, blocks: Range<u64>) -> Result<(), DeviceError> {
        let raw = write(&self.raw);
        let mut state = lock(&self.state);
        state.check_poison(&self.target)?;
        raw.zero(blocks.start * BLOCK_BYTES, (blocks.end - blocks.start) * BLOCK_BYTES)?;
        let mut at = blocks.start;
        while at < blocks.end {
            at = state.set_zero(at..blocks.end, &self.key)?;
            state.bound(&**raw, &self.key)?;
        }
        Ok(())
    }
}

/// The sectors of a block that lie whole within a part of it.
fn covered(at: u64, length: u64) -> u8 {
    let (first, end) = (at.div_ceil(SECTOR_BYTES), (at + length) / SECTOR_BYTES);
    (first..end).fold(0, |mask, sector| mask | 1 << sector)
}

/// The sectors of a block that a part of it touches.
fn touched(at: u64, length: u64) -> u8 {
    (at / SECTOR_BYTES..(at + length).div_ceil(SECTOR_BYTES)).fold(0, |mask, s| mask | 1 << s)
}

/// A range cut at blocks: a part of the first, whole ones, a part of the last; each may be missing.
fn cut(offset: u64, length: u64) -> (Option<Range<u64>>, Range<u64>, Option<Range<u64>>) {
    let end = offset + length;
    let (whole_from, whole_to) =
        (offset.next_multiple_of(BLOCK_BYTES), end / BLOCK_BYTES * BLOCK_BYTES);
    if whole_from > whole_to {
        return (Some(offset..end), 0..0, None);
    }
    let head = (offset < whole_from).then_some(offset..whole_from);
    let tail = (whole_to < end).then_some(whole_to..end);
    (head, whole_from..whole_to, tail)
}

impl BlockDevice for SealedImage {
    fn size(&self) -> u64 {
        lock(&self.state).size()
    }

    fn sector_bytes(&self) -> u32 {
        read(&self.raw).sector_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.check(offset, buf.len() as u64)?;
        let raw = read(&self.raw);
        let end = offset + buf.len() as u64;
        let mut at = offset;
        while at < end {
            let first = at / BLOCK_BYTES;
            let stop = end.div_ceil(BLOCK_BYTES).min(first + RUN_BLOCKS);
            let count = usize::try_from(stop - first).expect("at most RUN_BLOCKS");
            let mut blocks = AlignedBuf::zeroed(count * BLOCK);
            let mut wrong = None;
            self.load(&**raw, first..stop, &mut blocks, |block, lost| {
                let from = at.max(block * BLOCK_BYTES) - block * BLOCK_BYTES;
                let to = end.min((block + 1) * BLOCK_BYTES) - block * BLOCK_BYTES;
                if lost & touched(from, to - from) != 0 {
                    wrong.get_or_insert(block);
                }
            })?;
            if let Some(block) = wrong {
                return Err(self.unauthentic(block));
            }
            let to = end.min(stop * BLOCK_BYTES);
            let skip = usize::try_from(at - first * BLOCK_BYTES).expect("within a block");
            let place = |byte: u64| usize::try_from(byte - offset).expect("within the buffer");
            let length = place(to) - place(at);
            buf[place(at)..place(to)].copy_from_slice(&blocks[skip..skip + length]);
            at = to;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.check(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let slice = |range: &Range<u64>| {
            let place = |byte: u64| usize::try_from(byte - offset).expect("within the data");
            &data[place(range.start)..place(range.end)]
        };
        let (head, whole, tail) = cut(offset, data.len() as u64);
        for part in head.iter().chain(&tail) {
            let block = part.start / BLOCK_BYTES;
            self.write_part(block, part.start - block * BLOCK_BYTES, slice(part))?;
        }
        let mut at = whole.start;
        while at < whole.end {
            let to = whole.end.min(at + RUN_BLOCKS * BLOCK_BYTES);
            self.write_whole(at / BLOCK_BYTES, slice(&(at..to)))?;
            at = to;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.check(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let (head, whole, tail) = cut(offset, length);
        for part in head.iter().chain(&tail) {
            let block = part.start / BLOCK_BYTES;
            let zeroes = vec![0; usize::try_from(part.end - part.start).expect("within a block")];
            self.write_part(block, part.start - block * BLOCK_BYTES, &zeroes)?;
        }
        if whole.is_empty() {
            return Ok(());
        }
        self.zero_whole(whole.start / BLOCK_BYTES..whole.end / BLOCK_BYTES)
    }

    /// In a replica a discard reads as zeroes.
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.zero(offset, length)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let raw = write(&self.raw);
        let mut state = lock(&self.state);
        state.check_poison(&self.target)?;
        state.commit(&**raw, &self.key)
    }
}

#[cfg(test)]
mod tests;
