//! Copying a disk at a position out of a replica, and reading the copy back.

use crate::error::{ContentError, StorageError};
use crate::replica::{Branch, View};
use landfall_blockdev::BlockDevice;
use landfall_types::{ByteRange, DiskGeometry, DiskIndex};

/// Bytes read at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// Zeroes of this length and alignment are not written: the new image reads as zeroes there.
const HOLE_BYTES: usize = 64 << 10;

/// Something that disks can be read from.
pub trait DiskContent {
    /// Size and sectors of a disk; `None` when there is no such disk.
    fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry>;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`ContentError`].
    fn read(&self, disk: DiskIndex, offset: u64, buf: &mut [u8]) -> Result<(), ContentError>;
    /// The range cut into stretches: true where it is known to read as zeroes.
    fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)>;
}

impl DiskContent for View {
    fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        Self::geometry(self, disk)
    }
    fn read(&self, disk: DiskIndex, offset: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        Self::read(self, disk, offset, buf)
    }
    fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        Self::zeroes(self, disk, range)
    }
}

impl DiskContent for Branch {
    fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        Self::geometry(self, disk)
    }
    fn read(&self, disk: DiskIndex, offset: u64, buf: &mut [u8]) -> Result<(), ContentError> {
        Self::read(self, disk, offset, buf)
    }
    fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        Self::zeroes(self, disk, range)
    }
}

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exported {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// Bytes that are not holes of the copy.
    pub written_bytes: u64,
    /// BLAKE3 of the whole disk.
    pub hash: blake3::Hash,
}

/// Why a copy is not there.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The content.
    #[error("read the disk at the chosen position")]
    Content(#[from] ContentError),
    /// The copy.
    #[error("write the copy")]
    Copy(#[from] StorageError),
    /// The copy does not hold what was written to it.
    #[error("the copy does not hold what was written to it")]
    Differs,
}

/// Copies a disk into an image that reads as zeroes and is as large; durable when this returns.
/// `progress` is told how many bytes of the disk are done.
///
/// # Errors
/// [`ExportError`]; a corrupt block ends the copy, because half a disk must not look like one.
pub fn export(
    content: &dyn DiskContent,
    disk: DiskIndex,
    copy: &dyn BlockDevice,
    progress: &mut dyn FnMut(u64),
) -> Result<Exported, ExportError> {
    let size = content.geometry(disk).ok_or(ContentError::UnknownDisk(disk))?.size_bytes;
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; in_memory(CHUNK_BYTES)];
    let mut written_bytes = 0;
    for start in (0..size).step_by(in_memory(CHUNK_BYTES)) {
        let range = ByteRange { start, end: size.min(start + CHUNK_BYTES) };
        let chunk = &mut buf[..in_memory(range.len())];
        if content.zeroes(disk, range).iter().all(|(_, zero)| *zero) {
            chunk.fill(0);
        } else {
            content.read(disk, start, chunk)?;
            written_bytes += write_sparse(copy, start, chunk)?;
        }
        hasher.update(chunk);
        progress(range.end);
    }
    copy.flush().map_err(StorageError::device("flush the copy"))?;
    Ok(Exported { size_bytes: size, written_bytes, hash: hasher.finalize() })
}

fn write_sparse(copy: &dyn BlockDevice, start: u64, chunk: &[u8]) -> Result<u64, StorageError> {
    let mut at = start;
    let mut written = 0;
    let hole = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    let pieces: Vec<&[u8]> = chunk.chunks(HOLE_BYTES).collect();
    for run in pieces.chunk_by(|one, next| hole(one) == hole(next)) {
        let length = run.iter().map(|piece| piece.len()).sum::<usize>();
        if !hole(run[0]) {
            let from = in_memory(at - start);
            let put = copy.write_at(at, &chunk[from..from + length]);
            put.map_err(StorageError::device("write the copy"))?;
            written += length as u64;
        }
        at += length as u64;
    }
    Ok(written)
}

/// Reads a copy back and compares it with what was copied.
///
/// # Errors
/// [`ExportError::Differs`], storage errors.
pub fn verify_export(
    exported: &Exported,
    copy: &dyn BlockDevice,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ExportError> {
    let size = exported.size_bytes;
    if copy.size() != size {
        return Err(ExportError::Differs);
    }
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; in_memory(CHUNK_BYTES)];
    for start in (0..size).step_by(in_memory(CHUNK_BYTES)) {
        let end = size.min(start + CHUNK_BYTES);
        let chunk = &mut buf[..in_memory(end - start)];
        copy.read_at(start, chunk).map_err(StorageError::device("read the copy"))?;
        hasher.update(chunk);
        progress(end);
    }
    if hasher.finalize() == exported.hash { Ok(()) } else { Err(ExportError::Differs) }
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("at most a chunk")
}
