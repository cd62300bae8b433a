//! Seals and parts of blocks in memory, and how they become durable.

use super::BLOCK;
use super::intent::{self, Intent};
use super::pages::{self, BLOCK_BYTES, PAGE_BLOCKS, Page, Place, Seal, SealedSums, place};
use landfall_blockdev::{BlockDevice, DeviceError, Dir};
use landfall_crypt::DataKey;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Pages kept in memory: 2 MiB, for 192 MiB of the disk.
const PAGES_KEPT: usize = 512;
/// Changed pages, and blocks that were written in part, after which all is made durable without
/// being asked: 16 MiB of each.
const CHANGED_MAX: usize = 4096;

/// A block that was written in part, as a whole.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) content: Box<[u8; BLOCK]>,
    /// Sectors that can't be had; bit 0: the first.
    pub(super) lost: u8,
}

/// What is known of a block.
pub(super) enum Known {
    Zero,
    Sealed(Seal),
    Pending(Pending),
}

pub(super) struct State {
    files: SealedSums,
    size: u64,
    /// Number of the last intent.
    sequence: u64,
    pages: BTreeMap<u64, Page>,
    /// Those of `pages` that differ from the file.
    changed: BTreeSet<u64>,
    pending: BTreeMap<u64, Pending>,
    /// A commit has failed in the middle: what the files hold is not known.
    poisoned: bool,
}

impl State {
    pub(super) fn open(
        dir: &dyn Dir,
        key: &DataKey,
        disk: u16,
        raw: &dyn BlockDevice,
    ) -> Result<Self, DeviceError> {
        let files = SealedSums::open(dir, disk)?;
        let mut state = Self {
            files,
            size: 0,
            sequence: 0,
            pages: BTreeMap::new(),
            changed: BTreeSet::new(),
            pending: BTreeMap::new(),
            poisoned: false,
        };
        if let Some(intent) = intent::read(&*state.files.intent, key, disk)? {
            state.sequence = intent.sequence;
            state.finish(intent, key, raw)?;
        }
        // Should the root be lost: the file has the size, but for the rest of its last block.
        state.size = raw.size();
        state.size = state.page(0, key)?.size_bytes();
        Ok(state)
    }

    /// Does again what the last commit did, or had begun to do. Doing it twice changes nothing: the
    /// intent of a commit that has ended describes what is there, but for whole blocks that were
    /// written since, and are written again.
    fn finish(
        &mut self,
        intent: Intent,
        key: &DataKey,
        raw: &dyn BlockDevice,
    ) -> Result<(), DeviceError> {
        match apply(&self.files, &intent, raw) {
            // The image is only looked at: what would stand there is kept in memory.
            Err(DeviceError::ReadOnly { .. } | DeviceError::NotFound { .. }) => {}
            other => return other,
        }
        for (number, mut sealed) in intent.pages {
            if let Some(page) = Page::open(key, self.files.disk, number, &mut sealed) {
                self.pages.insert(number, page);
                self.changed.insert(number);
            }
        }
        for (block, mut sealed) in intent.blocks {
            let Known::Sealed(seal) = self.known_one(block, key)? else { continue };
            let context = pages::block_context(self.files.disk, block);
            let opened = key.open_apart(&context, &seal.seal, &mut sealed);
            if let (Ok(()), Ok(content)) = (opened, sealed.try_into()) {
                self.pending.insert(block, Pending { content: Box::new(content), lost: seal.lost });
            }
        }
        Ok(())
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn check_poison(&self, target: &str) -> Result<(), DeviceError> {
        if self.poisoned {
            return Err(DeviceError::Poisoned { target: target.to_owned() });
        }
        Ok(())
    }

    /// What is known of some blocks.
    pub(super) fn known(
        &mut self,
        blocks: Range<u64>,
        key: &DataKey,
    ) -> Result<Vec<Known>, DeviceError> {
        blocks.map(|block| self.known_one(block, key)).collect()
    }

    fn known_one(&mut self, block: u64, key: &DataKey) -> Result<Known, DeviceError> {
        if let Some(pending) = self.pending.get(&block) {
            return Ok(Known::Pending(pending.clone()));
        }
        let Place { page, entry, map, bit } = place(block);
        if !self.page(map, key)?.has(bit) {
            return Ok(Known::Zero);
        }
        Ok(self.page(page, key)?.seal(entry).map_or(Known::Zero, Known::Sealed))
    }

    pub(super) fn set_pending(&mut self, block: u64, content: Box<[u8; BLOCK]>, lost: u8) {
        self.pending.insert(block, Pending { content, lost });
    }

    /// The seals of blocks that were written.
    pub(super) fn set_sealed(
        &mut self,
        first: u64,
        seals: &[Seal],
        key: &DataKey,
    ) -> Result<(), DeviceError> {
        for (block, seal) in (first..).zip(seals) {
            self.pending.remove(&block);
            let place = place(block);
            self.page_to_change(place, key)?.set_seal(place.entry, Some(seal));
        }
        Ok(())
    }

    /// Blocks that read as zeroes from now on: those of one page. Returns where the next begins.
    pub(super) fn set_zero(
        &mut self,
        blocks: Range<u64>,
        key: &DataKey,
    ) -> Result<u64, DeviceError> {
        let Place { page, map, bit, .. } = place(blocks.start);
        let first = blocks.start / PAGE_BLOCKS * PAGE_BLOCKS;
        let end = blocks.end.min(first + PAGE_BLOCKS);
        let here = blocks.start..end;
        let within: Vec<u64> = self.pending.range(here.clone()).map(|(block, _)| *block).collect();
        within.iter().for_each(|block| drop(self.pending.remove(block)));
        if !self.page(map, key)?.has(bit) {
            return Ok(end);
        }
        if here == (first..first + PAGE_BLOCKS) {
            self.pages.remove(&page);
            self.changed.remove(&page);
            self.change(map, key)?.set(bit, false);
        } else {
            for block in here {
                self.change(page, key)?.set_seal(place(block).entry, None);
            }
        }
        Ok(end)
    }

    /// More of the disk, which reads as zeroes.
    pub(super) fn grow(&mut self, size: u64) -> Result<(), DeviceError> {
        for number in pages::maps(self.size).count()..pages::maps(size).count() {
            let Some(map) = pages::maps(size).nth(number) else { continue };
            self.pages.insert(map, Page::map(map));
            self.changed.insert(map);
        }
        self.pages.insert(0, Page::root(size));
        self.changed.insert(0);
        self.size = size;
        Ok(())
    }

    /// Makes all durable when too much waits.
    pub(super) fn bound(
        &mut self,
        raw: &dyn BlockDevice,
        key: &DataKey,
    ) -> Result<(), DeviceError> {
        if self.changed.len() > CHANGED_MAX || self.pending.len() > CHANGED_MAX {
            return self.commit(raw, key);
        }
        while self.pages.len() > PAGES_KEPT + self.changed.len() {
            let unchanged = self.pages.keys().find(|number| !self.changed.contains(*number));
            let Some(number) = unchanged.copied() else { break };
            self.pages.remove(&number);
        }
        Ok(())
    }

    /// Makes durable what was written, with its seals.
    pub(super) fn commit(
        &mut self,
        raw: &dyn BlockDevice,
        key: &DataKey,
    ) -> Result<(), DeviceError> {
        if self.changed.is_empty() && self.pending.is_empty() {
            return raw.flush();
        }
        let target = || self.files.name.clone();
        let mut batch = key.batch().map_err(|_| DeviceError::NoRandomness { target: target() })?;
        let mut blocks = Vec::with_capacity(self.pending.len());
        for (block, Pending { mut content, lost }) in self.pending.clone() {
            let context = pages::block_context(self.files.disk, block);
            let seal = batch.seal_apart(&context, &mut *content);
            blocks.push((block, content.to_vec()));
            let place = place(block);
            self.page_to_change(place, key)?.set_seal(place.entry, Some(&Seal { lost, seal }));
        }
        let disk = self.files.disk;
        let changed = self.changed.iter().filter_map(|number| {
            let page = self.pages.get(number)?;
            Some((*number, page.sealed(&mut batch, disk, *number)))
        });
        let pages = changed.collect();
        let intent = Intent { sequence: self.sequence + 1, pages, blocks };
        // Until its sync has ended nothing in place is touched: the intent before may be destroyed
        // here, and describes what is there.
        intent::write(&*self.files.intent, &intent, &mut batch, disk)?;
        self.poisoned = true;
        apply(&self.files, &intent, raw)?;
        self.poisoned = false;
        self.sequence = intent.sequence;
        self.changed.clear();
        self.pending.clear();
        Ok(())
    }

    fn page(&mut self, number: u64, key: &DataKey) -> Result<&Page, DeviceError> {
        if !self.pages.contains_key(&number) {
            let page = match self.files.read(key, number) {
                // Its blocks can't be had until they are written again, which must be possible.
                Err(DeviceError::Unauthentic { target, offset }) => {
                    tracing::warn!(target, offset, "seals of an image are not what was written");
                    Page::lost(number, self.size)
                }
                other => other?,
            };
            self.pages.insert(number, page);
        }
        Ok(&self.pages[&number])
    }

    fn change(&mut self, number: u64, key: &DataKey) -> Result<&mut Page, DeviceError> {
        self.page(number, key)?;
        self.changed.insert(number);
        Ok(self.pages.get_mut(&number).expect("it was just read"))
    }

    /// A page of seals, which is new where the map does not know it.
    fn page_to_change(&mut self, place: Place, key: &DataKey) -> Result<&mut Page, DeviceError> {
        let Place { page, map, bit, .. } = place;
        if !self.page(map, key)?.has(bit) {
            self.change(map, key)?.set(bit, true);
            self.pages.insert(page, Page::seals(page));
        }
        self.change(page, key)
    }
}

/// Puts pages and blocks in place, durably.
fn apply(files: &SealedSums, intent: &Intent, raw: &dyn BlockDevice) -> Result<(), DeviceError> {
    for (block, sealed) in &intent.blocks {
        raw.write_at(block * BLOCK_BYTES, sealed)?;
    }
    for (number, sealed) in &intent.pages {
        files.pages.write_at(pages::at(*number), sealed)?;
    }
    files.pages.sync_data()?;
    raw.flush()
}
