//! The pages that hold the seals of an image's blocks.

use landfall_blockdev::{AlignedBuf, DeviceError, Dir, File};
use landfall_crypt::{Batch, DataKey, SEAL_BYTES, SEAL_HEAD_BYTES, SEAL_TAG_BYTES};
use std::sync::Arc;

/// Bytes of the disk that are sealed at once.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// Bytes of a page in the file.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a page when it is open.
pub(super) const CONTENT_BYTES: usize = PAGE_BYTES - SEAL_BYTES;
const HEADER_BYTES: usize = 24;
/// State (1), lost sectors (1), seal (40).
const ENTRY_BYTES: usize = 2 + SEAL_BYTES;
/// Blocks of a page.
pub(super) const PAGE_BLOCKS: u64 = ((CONTENT_BYTES - HEADER_BYTES) / ENTRY_BYTES) as u64;
/// Pages of seals of which one map says whether they are there.
const MAP_PAGES: u64 = ((CONTENT_BYTES - HEADER_BYTES) * 8) as u64;

const ROOT_MAGIC: &[u8; 8] = b"LFIMROOT";
const MAP_MAGIC: &[u8; 8] = b"LFIMMAPS";
const SEALS_MAGIC: &[u8; 8] = b"LFIMSEAL";

/// What a block was sealed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seal {
    /// Sectors that had rotted when others of the block were written; bit 0: the first.
    pub(super) lost: u8,
    pub(super) seal: [u8; SEAL_BYTES],
}

/// An open page.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Page(Box<[u8; CONTENT_BYTES]>);

impl Page {
    fn new(magic: &[u8; 8], number: u64) -> Self {
        let mut content = Box::new([0; CONTENT_BYTES]);
        content[..8].copy_from_slice(magic);
        content[8..16].copy_from_slice(&number.to_le_bytes());
        Self(content)
    }

    pub(super) fn root(size_bytes: u64) -> Self {
        let mut page = Self::new(ROOT_MAGIC, 0);
        page.0[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&size_bytes.to_le_bytes());
        page
    }

    pub(super) fn map(number: u64) -> Self {
        Self::new(MAP_MAGIC, number)
    }

    pub(super) fn seals(number: u64) -> Self {
        Self::new(SEALS_MAGIC, number)
    }

    /// What is known when a page is not what was written: nothing of its blocks but that they are
    /// not to be had.
    pub(super) fn lost(number: u64, size_bytes: u64) -> Self {
        match kind(number) {
            Kind::Root => Self::root(size_bytes),
            Kind::Map => {
                let mut page = Self::map(number);
                page.0[HEADER_BYTES..].fill(u8::MAX);
                page
            }
            Kind::Seals => {
                let mut page = Self::seals(number);
                let none = Seal { lost: u8::MAX, seal: [0; SEAL_BYTES] };
                (0..PAGE_BLOCKS).for_each(|entry| page.set_seal(entry, Some(&none)));
                page
            }
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.0[HEADER_BYTES..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw))
    }

    /// Whether the map says that a page of seals is there.
    pub(super) fn has(&self, bit: u64) -> bool {
        let (byte, bit) = Self::bit(bit);
        self.0[byte] & bit != 0
    }

    pub(super) fn set(&mut self, bit: u64, there: bool) {
        let (byte, bit) = Self::bit(bit);
        if there {
            self.0[byte] |= bit;
        } else {
            self.0[byte] &= !bit;
        }
    }

    fn bit(bit: u64) -> (usize, u8) {
        (HEADER_BYTES + usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    }

    /// The seal of a block of this page; none: it reads as zeroes.
    pub(super) fn seal(&self, entry: u64) -> Option<Seal> {
        let entry = &self.0[Self::entry(entry)];
        let seal = entry[2..].first_chunk().copied()?;
        (entry[0] != 0).then_some(Seal { lost: entry[1], seal })
    }

    pub(super) fn set_seal(&mut self, entry: u64, seal: Option<&Seal>) {
        let entry = &mut self.0[Self::entry(entry)];
        entry.fill(0);
        if let Some(Seal { lost, seal }) = seal {
            (entry[0], entry[1]) = (1, *lost);
            entry[2..].copy_from_slice(seal);
        }
    }

    fn entry(entry: u64) -> std::ops::Range<usize> {
        let at = HEADER_BYTES + usize::try_from(entry).unwrap_or(0) * ENTRY_BYTES;
        at..at + ENTRY_BYTES
    }

    /// As it is written.
    pub(super) fn sealed(&self, batch: &mut Batch, disk: u16, number: u64) -> Vec<u8> {
        batch.sealed(&page_context(disk, number), &*self.0)
    }

    /// The inverse; `None` for anything that was not written as this page.
    pub(super) fn open(key: &DataKey, disk: u16, number: u64, sealed: &mut [u8]) -> Option<Self> {
        let content = key.open(&page_context(disk, number), sealed).ok()?;
        let magic = match kind(number) {
            Kind::Root => ROOT_MAGIC,
            Kind::Map => MAP_MAGIC,
            Kind::Seals => SEALS_MAGIC,
        };
        let ours = &content[..8] == magic && content[8..16] == number.to_le_bytes();
        ours.then(|| content.try_into().ok().map(|content| Self(Box::new(content)))).flatten()
    }
}

enum Kind {
    Root,
    Map,
    Seals,
}

fn kind(number: u64) -> Kind {
    match number.checked_sub(1) {
        None => Kind::Root,
        Some(behind) if behind.is_multiple_of(1 + MAP_PAGES) => Kind::Map,
        Some(_) => Kind::Seals,
    }
}

fn page_context(disk: u16, number: u64) -> Vec<u8> {
    [&b"image page"[..], &disk.to_le_bytes(), &number.to_le_bytes()].concat()
}

pub(super) fn block_context(disk: u16, block: u64) -> [u8; 21] {
    let mut context = *b"image block\0\0\0\0\0\0\0\0\0\0";
    context[11..13].copy_from_slice(&disk.to_le_bytes());
    context[13..].copy_from_slice(&block.to_le_bytes());
    context
}

/// Where the seal of a block stands: its page, which entry of it, the map of that page, and which
/// bit of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) page: u64,
    pub(super) entry: u64,
    pub(super) map: u64,
    pub(super) bit: u64,
}

pub(super) const fn place(block: u64) -> Place {
    let (nth, entry) = (block / PAGE_BLOCKS, block % PAGE_BLOCKS);
    let (group, bit) = (nth / MAP_PAGES, nth % MAP_PAGES);
    let map = 1 + group * (1 + MAP_PAGES);
    Place { page: map + 1 + bit, entry, map, bit }
}

/// Numbers of the maps of an image of this size.
pub(super) fn maps(size_bytes: u64) -> impl Iterator<Item = u64> {
    let groups = size_bytes.div_ceil(BLOCK_BYTES * PAGE_BLOCKS * MAP_PAGES).max(1);
    (0..groups).map(|group| 1 + group * (1 + MAP_PAGES))
}

/// The files of an image's seals.
#[derive(Debug)]
pub(super) struct SealedSums {
    pub(super) pages: Arc<dyn File>,
    pub(super) intent: Arc<dyn File>,
    pub(super) name: String,
    pub(super) disk: u16,
}

fn names(disk: u16) -> (String, String) {
    (format!("seals-{disk}"), format!("seals-{disk}.intent"))
}

impl SealedSums {
    pub(super) fn create(
        dir: &dyn Dir,
        key: &DataKey,
        disk: u16,
        size_bytes: u64,
    ) -> Result<(), DeviceError> {
        let (name, intent) = names(disk);
        for left in dir.list()?.iter().filter(|found| **found == name || **found == intent) {
            dir.remove(left)?;
        }
        let file = dir.create(&name)?;
        let mut batch =
            key.batch().map_err(|_| DeviceError::NoRandomness { target: name.clone() })?;
        let root = (0, Page::root(size_bytes));
        for (number, page) in [root].into_iter().chain(maps(size_bytes).map(|n| (n, Page::map(n))))
        {
            file.write_at(at(number), &page.sealed(&mut batch, disk, number))?;
        }
        file.sync_data()?;
        dir.create(&intent)?.sync_data()
    }

    pub(super) fn open(dir: &dyn Dir, disk: u16) -> Result<Self, DeviceError> {
        let (name, intent) = names(disk);
        let (pages, intent) = (dir.open(&name)?, dir.open(&intent)?);
        Ok(Self { pages, intent, name, disk })
    }

    pub(super) fn read(&self, key: &DataKey, number: u64) -> Result<Page, DeviceError> {
        let wrong = || DeviceError::Unauthentic { target: self.name.clone(), offset: at(number) };
        let mut sealed = AlignedBuf::zeroed(PAGE_BYTES);
        match self.pages.read_at(at(number), &mut sealed) {
            // The map says that it is there.
            Err(DeviceError::OutOfRange { .. }) => return Err(wrong()),
            other => other?,
        }
        Page::open(key, self.disk, number, &mut sealed).ok_or_else(wrong)
    }
}

/// Where a page stands in the file.
pub(super) const fn at(number: u64) -> u64 {
    number * PAGE_BYTES as u64
}

const _: () = assert!(SEAL_HEAD_BYTES + SEAL_TAG_BYTES == SEAL_BYTES && PAGE_BLOCKS == 96);
