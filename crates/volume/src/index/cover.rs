//! How the pages of a run stand in its file: as they are, or sealed one by one.

use super::maintain::{NEW_PREFIX, RUN_PREFIX};
use crate::error::StorageError;
use landfall_blockdev::Dir;
use landfall_crypt::{Batch, DataKey, SEAL_BYTES};
use landfall_index::{Damaged, PAGE_BYTES};

/// For the pages of one file.
#[derive(Clone, Debug)]
pub(crate) struct PageCover {
    key: Option<DataKey>,
    /// The file's name without what says whether it is finished: part of each page's context, so
    /// that no page of another file is taken for one of it.
    stem: String,
}

impl PageCover {
    pub(crate) fn of(dir: &dyn Dir, name: &str) -> Self {
        let stem = name.strip_prefix(RUN_PREFIX).or_else(|| name.strip_prefix(NEW_PREFIX));
        Self { key: dir.data_key(), stem: stem.unwrap_or(name).to_owned() }
    }

    /// Bytes of a page in the file.
    pub(crate) const fn stored_bytes(&self) -> usize {
        if self.key.is_some() { PAGE_BYTES + SEAL_BYTES } else { PAGE_BYTES }
    }

    /// Begins to cover pages; none where they stand as they are.
    pub(crate) fn batch(&self) -> Result<Option<Batch>, StorageError> {
        Ok(self.key.as_ref().map(DataKey::batch).transpose()?)
    }

    /// Pages as they are stored, from page `first` on.
    pub(crate) fn cover(&self, batch: &mut Option<Batch>, first: usize, pages: &mut Vec<u8>) {
        let Some(batch) = batch else { return };
        let mut stored = Vec::with_capacity(pages.len() / PAGE_BYTES * self.stored_bytes());
        for (number, page) in (first..).zip(pages.chunks(PAGE_BYTES)) {
            stored.extend_from_slice(&batch.sealed(&self.context(number), page));
        }
        *pages = stored;
    }

    /// A page from what stands in the file.
    pub(crate) fn open<'a>(
        &self,
        number: usize,
        stored: &'a mut [u8],
    ) -> Result<&'a mut [u8], StorageError> {
        let Some(key) = &self.key else { return Ok(stored) };
        let context = self.context(number);
        let page = u32::try_from(number).unwrap_or(u32::MAX);
        let damaged = Damaged { page, what: "its seal" };
        Ok(key.open(&context, stored).map_err(|_| damaged)?)
    }

    fn context(&self, number: usize) -> Vec<u8> {
        let number = number as u64;
        [b"index page", self.stem.as_bytes(), &number.to_le_bytes()].concat()
    }
}
