use super::log_index::LogIndex;
use crate::medium::Slot;
use crate::sync::lock;
use landfall_index::{Clock, Extent, Page};
use landfall_types::{DiskIndex, Lsn};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

/// How much memory the indexes of a vault may take, and when they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexOptions {
    /// Records that a log's index keeps in memory before they become a run file; about 200 bytes
    /// each, and four times as many when the disk does not keep up.
    pub tail_records: usize,
    /// Bytes of pages of run files that are kept.
    pub page_cache_bytes: usize,
    /// Bytes of answers that are kept: what holds the chunks of views and branches.
    pub chunk_cache_bytes: usize,
    /// A thread writes and merges runs; without it, whoever appends does.
    pub background: bool,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            tail_records: 16 << 10,
            page_cache_bytes: 16 << 20,
            chunk_cache_bytes: 16 << 20,
            background: true,
        }
    }
}

/// Position up to which the image has all records: rises when they are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Floor(AtomicU64);

impl Floor {
    pub(crate) fn get(&self) -> Lsn {
        Lsn::new(self.0.load(Ordering::Acquire))
    }
    /// The caller holds `trims` for writing, or nobody reads yet.
    pub(crate) fn raise(&self, floor: Lsn) {
        self.0.fetch_max(floor.get(), Ordering::AcqRel);
    }
}

/// What holds a chunk, up to and including a position.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) through: Lsn,
    pub(crate) extents: Arc<[Extent<Slot>]>,
}

/// A scene's chunk.
type ChunkKey = (u64, DiskIndex, u64);
/// A run's page.
type PageKey = (u64, u32);

/// Locks that share the caches' work.
const SHARDS: usize = 8;
/// What keeping an entry takes beside its value: key, place, and counts.
const ENTRY_BYTES: usize = 96;

/// Caches and the merging thread, shared by all replicas of a vault.
#[derive(Debug)]
pub struct IndexPool {
    options: IndexOptions,
    ids: AtomicU64,
    pages: [Mutex<Clock<PageKey, Arc<Page>>>; SHARDS],
    chunks: [Mutex<Clock<ChunkKey, Known>>; SHARDS],
    worker: Option<Worker>,
}

impl IndexPool {
    /// With empty caches.
    #[must_use]
    pub fn new(options: IndexOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            ids: AtomicU64::new(1),
            pages: std::array::from_fn(|_| {
                Mutex::new(Clock::new(options.page_cache_bytes / SHARDS))
            }),
            chunks: std::array::from_fn(|_| {
                Mutex::new(Clock::new(options.chunk_cache_bytes / SHARDS))
            }),
            worker: options.background.then(Worker::start).flatten(),
        })
    }

    pub(crate) const fn options(&self) -> &IndexOptions {
        &self.options
    }

    /// A number that no run or scene has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn page(&self, run: u64, page: u32) -> Option<Arc<Page>> {
        lock(&self.pages[shard(run ^ u64::from(page))]).get(&(run, page))
    }

    pub(crate) fn keep_page(&self, run: u64, number: u32, page: Arc<Page>) {
        let bytes = size_of::<Page>() + ENTRY_BYTES;
        lock(&self.pages[shard(run ^ u64::from(number))]).put((run, number), page, bytes);
    }

    pub(crate) fn chunk(&self, scene: u64, disk: DiskIndex, chunk: u64) -> Option<Known> {
        lock(&self.chunks[chunk_shard(chunk)]).get(&(scene, disk, chunk))
    }

    pub(crate) fn keep_chunk(&self, scene: u64, disk: DiskIndex, chunk: u64, known: Known) {
        let bytes = size_of_val(&*known.extents) + ENTRY_BYTES;
        lock(&self.chunks[chunk_shard(chunk)]).put((scene, disk, chunk), known, bytes);
    }

    /// Bytes that the caches hold now.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|shard| lock(shard).bytes()).sum();
        let chunks: usize = self.chunks.iter().map(|shard| lock(shard).bytes()).sum();
        pages + chunks
    }

    /// Has an index looked after soon; false where there is no thread for it.
    pub(crate) fn wake(&self, index: Weak<LogIndex>) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.wake(index))
    }
}

fn chunk_shard(chunk: u64) -> usize {
    shard(chunk / landfall_index::CHUNK_BYTES)
}

fn shard(key: u64) -> usize {
    usize::try_from(key % SHARDS as u64).unwrap_or(0)
}

/// The thread that writes and merges runs.
#[derive(Debug)]
struct Worker {
    /// None once the pool goes away.
    sender: Option<Mutex<Sender<Weak<LogIndex>>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// None when the system gives no thread: then whoever appends does the work.
    fn start() -> Option<Self> {
        let (sender, receiver) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("landfall-index".to_owned());
        let thread = thread.spawn(move || work(&receiver, &stop)).ok()?;
        Some(Self { sender: Some(Mutex::new(sender)), stopping, thread: Some(thread) })
    }

    fn wake(&self, index: Weak<LogIndex>) -> bool {
        self.sender.as_ref().is_some_and(|sender| lock(sender).send(index).is_ok())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.sender = None;
        let Some(thread) = self.thread.take() else { return };
        // The last user of the pool can be an index that the thread itself held.
        if thread.thread().id() != std::thread::current().id() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

fn work(indexes: &Receiver<Weak<LogIndex>>, stopping: &AtomicBool) {
    while let Ok(index) = indexes.recv() {
        let Some(index) = index.upgrade() else { continue };
        if let Err(error) = index.maintain(&|| stopping.load(Ordering::Acquire)) {
            tracing::warn!(log = %index.log.id(), %error, "the index of a log can't be written");
        }
    }
}
