use crate::sim::image::{Atom, DirId, FileId, Image};
use std::sync::Arc;

/// One step of a recorded run.
#[derive(Clone, Debug)]
pub enum Op {
    /// A change, not durable yet.
    Change(Change),
    /// A file's content and length became durable.
    SyncFile(FileId),
    /// A directory's names became durable.
    SyncDir(DirId),
    /// A sync failed: what was pending for the file is gone, this is what the medium holds now.
    SyncFailed(FileId, Arc<Vec<u8>>),
    /// The code under test promised something to its caller.
    Promise,
}

/// The change of an [`Op`]; opaque.
#[derive(Clone, Debug)]
pub struct Change(pub(crate) Atom);

/// A recorded run: where it began, and every step.
#[derive(Clone, Debug)]
pub struct Trace {
    pub(crate) key: Option<landfall_crypt::DataKey>,
    pub(crate) sector_bytes: u32,
    pub(crate) next_id: u64,
    pub(crate) initial: Image,
    pub(crate) pending: Vec<Atom>,
    pub(crate) ops: Vec<Op>,
}

impl Trace {
    /// The steps.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
}
