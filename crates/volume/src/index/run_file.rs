use super::IndexPool;
use super::cover::PageCover;
use crate::error::StorageError;
use landfall_blockdev::{AlignedBuf, Dir, File};
use landfall_index::{Damaged, Footer, Key, MemoryRun, Page, Pages, Piece, Run};
use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pages that a merge reads at once.
const READ_AHEAD: u32 = 32;

/// An open run file.
#[derive(Debug)]
pub(crate) struct RunFile {
    pub(crate) name: String,
    run: Run<CachedPages>,
}

#[derive(Debug)]
struct CachedPages {
    id: u64,
    footer: Footer,
    file: Arc<dyn File>,
    cover: PageCover,
    pool: Arc<IndexPool>,
    /// A page was not what was written.
    damaged: AtomicBool,
}

impl Pages for CachedPages {
    type Error = StorageError;

    fn page(&self, number: u32) -> Result<Arc<Page>, StorageError> {
        if let Some(page) = self.pool.page(self.id, number) {
            return Ok(page);
        }
        let mut pages = read_pages(&*self.file, &self.cover, &self.footer, number, 1)
            .inspect_err(|_| self.damaged.store(true, Ordering::Release))?;
        let page = pages.pop().ok_or(Damaged { page: number, what: "its end" })?;
        self.pool.keep_page(self.id, number, Arc::clone(&page));
        Ok(page)
    }
}

fn read_pages(
    file: &dyn File,
    cover: &PageCover,
    footer: &Footer,
    first: u32,
    count: u32,
) -> Result<Vec<Arc<Page>>, StorageError> {
    let stored = cover.stored_bytes();
    let mut buf = AlignedBuf::zeroed(count as usize * stored);
    let read = file.read_at(u64::from(first) * stored as u64, &mut buf);
    read.map_err(StorageError::device("read the index"))?;
    let pages = (first..).zip(buf.chunks_mut(stored)).map(|(number, page)| {
        let page = cover.open(number as usize, page)?;
        let page = page.first_chunk().ok_or(Damaged { page: number, what: "its end" })?;
        Run::<CachedPages>::check(footer, page, number)?;
        Ok(Arc::new(*page))
    });
    pages.collect()
}

impl RunFile {
    /// Opens a file by its footer.
    pub(crate) fn open(
        dir: &dyn Dir,
        name: &str,
        pool: &Arc<IndexPool>,
    ) -> Result<Self, StorageError> {
        let device = || StorageError::device("open the index");
        let file = dir.open(name).map_err(device())?;
        let cover = PageCover::of(dir, name);
        let stored = cover.stored_bytes();
        let pages = file.len().map_err(device())? / stored as u64;
        let last = pages.checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let last = last.ok_or(Damaged { page: 0, what: "the file's length" })?;
        let mut buf = AlignedBuf::zeroed(stored);
        file.read_at(u64::from(last) * stored as u64, &mut buf).map_err(device())?;
        let page = cover.open(last as usize, &mut buf)?;
        let page = page.first_chunk().ok_or(Damaged { page: last, what: "its end" })?;
        let footer = Footer::decode(page, last)?;
        Ok(Self::new(name.to_owned(), file, cover, footer, pool))
    }

    pub(crate) fn new(
        name: String,
        file: Arc<dyn File>,
        cover: PageCover,
        footer: Footer,
        pool: &Arc<IndexPool>,
    ) -> Self {
        let pages = CachedPages {
            id: pool.next_id(),
            footer,
            file,
            cover,
            pool: Arc::clone(pool),
            damaged: AtomicBool::new(false),
        };
        Self { name, run: Run::new(footer, pages) }
    }

    pub(crate) const fn footer(&self) -> &Footer {
        self.run.footer()
    }

    /// A page of it was damaged, or could not be read.
    pub(crate) fn damaged(&self) -> bool {
        self.run.pages().damaged.load(Ordering::Acquire)
    }

    /// The same pieces for reading all of them in order, past the cache.
    pub(crate) fn streamed(&self) -> Streamed<'_> {
        let pages = StreamedPages { of: self.run.pages(), ahead: RefCell::new((0, Vec::new())) };
        Streamed(Run::new(*self.footer(), pages))
    }
}

/// See [`RunFile::streamed`].
pub(crate) struct Streamed<'a>(Run<StreamedPages<'a>>);

struct StreamedPages<'a> {
    of: &'a CachedPages,
    /// Number of the first page, and pages.
    ahead: RefCell<(u32, Vec<Arc<Page>>)>,
}

impl Pages for StreamedPages<'_> {
    type Error = StorageError;

    fn page(&self, number: u32) -> Result<Arc<Page>, StorageError> {
        let mut ahead = self.ahead.borrow_mut();
        let found = number.checked_sub(ahead.0).and_then(|at| ahead.1.get(at as usize));
        if let Some(page) = found {
            return Ok(Arc::clone(page));
        }
        let left = self.of.footer.leaves().saturating_sub(number);
        let pages = read_pages(
            &*self.of.file,
            &self.of.cover,
            &self.of.footer,
            number,
            left.clamp(1, READ_AHEAD),
        )
        .inspect_err(|_| self.of.damaged.store(true, Ordering::Release))?;
        let page = pages.first().cloned();
        *ahead = (number, pages);
        Ok(page.ok_or(Damaged { page: number, what: "its end" })?)
    }
}

impl landfall_index::Source for Streamed<'_> {
    type Error = StorageError;
    fn pieces(&self) -> u32 {
        self.0.pieces()
    }
    fn classes(&self) -> u64 {
        self.0.classes()
    }
    fn rank(&self, key: &Key) -> Result<u32, StorageError> {
        self.0.rank(key)
    }
    fn get(&self, number: u32) -> Result<Piece, StorageError> {
        self.0.get(number)
    }
}

/// Sorted pieces, wherever they are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Memory(Arc<MemoryRun>),
    File(Arc<RunFile>),
}

const fn never<T>(result: Result<T, Infallible>) -> Result<T, StorageError>
where
    T: Copy,
{
    match result {
        Ok(value) => Ok(value),
    }
}

impl landfall_index::Source for Source {
    type Error = StorageError;
    fn pieces(&self) -> u32 {
        match self {
            Self::Memory(run) => run.pieces(),
            Self::File(file) => file.run.pieces(),
        }
    }
    fn classes(&self) -> u64 {
        match self {
            Self::Memory(run) => run.classes(),
            Self::File(file) => file.run.classes(),
        }
    }
    fn rank(&self, key: &Key) -> Result<u32, StorageError> {
        match self {
            Self::Memory(run) => never(run.rank(key)),
            Self::File(file) => file.run.rank(key),
        }
    }
    fn get(&self, number: u32) -> Result<Piece, StorageError> {
        match self {
            Self::Memory(run) => never(run.get(number)),
            Self::File(file) => file.run.get(number),
        }
    }
}
