use crate::{Export, ExportError, Exports};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Exports by name, which may change while a server runs.
#[derive(Default)]
pub struct ExportMap {
    exports: Mutex<BTreeMap<String, Arc<dyn Export>>>,
}

impl ExportMap {
    /// With one export.
    #[must_use]
    pub fn of(name: &str, export: Arc<dyn Export>) -> Arc<Self> {
        let map = Arc::new(Self::default());
        map.insert(name, export);
        map
    }

    /// Adds an export, or replaces the one of that name.
    pub fn insert(&self, name: &str, export: Arc<dyn Export>) {
        self.lock().insert(name.to_owned(), export);
    }

    /// Takes an export away; clients that have it open keep it.
    pub fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<dyn Export>>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Exports for ExportMap {
    async fn list(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Export>, ExportError> {
        self.lock().get(name).cloned().ok_or_else(|| ExportError::Unknown(name.to_owned()))
    }
}
