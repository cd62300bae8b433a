use crate::{Access, Change, Content, Export, ExportError, Extent, Ticket};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A disk in memory whose calls can be held back, failed and counted.
pub struct MemoryExport {
    block_bytes: u32,
    access: Access,
    size: u64,
    disk: Mutex<Disk>,
    revoked: AtomicBool,
    /// While true, calls wait before they do anything.
    held: watch::Sender<bool>,
    failing: AtomicBool,
    /// Calls on the client's own thread are answered.
    here: bool,
    in_flight: watch::Sender<usize>,
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
}

struct Disk {
    bytes: Vec<u8>,
    /// One per block: written and not given up since.
    allocated: Vec<bool>,
}

/// Calls that were carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
}

impl MemoryExport {
    /// A writable disk of zeroes; `size` in bytes, a multiple of `block_bytes`.
    #[must_use]
    pub fn new(size: usize, block_bytes: u32) -> Self {
        let blocks = size / block_bytes as usize;
        Self {
            block_bytes,
            access: Access::ReadWrite,
            size: size as u64,
            disk: Mutex::new(Disk { bytes: vec![0; size], allocated: vec![false; blocks] }),
            revoked: AtomicBool::new(false),
            held: watch::Sender::new(false),
            failing: AtomicBool::new(false),
            here: false,
            in_flight: watch::Sender::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    /// A read-only disk with this content.
    #[must_use]
    pub fn view(content: &[u8], block_bytes: u32) -> Self {
        let mut export = Self::new(content.len(), block_bytes);
        export.access = Access::ReadOnly;
        export.store(0, content);
        export
    }

    /// As it is, and served on its clients' own threads: reads and changes at once, and only the
    /// settling of changes waits, fails and counts as in flight.
    #[must_use]
    pub const fn here(mut self) -> Self {
        self.here = true;
        self
    }

    /// Takes authority away.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// From now on calls wait until [`MemoryExport::let_go`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Ends [`MemoryExport::hold`].
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// From now on calls fail, or no longer.
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// Waits until exactly `count` calls are in flight.
    pub async fn wait_in_flight(&self, count: usize) {
        let mut in_flight = self.in_flight.subscribe();
        // The sender lives in `self`, so the wait can't end in an error.
        let _ = in_flight.wait_for(|now| *now == count).await;
    }

    /// Calls in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.in_flight.borrow()
    }

    /// Calls carried out so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            reads: self.reads.load(Ordering::SeqCst),
            writes: self.writes.load(Ordering::SeqCst),
            flushes: self.flushes.load(Ordering::SeqCst),
        }
    }

    /// A copy of the whole disk.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Puts bytes on the disk, past all clients.
    ///
    /// # Panics
    /// Outside the disk.
    pub fn store(&self, offset: u64, data: &[u8]) {
        let mut disk = self.lock();
        let start = usize::try_from(offset).expect("the disk is in memory");
        disk.bytes[start..start + data.len()].copy_from_slice(data);
        let block = self.block_bytes as usize;
        let blocks = start / block..(start + data.len()).div_ceil(block);
        disk.allocated[blocks].fill(true);
    }

    fn give_up(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        let range = self.range(offset, length)?;
        let mut disk = self.lock();
        let block = self.block_bytes as usize;
        disk.allocated[range.start / block..range.end.div_ceil(block)].fill(false);
        disk.bytes[range].fill(0);
        Ok(())
    }

    fn range(&self, offset: u64, length: u64) -> Result<std::ops::Range<usize>, ExportError> {
        let outside = ExportError::OutOfRange { offset, length, size: self.size };
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(offset as usize..end as usize),
            _ => Err(outside),
        }
    }

    async fn enter(&self) -> Result<InFlight<'_>, ExportError> {
        self.in_flight.send_modify(|count| *count += 1);
        let entered = InFlight(self);
        let mut held = self.held.subscribe();
        // The sender lives in `self`, so the wait can't end in an error.
        let _ = held.wait_for(|held| !held).await;
        if self.failing.load(Ordering::SeqCst) {
            return Err(ExportError::Io(Box::new(std::io::Error::other("the test wants it"))));
        }
        Ok(entered)
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InFlight<'a>(&'a MemoryExport);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Export for MemoryExport {
    fn size(&self) -> u64 {
        self.size
    }
    fn block_bytes(&self) -> u32 {
        self.block_bytes
    }
    fn access(&self) -> Access {
        self.access
    }
    fn revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }
    fn read_here(&self, offset: u64, out: &mut [u8]) -> Option<Result<Content, ExportError>> {
        if !self.here {
            return None;
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.range(offset, out.len() as u64).map(|range| {
            let disk = self.lock();
            let block = self.block_bytes as usize;
            let blocks = range.start / block..range.end.div_ceil(block);
            if disk.allocated[blocks].iter().all(|allocated| !allocated) {
                return Content::Zeroes;
            }
            out.copy_from_slice(&disk.bytes[range]);
            Content::Data
        });
        Some(found)
    }
    fn change_here(&self, change: &Change) -> Option<Result<Ticket, ExportError>> {
        if !self.here {
            return None;
        }
        let changed = match change {
            Change::Write { offset, data } => {
                self.range(*offset, data.len() as u64).map(|_| self.store(*offset, data))
            }
            Change::Zero { offset, length } | Change::Trim { offset, length } => {
                self.give_up(*offset, *length)
            }
        };
        let count = self.writes.fetch_add(1, Ordering::SeqCst);
        Some(changed.map(|()| Ticket(count)))
    }
    async fn settle(&self, _: Ticket) -> Result<(), ExportError> {
        let _in_flight = self.enter().await?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        let _in_flight = self.enter().await?;
        let range = self.range(offset, length.into())?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::copy_from_slice(&self.lock().bytes[range]))
    }
    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ExportError> {
        let _in_flight = self.enter().await?;
        self.range(offset, data.len() as u64)?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.store(offset, &data);
        Ok(())
    }
    async fn zero(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        let _in_flight = self.enter().await?;
        self.give_up(offset, length)
    }
    async fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        let _in_flight = self.enter().await?;
        self.give_up(offset, length)
    }
    async fn flush(&self) -> Result<(), ExportError> {
        let _in_flight = self.enter().await?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        let _in_flight = self.enter().await?;
        let range = self.range(offset, length)?;
        let block = self.block_bytes as usize;
        let disk = self.lock();
        let extents = disk.allocated[range.start / block..range.end.div_ceil(block)]
            .iter()
            .map(|allocated| Extent { length: block as u64, hole: !allocated })
            .collect();
        Ok(extents)
    }
}
