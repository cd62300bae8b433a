//! A replica after an I/O error: it says so, and gives its logs up, so that it can be opened anew.

use super::Replica;
use crate::sync::{lock, read, write};

impl Replica {
    /// True when a write or sync has failed, of the superblock or of a log that is written: nothing
    /// is taken any more until the replica is opened anew, which recovers what is durable.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        let core = lock(&self.core);
        core.store.body().is_err() || core.logs.values().any(|(log, _)| log.is_poisoned())
    }

    /// Takes the writing away from everybody, in memory only: the durable role stays, and holds
    /// again when the replica is opened anew. That succeeds when nobody holds this one any more.
    pub fn retire(&self) {
        *write(&self.receiving) = None;
        let branches: Vec<_> = read(&self.branches).values().cloned().collect();
        for branch in branches {
            drop(branch.revoke());
        }
        write(&self.branches).clear();
    }
}
