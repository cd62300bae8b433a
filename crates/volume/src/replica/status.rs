//! What a replica says about itself.

use super::Replica;
use super::core::each_entry;
use crate::body::{Body, DivergenceEntry, ImageCopy, ReplicaDisk, Role};
use crate::error::StorageError;
use crate::line::Line;
use crate::retention::Shortened;
use crate::sync::{lock, read};
use crate::timeline::Point;
use landfall_journal::Position;
use landfall_types::{
    Epoch, InstanceId, Lineage, Lsn, MachineId, ReplicaId, RetentionPolicy, UnixNanos, WindowId,
};

/// A branch, briefly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchStatus {
    /// Name.
    pub name: String,
    /// Where it forked.
    pub fork: Lsn,
    /// Its newest position.
    pub head: Lsn,
    /// It has authority and was not demoted.
    pub authority: bool,
}

/// Divergence that is kept or was discarded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DivergenceStatus {
    /// As it stands in the superblock.
    pub entry: DivergenceEntry,
    /// Bytes written in it; 0 where that is not known any more.
    pub written_bytes: u64,
    /// Time of its first marker.
    pub first_time: Option<UnixNanos>,
    /// Time of its last marker.
    pub last_time: Option<UnixNanos>,
}

/// The recovery points, briefly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PointsStatus {
    /// How many are listed.
    pub listed: u64,
    /// How many thinning has taken off the list so far; they are within what is kept by their LSN.
    pub thinned: u64,
    /// How many are pinned.
    pub pinned: u64,
    /// The oldest content that can be had, and its time where a marker says it.
    pub oldest: Option<(Lsn, Option<UnixNanos>)>,
    /// Milliseconds of history: the age of the oldest listed point (trap T-6).
    pub history_ms: u64,
    /// History that had to go before its time, and is not as long as is asked for yet.
    pub shortened: Option<Shortened>,
}

/// A replica as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// Ours.
    pub replica: ReplicaId,
    /// Of which machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// The instance whose sessions are accepted.
    pub instance: InstanceId,
    /// Durable role.
    pub role: Role,
    /// The history in force: the branch's while one has authority.
    pub lineage: Lineage,
    /// The disks.
    pub disks: Vec<ReplicaDisk>,
    /// The end of the log in force: the branch's while one has authority.
    pub durable: Position,
    /// Newest received position.
    pub received: Lsn,
    /// The image's position.
    pub folded: Lsn,
    /// First position that a commit has left to choose from: the fork of the last one.
    pub points_from: Lsn,
    /// Newest recovery point.
    pub newest_legal: Option<Lsn>,
    /// Newest recovery point that has a marker.
    pub newest_point: Option<Point>,
    /// Windows open at the newest position.
    pub open_windows: Vec<WindowId>,
    /// A first copy.
    pub image_copy: Option<ImageCopy>,
    /// The failover was committed.
    pub committed: bool,
    /// Branches.
    pub branches: Vec<BranchStatus>,
    /// Divergence; [`Replica::divergence`] says more.
    pub divergence: Vec<DivergenceEntry>,
    /// Records kept in all logs.
    pub journal_records: u64,
    /// Bytes of all logs on the retention volume.
    pub journal_bytes: u64,
    /// How long what is kept.
    pub retention: RetentionPolicy,
    /// Name of the key-encryption key; none where the replica is not encrypted.
    pub key: Option<String>,
    /// The recovery points, briefly.
    pub points: PointsStatus,
    /// Highest epoch number seen.
    pub epoch_highest: u64,
    /// Highest epoch.
    pub epoch: Epoch,
}

impl Replica {
    /// How it stands. No I/O.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    pub fn status(&self) -> Result<ReplicaStatus, StorageError> {
        let body = self.body()?;
        let line = self.line();
        let first = Self::first_choice(&body);
        let through = line.settled();
        let in_force = body.authority.and_then(|id| read(&self.branches).get(&id).cloned());
        let in_force = in_force
            .map_or_else(|| std::sync::Arc::clone(&line), |b| std::sync::Arc::clone(b.line()));
        let (journal_records, journal_bytes) = self.journal_size();
        let branches = self.branches();
        let branches = branches.iter().map(|branch| BranchStatus {
            name: branch.entry().name.clone(),
            fork: branch.entry().fork,
            head: branch.head(),
            authority: body.authority == Some(branch.entry().id) && !branch.revoked(),
        });
        Ok(ReplicaStatus {
            replica: body.replica,
            machine: body.machine,
            machine_name: body.machine_name.clone(),
            instance: body.instance,
            role: body.role,
            lineage: body.lineage_in_force().clone(),
            disks: body.disks.clone(),
            durable: in_force.log.durable(),
            received: in_force.log.tail().lsn,
            folded: body.folded,
            points_from: body.points_from,
            newest_legal: line.with_timeline(|t| t.newest_legal(first, through)),
            newest_point: line.with_timeline(|t| t.newest_point(first, through)),
            open_windows: line.with_timeline(|t| t.windows().open_ids()),
            image_copy: body.image_copy.clone(),
            committed: body.committed(),
            branches: branches.collect(),
            divergence: body.divergence.clone(),
            journal_records,
            journal_bytes,
            points: self.points_status(&body, &line),
            retention: body.retention.clone(),
            key: body.encryption.as_ref().map(|envelope| envelope.key.clone()),
            epoch_highest: body.epoch_highest,
            epoch: body.lineage_in_force().epoch(),
        })
    }

    fn points_status(&self, body: &Body, line: &Line) -> PointsStatus {
        let pinned = self.pins(body).len() as u64;
        let first = Self::first_choice(body);
        let through = line.settled();
        let ranges = line.with_timeline(|timeline| timeline.legal_ranges(first, through));
        let keeper = lock(&self.keeper);
        PointsStatus {
            listed: keeper.listing.len() as u64,
            thinned: keeper.listing.thinned(),
            pinned,
            oldest: ranges.first().map(|(at, _)| (*at, Self::marker_time(line, *at))),
            history_ms: keeper.listing.history_ms(),
            shortened: keeper.listing.shortened(),
        }
    }

    pub(super) fn journal_size(&self) -> (u64, u64) {
        let core = lock(&self.core);
        let stats = core.logs.values().map(|(log, _)| log.stat());
        stats.fold((0, 0), |(records, bytes), stat| {
            (records + stat.tail.records_since(stat.base), bytes + stat.file_bytes)
        })
    }

    /// Divergence with its size and times. Looks at every record of it.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    pub fn divergence(&self) -> Result<Vec<DivergenceStatus>, StorageError> {
        let entries = self.body()?.divergence;
        Ok(entries.iter().map(|entry| self.divergence_status(entry)).collect())
    }

    fn divergence_status(&self, entry: &DivergenceEntry) -> DivergenceStatus {
        let log = entry.log.and_then(|log| {
            lock(&self.core).logs.get(&log).map(|(log, _)| std::sync::Arc::clone(log))
        });
        let Some(log) = log else {
            return DivergenceStatus {
                entry: entry.clone(),
                written_bytes: 0,
                first_time: None,
                last_time: None,
            };
        };
        let from = entry.after.max(log.base().0);
        let mut written_bytes = 0;
        let counted = each_entry(&log, from, entry.through, |entry| {
            written_bytes += entry.header.range().map_or(0, |range| range.len());
        });
        if let Err(error) = counted {
            let (replica, name) = (self.id(), &entry.name);
            tracing::warn!(%replica, name, %error, "the size of divergence can't be told");
        }
        let times: Vec<UnixNanos> = log
            .controls()
            .iter()
            .filter(|(lsn, _)| *lsn > from && *lsn <= entry.through)
            .filter_map(|(_, control)| match control {
                landfall_types::Control::Marker(marker) => Some(marker.time()),
                _ => None,
            })
            .collect();
        DivergenceStatus {
            entry: entry.clone(),
            written_bytes,
            first_time: times.first().copied(),
            last_time: times.last().copied(),
        }
    }
}
