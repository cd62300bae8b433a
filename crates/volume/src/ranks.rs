//! Who gets room on the retention volume when there is little (trap T-21): follows the durable
//! role, so that a branch has the reserve from the moment it has authority.

use crate::body::{Body, Role};
use crate::sync::{read, write};
use landfall_blockdev::{Dir, Rank};
use landfall_types::LogId;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// The rank of each log of a replica, as the newest superblock has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranks(Arc<RwLock<BTreeMap<LogId, Rank>>>);

impl Ranks {
    /// What a superblock says.
    pub(crate) fn of(body: &Body) -> Self {
        let ranks = Self::default();
        ranks.follow(body);
        ranks
    }

    /// Takes over what a new superblock says.
    pub(crate) fn follow(&self, body: &Body) {
        *write(&self.0) = body.logs.iter().map(|node| (node.log, rank(body, node.log))).collect();
    }

    /// A log's directory, with room by the log's rank; `first` is the rank of one that no
    /// superblock names yet.
    pub(crate) fn dir(&self, dir: Arc<dyn Dir>, log: LogId, first: Rank) -> Arc<dyn Dir> {
        let ranks = Arc::clone(&self.0);
        let now = move || read(&ranks).get(&log).copied().unwrap_or(first);
        dir.ranked(Arc::new(now)).unwrap_or(dir)
    }
}

fn rank(body: &Body, log: LogId) -> Rank {
    let branch = body.branches.iter().find(|branch| branch.log == log);
    match branch {
        Some(branch) if body.authority == Some(branch.id) && body.role == Role::Writable => {
            Rank::Authority
        }
        // Never had authority, and never will.
        Some(branch) if branch.lineage.is_none() => Rank::Trial,
        _ if log == body.log => Rank::Ingest,
        // What was written before a change of point, kept until it is discarded: nobody adds to it.
        _ => Rank::History,
    }
}
