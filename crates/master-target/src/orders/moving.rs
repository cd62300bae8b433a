//! Orders that change who may write, and the branches that are served.

use super::{Outcome, position, selector};
use crate::blocking::blocking;
use crate::errors;
use crate::export_name::{branch_name_fits, export_name};
use crate::hosted::Hosted;
use crate::report::api_branch;
use crate::reverse::{Reverse, ReverseSpec, wall_time_ns};
use crate::target::Target;
use landfall_api_types::order::OrderOutcome;
use landfall_api_types::request::PointChoice;
use landfall_api_types::{ApiError, codes};
use landfall_types::{BranchId, Chain, Epoch, InstanceId, Lsn, ReplicaId, UnixNanos};
use landfall_volume::{NewAuthority, NewTestBranch, Replica, RoleError};
use std::path::PathBuf;
use std::sync::Arc;

impl Target {
    /// Does something to a replica whose roles change.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        replica: ReplicaId,
        work: impl FnOnce(&Replica) -> Result<T, RoleError> + Send + 'static,
    ) -> Result<(Arc<Hosted>, T), ApiError> {
        let hosted = self.hosted(replica)?;
        let done = hosted.with(work).await.map_err(|error| errors::role(&error))?;
        Ok((hosted, done))
    }

    /// Ends connections to branches that may not be written any more, and waits until nothing of
    /// theirs is in flight.
    async fn disconnect_revoked(&self, hosted: &Hosted) {
        let Ok(status) = hosted.replica.status() else { return };
        let branches = hosted.replica.branches();
        let open: Vec<String> = branches
            .iter()
            .filter(|branch| !branch.revoked())
            .flat_map(|branch| {
                let name = &branch.entry().name;
                status.disks.iter().map(|disk| export_name(&status.machine_name, disk.index, name))
            })
            .collect();
        let machine = format!("{}/", status.machine_name);
        let ends = |name: &str| {
            let what = name.rsplit_once('@').map_or("", |(_, what)| what);
            name.starts_with(&machine) && branch_name_fits(what) && !open.iter().any(|o| o == name)
        };
        self.nbd().disconnect_matching(ends).await;
    }

    pub(super) async fn test_branch(
        self: &Arc<Self>,
        replica: ReplicaId,
        id: BranchId,
        name: String,
        point: PointChoice,
    ) -> Outcome {
        check_name(&name)?;
        let new = NewTestBranch { id, name, point: selector(point) };
        let (hosted, branch) =
            self.change(replica, move |replica| replica.test_branch(&new)).await?;
        Ok(OrderOutcome::Branch(api_branch(self, &hosted, &branch)))
    }

    pub(super) async fn drop_branch(self: &Arc<Self>, replica: ReplicaId, name: String) -> Outcome {
        let work = move |replica: &Replica| replica.drop_test_branch(&name);
        let (hosted, ()) = self.change(replica, work).await?;
        self.disconnect_revoked(&hosted).await;
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn discard(
        self: &Arc<Self>,
        replica: ReplicaId,
        names: Vec<String>,
    ) -> Outcome {
        let hosted = self.hosted(replica)?;
        // Its size and times can't be told afterwards.
        let looked = Arc::clone(&hosted);
        blocking(move || looked.divergence()).await;
        self.change(replica, move |replica| replica.discard_divergence(&names)).await?;
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn freeze(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let (hosted, frozen) = self.change(replica, Replica::freeze).await?;
        hosted.durable.send_if_modified(|known| {
            let rises = frozen.lsn > *known;
            *known = frozen.lsn.max(*known);
            rises
        });
        position(&hosted)
    }

    pub(super) async fn thaw(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        self.change(replica, Replica::thaw).await?;
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn promote(
        self: &Arc<Self>,
        replica: ReplicaId,
        new: NewAuthority,
    ) -> Outcome {
        check_name(&new.name)?;
        let promoted = self.change(replica, move |replica| replica.promote(&new)).await;
        // Also after a failure: the former branch may have been revoked on the way.
        let hosted = self.hosted(replica)?;
        self.disconnect_revoked(&hosted).await;
        let (hosted, branch) = promoted?;
        Ok(OrderOutcome::Branch(api_branch(self, &hosted, &branch)))
    }

    pub(super) async fn commit(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        self.change(replica, Replica::commit).await?;
        // The image is folded to the fork by the maintenance, which finds that by itself after a
        // restart too.
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn demote(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let hosted = self.hosted(replica)?;
        let window_open =
            hosted.reverse.lock().await.as_ref().is_some_and(|reverse| !reverse.compared());
        if window_open && hosted.replica.authority().is_some() {
            let cause = "the comparison with home has not ended: home has no recovery point to continue from";
            return Err(
                ApiError::new(&codes::WRONG_STATE, cause).cure("wait until reprotect has ended")
            );
        }
        let now = UnixNanos(wall_time_ns());
        self.change(replica, move |replica| replica.demote(now)).await?;
        self.disconnect_revoked(&hosted).await;
        position(&hosted)
    }

    pub(super) async fn undemote(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let (hosted, branch) = self.change(replica, Replica::undemote).await?;
        // Its way home held the branch that was revoked.
        let mut reverse = hosted.reverse.lock().await;
        if let Some(former) = reverse.take() {
            former.stop().await;
            let spec = ReverseSpec { compared: former.compared(), ..former.spec.clone() };
            *reverse = Some(self.start_reverse(&hosted, spec).await?);
        }
        drop(reverse);
        Ok(OrderOutcome::Branch(api_branch(self, &hosted, &branch)))
    }

    pub(super) async fn release(
        self: &Arc<Self>,
        replica: ReplicaId,
        lsn: Lsn,
        chain: Chain,
        epoch: Epoch,
    ) -> Outcome {
        let work = move |replica: &Replica| replica.release(lsn, chain, epoch);
        let (_, released) = self.change(replica, work).await?;
        Ok(OrderOutcome::Released { disks: released.disks, folded_bytes: released.folded_bytes })
    }

    pub(super) async fn unrelease(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        self.change(replica, Replica::unrelease).await?;
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn follow(
        self: &Arc<Self>,
        replica: ReplicaId,
        epoch: Epoch,
        fork: Lsn,
        instance: InstanceId,
    ) -> Outcome {
        let work = move |replica: &Replica| replica.follow(epoch, fork, instance);
        self.change(replica, work).await?;
        // The other direction has ended with the epoch.
        self.reverse_stop(replica).await
    }

    pub(super) async fn reverse_start(
        self: &Arc<Self>,
        replica: ReplicaId,
        spec: ReverseSpec,
    ) -> Outcome {
        let hosted = self.hosted(replica)?;
        let mut reverse = hosted.reverse.lock().await;
        if let Some(running) = reverse.as_ref() {
            let same_home = running.spec.to == spec.to && running.spec.instance == spec.instance;
            if same_home && running.spec.next_hop == spec.next_hop {
                return Ok(OrderOutcome::Done);
            }
            running.stop().await;
            // Another way to the same home needs no comparison that was made already.
            let spec = ReverseSpec { compared: same_home && running.compared(), ..spec };
            *reverse = None;
            *reverse = Some(self.start_reverse(&hosted, spec).await?);
            return Ok(OrderOutcome::Done);
        }
        *reverse = Some(self.start_reverse(&hosted, spec).await?);
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn reverse_stop(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let hosted = self.hosted(replica)?;
        if let Some(reverse) = hosted.reverse.lock().await.take() {
            reverse.stop().await;
        }
        ReverseSpec::remove(&self.reverse_folder(), replica).await;
        Ok(OrderOutcome::Done)
    }

    pub(crate) fn reverse_folder(&self) -> PathBuf {
        self.options.state_dir.join("reverse")
    }

    async fn start_reverse(
        &self,
        hosted: &Arc<Hosted>,
        spec: ReverseSpec,
    ) -> Result<Arc<Reverse>, ApiError> {
        let none = || ApiError::new(&codes::NOT_SUPPORTED, "this master target can't send");
        let starter = self.starter.as_ref().ok_or_else(none)?;
        Reverse::start(hosted, spec, starter, self.reverse_folder()).await
    }

    /// Goes on with the ways home that were being gone before a restart.
    pub async fn resume_reverse(self: &Arc<Self>) {
        let folder = self.reverse_folder();
        let all = match blocking(move || ReverseSpec::load_all(&folder)).await {
            Ok(all) => all,
            Err(error) => return tracing::error!(%error, "the ways home can't be read"),
        };
        for (replica, spec) in all {
            let Some(hosted) = self.find(replica) else { continue };
            let mut reverse = hosted.reverse.lock().await;
            if reverse.is_some() {
                continue;
            }
            match self.start_reverse(&hosted, spec).await {
                Ok(started) => *reverse = Some(started),
                Err(error) => tracing::warn!(%replica, %error, "a way home can't be gone on with"),
            }
        }
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if branch_name_fits(name) {
        return Ok(());
    }
    let cause = format!("a branch can't be named {name:?}");
    Err(ApiError::new(&codes::BAD_REQUEST, cause).cure(
        "use 1 to 64 letters, digits, dots, dashes or underscores; not \"latest\" and not a number",
    ))
}
