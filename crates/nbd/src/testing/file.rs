use crate::{Access, Change, Content, Export, ExportError, Extent, Ticket};
use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A plain file as a disk with blocks of 512 bytes. Durable before it answers, as a branch is: one
/// `fdatasync` each.
pub struct FileExport {
    file: Arc<File>,
    size: u64,
    access: Access,
    /// `SEEK_DATA` moves the file's one position.
    seeking: Arc<Mutex<()>>,
    /// Changes so far.
    changes: AtomicU64,
}

const BLOCK_BYTES: u32 = 512;

impl FileExport {
    /// Opens a file; bytes beyond its last whole block are not served.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let write = access == Access::ReadWrite;
        let file = File::options().read(true).write(write).open(path)?;
        let size = file.metadata()?.len() / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES);
        Ok(Self {
            file: Arc::new(file),
            size,
            access,
            seeking: Arc::default(),
            changes: AtomicU64::new(0),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ExportError> {
        let file = Arc::clone(&self.file);
        let outcome = tokio::task::spawn_blocking(move || work(&file)).await;
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failed(error)),
            Err(error) => Err(ExportError::Io(Box::new(error))),
        }
    }
}

#[async_trait]
impl Export for FileExport {
    fn size(&self) -> u64 {
        self.size
    }
    fn block_bytes(&self) -> u32 {
        BLOCK_BYTES
    }
    fn access(&self) -> Access {
        self.access
    }
    fn revoked(&self) -> bool {
        false
    }
    fn multi_conn(&self) -> bool {
        true
    }
    fn read_here(&self, offset: u64, out: &mut [u8]) -> Option<Result<Content, ExportError>> {
        let read = self.file.read_exact_at(out, offset);
        Some(read.map(|()| Content::Data).map_err(failed))
    }
    fn change_here(&self, change: &Change) -> Option<Result<Ticket, ExportError>> {
        let changed = match change {
            Change::Write { offset, data } => self.file.write_all_at(data, *offset),
            Change::Zero { offset, length } | Change::Trim { offset, length } => {
                punch(&self.file, *offset, *length)
            }
        };
        let ticket = Ticket(self.changes.fetch_add(1, Ordering::SeqCst));
        Some(changed.map(|()| ticket).map_err(failed))
    }
    async fn settle(&self, _: Ticket) -> Result<(), ExportError> {
        self.flush().await
    }
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        let mut buffer = vec![0; length as usize];
        // What is in the page cache is copied at once: handing it to another thread takes longer
        // than the copy.
        let now = preadv2(
            &self.file,
            &mut [IoSliceMut::new(&mut buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        if now == Ok(buffer.len()) {
            return Ok(Bytes::from(buffer));
        }
        self.blocking(move |file| {
            file.read_exact_at(&mut buffer, offset)?;
            Ok(Bytes::from(buffer))
        })
        .await
    }
    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ExportError> {
        self.blocking(move |file| {
            file.write_all_at(&data, offset)?;
            file.sync_data()
        })
        .await
    }
    async fn zero(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.blocking(move |file| {
            punch(file, offset, length)?;
            file.sync_data()
        })
        .await
    }
    async fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.zero(offset, length).await
    }
    async fn flush(&self) -> Result<(), ExportError> {
        self.blocking(File::sync_data).await
    }
    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        let seeking = Arc::clone(&self.seeking);
        self.blocking(move |file| {
            let _alone = seeking.lock().unwrap_or_else(PoisonError::into_inner);
            extents(file, offset, offset + length)
        })
        .await
    }
}

fn failed(error: io::Error) -> ExportError {
    ExportError::Io(Box::new(error))
}

fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, hole, offset, length)?)
}

fn extents(file: &File, offset: u64, end: u64) -> io::Result<Vec<Extent>> {
    let mut found = Vec::new();
    let mut at = offset;
    while at < end {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => end,
            Err(error) => return Err(error.into()),
        };
        if data > at {
            found.push(Extent { length: data - at, hole: true });
        }
        if data < end {
            let hole = seek(file, SeekFrom::Hole(data))?.min(end);
            found.push(Extent { length: hole - data, hole: false });
            at = hole;
        } else {
            at = end;
        }
    }
    Ok(found)
}
