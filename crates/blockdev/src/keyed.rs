use crate::{Claim, DeviceError, Dir, File, RankNow};
use landfall_crypt::DataKey;
use std::sync::Arc;

/// A directory whose content is encrypted: the same files, and the key for whoever writes or reads
/// their content. Directories within have the same key.
#[derive(Clone, Debug)]
pub struct KeyedDir {
    inner: Arc<dyn Dir>,
    key: DataKey,
}

impl KeyedDir {
    /// Over `inner`.
    #[must_use]
    pub fn over(inner: Arc<dyn Dir>, key: DataKey) -> Arc<dyn Dir> {
        Arc::new(Self { inner, key })
    }
}

impl Dir for KeyedDir {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        self.inner.create(name)
    }
    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        self.inner.open(name)
    }
    fn list(&self) -> Result<Vec<String>, DeviceError> {
        self.inner.list()
    }
    fn remove(&self, name: &str) -> Result<(), DeviceError> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError> {
        self.inner.rename(from, to)
    }
    fn sync(&self) -> Result<(), DeviceError> {
        self.inner.sync()
    }
    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError> {
        Ok(Self::over(self.inner.subdir(name)?, self.key.clone()))
    }
    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError> {
        self.inner.list_subdirs()
    }
    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError> {
        self.inner.remove_subdir(name)
    }
    fn sector_bytes(&self) -> u32 {
        self.inner.sector_bytes()
    }
    fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        self.inner.free_bytes()
    }
    fn claim(&self) -> Result<Claim, DeviceError> {
        self.inner.claim()
    }
    fn takes_background_work(&self) -> bool {
        self.inner.takes_background_work()
    }
    fn ranked(&self, rank: RankNow) -> Option<Arc<dyn Dir>> {
        Some(Self::over(self.inner.ranked(rank)?, self.key.clone()))
    }
    fn data_key(&self) -> Option<DataKey> {
        Some(self.key.clone())
    }
}
