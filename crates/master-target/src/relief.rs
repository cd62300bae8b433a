//! Room on the retention volume: who gives way is decided by `pressure.rs`, carried out here.

use crate::errors;
use crate::export_name::export_name;
use crate::hosted::Hosted;
use crate::outlook::Volume;
use crate::pressure::{Step, Taker, give_way};
use crate::target::Target;
use landfall_api_types::alert::{Condition, Severity};
use landfall_api_types::{ApiError, codes};
use landfall_types::{Lsn, ReplicaId, UnixNanos};
use landfall_volume::Replica;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time between markers on a branch from which a machine runs: as the protection's own default.
const MARKER_INTERVAL: Duration = Duration::from_secs(5);

impl Target {
    /// Looks at the volume's room, and lets give way what has to. The bytes of journal that each
    /// replica has to give up are the caller's to fold.
    pub(crate) async fn relieve(self: &Arc<Self>) -> BTreeMap<ReplicaId, u64> {
        let Some(volume) = Volume::of(&self.options.retention_dir) else { return BTreeMap::new() };
        let takers: Vec<Taker> = self.all().iter().filter_map(|hosted| taker(hosted)).collect();
        let steps = give_way(volume, self.options.segment_bytes, &takers);
        if steps.is_empty() {
            self.forget_given_way();
        }
        let mut give_up = BTreeMap::new();
        let mut stop = false;
        for step in steps {
            match step {
                Step::GiveUp(replica, bytes) => drop(give_up.insert(replica, bytes)),
                Step::DropTestBranch(replica, name) => self.give_test_up(replica, name).await,
                Step::Unpin(replica, lsn) => self.unpin(replica, lsn).await,
                Step::StopIngest => stop = true,
            }
        }
        if self.ingest_stopped.swap(stop, Ordering::Relaxed) != stop {
            tracing::warn!(stop, free = volume.free, "ingest, because a machine needs the room");
        }
        give_up
    }

    async fn unpin(self: &Arc<Self>, replica: ReplicaId, lsn: Lsn) {
        let Some(hosted) = self.find(replica) else { return };
        let Ok(status) = hosted.replica.status() else { return };
        let unpinned = hosted.with(move |replica| replica.unpin_point(lsn)).await;
        if let Err(error) = unpinned {
            tracing::error!(%replica, %lsn, error = errors::chain(&error), "it stays pinned");
            return;
        }
        let cause = format!(
            "the pinned point at LSN {lsn} may expire: a machine runs from the same retention \
             volume, which has no more room"
        );
        tracing::warn!(%replica, cause);
        self.note_given_way(Condition {
            severity: Severity::Critical,
            machine: Some(status.machine),
            error: ApiError::new(&codes::POINT_UNPINNED, cause).detail("lsn", lsn),
        });
    }

    async fn give_test_up(self: &Arc<Self>, replica: ReplicaId, name: String) {
        let Some(hosted) = self.find(replica) else { return };
        let Ok(status) = hosted.replica.status() else { return };
        for disk in &status.disks {
            let export = export_name(&status.machine_name, disk.index, &name);
            self.nbd().disconnect_matching(|open| open == export).await;
        }
        let dropped = name.clone();
        let gone = hosted.with(move |replica| replica.drop_test_branch(&dropped)).await;
        if let Err(error) = gone {
            let error = errors::chain(&error);
            tracing::error!(%replica, branch = name, error, "it can't be thrown away");
            return;
        }
        let cause = format!(
            "test branch {name:?} was thrown away: a machine runs from the same retention volume, \
             which has no more room"
        );
        tracing::warn!(%replica, cause);
        self.note_given_way(Condition {
            severity: Severity::Warning,
            machine: Some(status.machine),
            error: ApiError::new(&codes::TEST_BRANCH_DROPPED, cause).detail("branch", name),
        });
    }
}

fn taker(hosted: &Hosted) -> Option<Taker> {
    let status = hosted.replica.status().ok()?;
    let authority = hosted.replica.authority().map(|branch| branch.entry().id);
    let branches = hosted.replica.branches();
    let tests = branches.iter().filter(|branch| branch.entry().lineage.is_none());
    Some(Taker {
        replica: status.replica,
        journal_bytes: status.journal_bytes,
        runs_a_machine: authority.is_some(),
        test_branches: tests.map(|b| (b.entry().name.clone(), b.written_bytes())).collect(),
        pinned: hosted.replica.choices().ok()?.pinned.first().copied(),
    })
}

/// Puts a marker on the branch from which a machine runs, when it was written since the last one.
/// Without them nothing of its log would ever be a listed point, and nothing would expire.
pub(crate) async fn mark(hosted: &Arc<Hosted>, now_ms: u64) {
    // A way home puts markers of its own.
    if hosted.reverse.lock().await.is_some() || !hosted.marker_due(now_ms, MARKER_INTERVAL) {
        return;
    }
    let held = Arc::clone(hosted);
    let marked = hosted.with(move |replica| put_marker(replica, &held));
    if let Err(error) = marked.await {
        let (replica, error) = (hosted.replica.id(), errors::chain(&error));
        tracing::warn!(%replica, error, "a marker could not be put");
    }
}

fn put_marker(replica: &Replica, hosted: &Hosted) -> Result<(), landfall_volume::ContentError> {
    let Some(branch) = replica.authority() else { return Ok(()) };
    if branch.head() == hosted.marked() {
        return Ok(());
    }
    let now = UnixNanos(crate::reverse::wall_time_ns());
    let at = branch.append_control(&crate::reverse::marker_at(now))?;
    branch.flush()?;
    hosted.set_marked(at);
    Ok(())
}
