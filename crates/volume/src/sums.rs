//! Checksums of an image's blocks: what makes rot in an image visible. Format and the order of
//! steps: `docs/formats/volume.md`.

use crate::error::StorageError;
use crate::sync::lock;
use landfall_blockdev::{Dir, File};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Bytes of a disk that one checksum covers: what file systems and guests write at once, so that a
/// fold hardly ever has to read a block's neighbors.
pub(crate) const BLOCK_BYTES: u64 = 4096;

const MAGIC: &[u8; 8] = b"LFSUMS01";
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 32;
/// Checksums in a page.
const PAGE_SUMS: usize = (PAGE_BYTES - HEADER_BYTES) / 4;
/// Pages kept in memory: 1 MiB, for 1 GiB of the disk.
const PAGES_KEPT: usize = 256;

/// A block's checksum; two values have a meaning of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sum(u32);

impl Sum {
    /// Nothing is known about the block.
    pub(crate) const UNKNOWN: Self = Self(0);
    /// Fits no content: part of the block has rotted, another was written since.
    pub(crate) const ROTTEN: Self = Self(u32::MAX);

    /// Of a block's content; one that is shorter (at the disk's end) counts as filled up with
    /// zeroes, so that a disk may grow. The block's number is part of it: content that was written
    /// to the wrong place does not fit.
    pub(crate) fn of(block: u64, content: &[u8]) -> Self {
        const ZEROES: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&block.to_le_bytes()), content);
        let crc = crc32c::crc32c_append(crc, &ZEROES[content.len().min(ZEROES.len())..]);
        Self(crc.clamp(1, u32::MAX - 1))
    }

    /// False where the content is known to be another one.
    pub(crate) fn fits(self, block: u64, content: &[u8]) -> bool {
        self == Self::UNKNOWN || self == Self::of(block, content)
    }
}

/// Checksums to be set.
pub(crate) type NewSums = BTreeMap<u64, Sum>;

/// The checksums of one disk's image.
#[derive(Debug)]
pub(crate) struct Sums {
    file: Arc<dyn File>,
    pages: Mutex<Pages>,
}

type Pages = BTreeMap<u64, Page>;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Page(Vec<Sum>);

impl Page {
    fn unknown() -> Self {
        Self(vec![Sum::UNKNOWN; PAGE_SUMS])
    }

    fn encode(&self, number: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&[0; HEADER_BYTES - 16]);
        for sum in &self.0 {
            bytes.extend_from_slice(&sum.0.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(number: u64, bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let long = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        if &bytes[..8] != MAGIC || long(8)? != number {
            return None;
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &[0; 4]);
        if crc32c::crc32c_append(crc, &bytes[20..]) != word(16)? {
            return None;
        }
        let sums = (HEADER_BYTES..PAGE_BYTES).step_by(4).map(|at| word(at).map(Sum));
        Some(Self(sums.collect::<Option<_>>()?))
    }
}

/// Page of a block's checksum, and which of it.
const fn place(block: u64) -> (u64, usize) {
    (block / PAGE_SUMS as u64, (block % PAGE_SUMS as u64) as usize)
}

impl Sums {
    /// Of the file of this name, made if it is not there (its name is durable with the next sync of
    /// the directory; a file that is lost means that nothing is known).
    pub(crate) fn open(dir: &dyn Dir, name: &str) -> Result<Self, StorageError> {
        let names = dir.list().map_err(StorageError::device("look for checksums"))?;
        let there = names.iter().any(|found| found == name);
        let file = if there { dir.open(name) } else { dir.create(name) };
        let file = file.map_err(StorageError::device("open checksums"))?;
        Ok(Self { file, pages: Mutex::default() })
    }

    /// The first block in `content`, which begins at block `first`, that is known to have been
    /// something else.
    pub(crate) fn check(&self, first: u64, content: &[u8]) -> Result<Option<u64>, StorageError> {
        let mut pages = lock(&self.pages);
        for (block, content) in (first..).zip(content.chunks(BLOCK_BYTES as usize)) {
            let (page, at) = place(block);
            if !self.page(&mut pages, page)?.0[at].fits(block, content) {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// What is known of a block.
    pub(crate) fn get(&self, block: u64) -> Result<Sum, StorageError> {
        let (page, at) = place(block);
        Ok(self.page(&mut lock(&self.pages), page)?.0[at])
    }

    /// Sets checksums; durable after [`Sums::sync`].
    pub(crate) fn set(&self, new: &NewSums) -> Result<(), StorageError> {
        let mut pages = lock(&self.pages);
        let mut new = new.iter().peekable();
        while let Some((block, _)) = new.peek() {
            let (number, _) = place(**block);
            let mut page = self.page(&mut pages, number)?.clone();
            while let Some((block, sum)) = new.next_if(|(block, _)| place(**block).0 == number) {
                page.0[place(*block).1] = *sum;
            }
            if pages.get(&number) == Some(&page) {
                continue;
            }
            // Read again should the write fail: what it left is not known.
            pages.remove(&number);
            let written = self.file.write_at(number * PAGE_BYTES as u64, &page.encode(number));
            written.map_err(StorageError::device("write checksums"))?;
            pages.insert(number, page);
        }
        Ok(())
    }

    /// Makes durable what was set.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(StorageError::device("sync checksums"))
    }

    /// Forgets all, durably.
    pub(crate) fn reset(&self) -> Result<(), StorageError> {
        lock(&self.pages).clear();
        let cut = self.file.set_len(0).and_then(|()| self.file.sync_data());
        cut.map_err(StorageError::device("forget checksums"))
    }

    fn page<'a>(&self, pages: &'a mut Pages, number: u64) -> Result<&'a Page, StorageError> {
        if !pages.contains_key(&number) {
            let page = self.load(number)?;
            if pages.len() >= PAGES_KEPT {
                pages.pop_first();
            }
            pages.insert(number, page);
        }
        Ok(&pages[&number])
    }

    /// A page that can't be read, torn by a cut or rotten itself, knows nothing: it must not accuse
    /// blocks that are sound.
    fn load(&self, number: u64) -> Result<Page, StorageError> {
        let at = number * PAGE_BYTES as u64;
        let length = self.file.len().map_err(StorageError::device("read checksums"))?;
        if at + PAGE_BYTES as u64 > length {
            return Ok(Page::unknown());
        }
        let mut bytes = vec![0; PAGE_BYTES];
        self.file.read_at(at, &mut bytes).map_err(StorageError::device("read checksums"))?;
        Ok(Page::decode(number, &bytes).unwrap_or_else(Page::unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_blockdev::sim::{CutOptions, SimMedium, for_each_power_cut};

    fn sums(blocks: &[(u64, u8)]) -> NewSums {
        blocks.iter().map(|(block, fill)| (*block, Sum::of(*block, &[*fill; 4096]))).collect()
    }

    #[test]
    fn a_changed_or_misplaced_block_is_seen_and_an_unknown_one_is_not_accused() {
        let sums_of = sums(&[(5, 1), (PAGE_SUMS as u64 + 3, 2)]);
        let dir = SimMedium::new(512).root();
        let file = Sums::open(&*dir, "sums-0").expect("made");
        file.set(&sums_of).expect("set");
        file.sync().expect("synced");
        for file in [file, Sums::open(&*dir, "sums-0").expect("there")] {
            assert_eq!(file.check(5, &[1; 4096]).expect("read"), None);
            assert_eq!(file.check(4, &[9; 8192]).expect("read"), Some(5));
            assert_eq!(
                file.check(PAGE_SUMS as u64 + 3, &[1; 4096]).expect("read"),
                Some(PAGE_SUMS as u64 + 3)
            );
            assert_eq!(file.check(100, &[7; 40_960]).expect("read"), None);
        }
        let misplaced = Sum::of(6, &[1; 4096]);
        assert!(!misplaced.fits(5, &[1; 4096]));
        assert_eq!(Sum::of(5, &[1; 100]), Sum::of(5, &[&[1; 100][..], &[0; 3996]].concat()));
    }

    /// A torn page knows nothing, and never accuses a block that it does not concern.
    #[test]
    fn a_power_cut_leaves_a_page_old_new_or_unknown() {
        let medium = SimMedium::new(512);
        let dir = medium.root();
        let file = Sums::open(&*dir, "sums-0").expect("made");
        file.set(&sums(&[(1, 1), (2, 1)])).expect("set");
        file.sync().expect("synced");
        dir.sync().expect("synced");
        medium.restart_trace();
        for fill in 2..6 {
            file.set(&sums(&[(2, fill)])).expect("set");
        }
        let stat = for_each_power_cut(&medium.trace(), CutOptions::QUICK, |cut| {
            let file = Sums::open(&*cut.medium.root(), "sums-0").expect("there");
            let (first, second) = (file.get(1).expect("read"), file.get(2).expect("read"));
            assert_eq!(first == Sum::UNKNOWN, second == Sum::UNKNOWN, "step {}", cut.step);
            assert!(first.fits(1, &[1; 4096]), "step {}", cut.step);
            assert!((1..6).any(|fill| second.fits(2, &[fill; 4096])), "step {}", cut.step);
        });
        assert!(stat.cuts > 50, "{stat:?}");
    }
}
