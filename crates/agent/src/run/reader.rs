//! Reads a disk past the page cache: what the disk itself holds.

use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_capture::AlignedBuffer;
use landfall_types::ByteRange;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError};

/// A disk, open for direct reads.
pub(crate) struct DiskReader {
    file: File,
    /// Kept, because mapping fresh memory for every read costs more than the copy out of it.
    buffers: Mutex<Vec<AlignedBuffer>>,
}

impl DiskReader {
    pub(crate) fn open(disk: &Disk) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&disk.path)?;
        Ok(Arc::new(Self { file, buffers: Mutex::new(Vec::new()) }))
    }

    /// Reads a range of whole sectors.
    pub(crate) async fn read(self: &Arc<Self>, range: ByteRange) -> io::Result<Bytes> {
        let reader = Arc::clone(self);
        tokio::task::spawn_blocking(move || reader.read_blocking(range))
            .await
            .map_err(io::Error::other)?
    }

    fn read_blocking(&self, range: ByteRange) -> io::Result<Bytes> {
        let bytes = usize::try_from(range.len()).map_err(io::Error::other)?;
        let kept = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = match kept {
            Some(buffer) if buffer.len() >= bytes => buffer,
            Some(_) | None => AlignedBuffer::zeroed(bytes)?,
        };
        self.file.read_exact_at(&mut buffer[..bytes], range.start)?;
        let data = Bytes::copy_from_slice(&buffer[..bytes]);
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        Ok(data)
    }
}
