//! The superblock with the logs that it names, and what follows from both alone.

use crate::body::{BaseContent, Body, ReplicaDisk};
use crate::error::StorageError;
use crate::index::{Scene, SceneLevel};
use crate::line::{BranchLog, Line};
use crate::medium::{Geometries, Medium, Slot};
use crate::store::Store;
use crate::timeline::Timeline;
use crate::tree;
use landfall_blockdev::Dir;
use landfall_journal::{Entry, JournalError, Log};
use landfall_types::{LogId, Lsn};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The superblock and what only changes together with it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) store: Store,
    pub(super) logs: BTreeMap<LogId, (Arc<Log>, Slot)>,
    /// The log of a demoted branch: nothing writes it, and it takes no frames yet.
    pub(super) parked: Option<BranchLog>,
}

impl Core {
    pub(super) fn add_log(
        &mut self,
        medium: &Medium,
        log: Log,
        dir: &Arc<dyn Dir>,
    ) -> Result<(), StorageError> {
        let log = Arc::new(log);
        let slot = medium.add_log(Arc::clone(&log), dir)?;
        self.logs.insert(log.id(), (log, slot));
        Ok(())
    }

    pub(super) fn log(&self, log: LogId) -> Result<&(Arc<Log>, Slot), StorageError> {
        self.logs.get(&log).ok_or(StorageError::LogMissing)
    }

    /// The line of a log at its newest position. Nothing may append to it meanwhile.
    pub(super) fn line(
        &self,
        medium: &Medium,
        body: &Body,
        log: LogId,
    ) -> Result<Line, StorageError> {
        let (kept, slot) = self.log(log)?;
        let at = kept.tail().lsn;
        let timeline = self.timeline(body, log, at)?;
        let scene = self.scene(medium, body, log, None)?;
        Ok(Line::new(medium.index(*slot)?, scene, geometries(body, &timeline, at), timeline))
    }

    /// Who holds the content at a position, or at the newest. Nothing of the logs is read.
    pub(super) fn scene(
        &self,
        medium: &Medium,
        body: &Body,
        log: LogId,
        at: Option<Lsn>,
    ) -> Result<Scene, StorageError> {
        let end = at.unwrap_or(Lsn::MAX);
        let levels = tree::levels(&body.logs, log, end, body.floor());
        let levels = levels.ok_or(StorageError::LogMissing)?.into_iter().map(|level| {
            let index = medium.index(self.log(level.log)?.1)?;
            let newest = level.log == log && at.is_none();
            let through = (!newest).then_some(level.through);
            Ok(SceneLevel { index, after: level.after, through })
        });
        let levels = levels.collect::<Result<_, StorageError>>()?;
        Ok(Scene::new(Arc::clone(&medium.pool), Arc::clone(&medium.floor), levels))
    }

    /// The control records of a history up to a position.
    pub(super) fn timeline(
        &self,
        body: &Body,
        log: LogId,
        at: Lsn,
    ) -> Result<Timeline, StorageError> {
        let levels =
            tree::levels(&body.logs, log, at, body.folded).ok_or(StorageError::LogMissing)?;
        let disks: Vec<_> = body.disks.iter().map(|disk| disk.index).collect();
        let mut doubt = body.doubt;
        let mut timeline = match body.base {
            BaseContent::Exact => Timeline::exact(body.folded).with_first(body.folded_point()),
            BaseContent::Unknown => Timeline::unknown(&disks),
        };
        for level in levels {
            let (log, _) = self.log(level.log)?;
            for (lsn, control) in log.controls() {
                if level.after < lsn && lsn <= level.through {
                    if doubt.is_some_and(|doubt| doubt < lsn) {
                        timeline.doubt(&disks);
                        doubt = None;
                    }
                    // Checked when it was appended: what does not fit is not what we wrote.
                    timeline.apply(lsn, &control).map_err(|_| StorageError::LogMissing)?;
                }
            }
        }
        if doubt.is_some_and(|doubt| doubt <= at) {
            timeline.doubt(&disks);
        }
        Ok(timeline)
    }
}

/// Sizes and sectors of the disks at a position (trap T-9).
pub(super) fn geometries(body: &Body, timeline: &Timeline, at: Lsn) -> Geometries {
    let geometry = |disk: &ReplicaDisk| timeline.geometry(disk.index, at).unwrap_or(disk.geometry);
    body.disks.iter().map(|disk| (disk.index, geometry(disk))).collect()
}

/// Record headers that are in memory at once while all of a log are looked at.
const ENTRIES_AT_ONCE: u64 = 16 << 10;

/// Looks at every record of a log behind `from`, up to and including `through`, some thousands at a
/// time.
pub(super) fn each_entry(
    log: &Log,
    from: Lsn,
    through: Lsn,
    mut look: impl FnMut(&Entry),
) -> Result<(), JournalError> {
    let mut at = from;
    while at < through {
        let to = through.min(at.plus(ENTRIES_AT_ONCE));
        log.entries(at, to)?.iter().for_each(&mut look);
        at = to;
    }
    Ok(())
}
