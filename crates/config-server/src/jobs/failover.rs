//! Steps of failover, change of point and commit.

use super::Params;
use super::orders::{Cx, Done, Failure, silent, unexpected};
use crate::{ServerError, app, points};
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::JobOutcome;
use landfall_api_types::{ApiError, codes};
use landfall_model::MachineState;
use landfall_model::authority::{self, Authority, Change, Holder, Side};
use landfall_types::{
    BranchId, Class, Epoch, EpochId, Lineage, LineageEntry, Lsn, NodeId, ReplicaId,
};
use std::time::{Duration, Instant};

/// How long the old source is waited for when it is told that its epoch is over: a reconciler tells
/// it later, too.
const FENCE_PATIENCE: Duration = Duration::from_secs(2);

impl Cx<'_> {
    pub(super) fn change_authority(&mut self, change: &Change) -> Result<(), Failure> {
        let highest = self.machine.authority_row.highest;
        let now = &self.machine.authority.authority;
        let next = authority::next(now, change, highest).map_err(|error| {
            let code = match error.class() {
                Class::Fenced => &codes::FENCED,
                Class::Permanent => &codes::NO_FENCE_PROOF,
                _ => &codes::INTERNAL,
            };
            Failure::Refused(ApiError::new(code, error.to_string()))
        })?;
        self.machine.authority.authority = next;
        Ok(())
    }

    /// Looks the point up before anything is changed: a wrong choice costs nothing.
    pub(super) async fn check_point(&mut self) -> Result<Done, Failure> {
        let choice = match &self.job.body.params {
            Params::Failover(ask) => ask.point.clone(),
            Params::ChangePoint(ask) => ask.point.clone(),
            _ => PointChoice::Latest,
        };
        let (node, replica) = (self.machine.body.master_target, self.machine.body.replica);
        let outcome = self.order(node, "points", &Order::MtPoints { replica }).await?;
        let OrderOutcome::Points(found) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        // "Not yet" would be waited for; but nothing more comes from a dead source.
        let point = points::choose(&found, &choice).map_err(Failure::Refused)?;
        let detail = match &point {
            PointChoice::Lsn(lsn) => format!("LSN {lsn}"),
            _ => "the latest".to_owned(),
        };
        self.job.body.vars.point = Some(point);
        Done::with(detail)
    }

    /// The operator's word, recorded: from here on authority is vacant until somebody is promoted.
    pub(super) fn attest(&mut self) -> Result<Done, Failure> {
        let Params::Failover(ask) = &self.job.body.params else {
            return Err(Failure::Refused(ApiError::new(&codes::INTERNAL, "no failover")));
        };
        let words = ask.source_is_dead.clone().unwrap_or_default();
        if matches!(self.machine.authority.authority, Authority::Held { .. }) {
            let by = self.job.body.by.clone();
            self.change_authority(&Change::Attested { by, words: words.clone() })?;
        }
        self.job.body.vars.notes.push(format!("the source is dead: {words}"));
        Done::with(words)
    }

    pub(super) async fn drain_forward(&mut self) -> Result<Done, Failure> {
        let skip = matches!(&self.job.body.params, Params::Failover(ask) if ask.skip_drain);
        let (relay, replica) = (self.machine.body.process_server, self.machine.body.replica);
        let name = self.app.fleet.name(relay);
        let held = self.app.fleet.relay(relay, replica).map_or_else(
            || "what it holds is not known".to_owned(),
            |report| {
                format!(
                    "it last reported {} bytes in {} records, the oldest {:.0} s old, which the \
                     target did not have",
                    report.spool_bytes, report.spool_records, report.spool_age_s
                )
            },
        );
        if skip {
            let note = format!("{name} was not drained, as asked; {held}");
            self.job.body.vars.notes.push(note.clone());
            return Done::skipped(note);
        }
        match self.drain(relay, replica).await? {
            Some(detail) => Done::with(detail),
            None => {
                let note = format!("{name} is out of contact: not drained; {held}");
                self.job.body.vars.notes.push(note.clone());
                Done::skipped(note)
            }
        }
    }

    /// Trap T-14: the relay takes nothing more from upstream and delivers what it has acknowledged.
    /// `None` when it is out of contact.
    pub(super) async fn drain(
        &self,
        relay: NodeId,
        replica: ReplicaId,
    ) -> Result<Option<String>, Failure> {
        let wait = self.app.timing.order_wait;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let order = Order::PsDrain { replica, wait_ms };
        let (mut least, mut since) = (u64::MAX, Instant::now());
        for round in 0_u32.. {
            let patience = wait + self.app.timing.question;
            let key = format!("drain-{round}");
            let outcome = self.order_if_there(relay, &key, &order, patience).await;
            let outcome = match outcome {
                // It never carried anything for this replica: a relay that was set up anew.
                Err(Failure::Refused(error)) if error.code == codes::NOT_FOUND.name => {
                    return Ok(Some("it holds nothing".to_owned()));
                }
                other => other?,
            };
            let (bytes, records, age_s) = match outcome {
                None => return Ok(None),
                Some(OrderOutcome::Drained { bytes, records, age_s }) => (bytes, records, age_s),
                Some(other) => return Err(unexpected(self.app, relay, &other).into()),
            };
            if records == 0 && bytes == 0 {
                return Ok(Some(format!("{} is empty", self.app.fleet.name(relay))));
            }
            if bytes < least {
                (least, since) = (bytes, Instant::now());
            } else if since.elapsed() > self.app.timing.drain_stall {
                let name = self.app.fleet.name(relay);
                let cause = format!(
                    "{name} still holds {bytes} bytes in {records} records, the oldest {age_s:.0} s \
                     old, and gets no further"
                );
                // Not waited for any longer without a person knowing.
                return Err(Failure::Refused(
                    ApiError::new(&codes::RELAY_NOT_DRAINED, cause).cure(
                        "retry the job to go on draining; or cancel it and fail over with \
                         --skip-drain to lose what is shown",
                    ),
                ));
            }
        }
        Ok(None)
    }

    /// The relay takes from upstream again.
    pub(super) async fn reopen_forward(&mut self) -> Result<Done, Failure> {
        let order = self.forward_route()?;
        self.take_back(self.machine.body.process_server, "route", &order).await
    }

    pub(super) async fn freeze_target(&mut self) -> Result<Done, Failure> {
        let (node, replica) = (self.machine.body.master_target, self.machine.body.replica);
        let outcome = self.order(node, "freeze", &Order::MtFreeze { replica }).await?;
        let OrderOutcome::Position(position) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        Done::with(format!("durable through LSN {}", position.durable))
    }

    /// The new epoch is durable before anybody is told to promote in it: after a crash the same one
    /// is ordered again, never another (trap T-17).
    pub(super) fn reserve_epoch(&mut self) -> Result<Done, Failure> {
        let machine = &self.machine;
        let homeward = machine.row.state == MachineState::FailingBack;
        let change = matches!(machine.authority.authority, Authority::Held { .. });
        let parent = match change {
            true => machine.authority.replicated.epoch().id,
            false => machine.authority.lineage.epoch().id,
        };
        let number = machine.authority_row.highest + 1;
        let id = EpochId::new(app::random()?);
        let epoch = Epoch { number, id, parent: Some(parent) };
        let branch = (!homeward).then(BranchId::generate);
        let side = if homeward { Side::Home } else { Side::Recovery };
        let holder = Holder { epoch, side, branch };
        self.change_authority(&match change {
            true => Change::ChangeReserved { holder },
            false => Change::Reserved { holder },
        })?;
        self.machine.authority_row.highest = number;
        Done::with(format!("epoch {epoch}"))
    }

    /// The epoch and branch that are reserved.
    pub(super) fn reserved(&self) -> Result<Holder, Failure> {
        match self.machine.authority.authority {
            Authority::Promoting { holder, .. } => Ok(holder),
            Authority::Held { .. } | Authority::Vacant { .. } => {
                let cause = "no epoch is reserved";
                Err(Failure::Refused(ApiError::new(&codes::INTERNAL, cause)))
            }
        }
    }

    pub(super) async fn promote(&mut self) -> Result<Done, Failure> {
        let holder = self.reserved()?;
        let (node, replica) = (self.machine.body.master_target, self.machine.body.replica);
        let order = Order::MtPromote {
            replica,
            branch: holder.branch.unwrap_or_else(BranchId::generate),
            name: format!("epoch-{}", holder.epoch.number),
            point: self.job.body.vars.point.clone().unwrap_or(PointChoice::Latest),
            epoch: holder.epoch,
        };
        let outcome = self.order(node, "promote", &order).await?;
        let OrderOutcome::Branch(branch) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        // The first promotion forks from the log that was replicated, and so does every change of
        // point after it.
        if self.machine.row.state == MachineState::FailingOver {
            self.machine.authority.replicated = self.machine.authority.lineage.clone();
        }
        let replicated = &self.machine.authority.replicated;
        self.machine.authority.lineage = forked(replicated, holder.epoch, branch.fork)?;
        self.change_authority(&Change::Promoted { epoch: holder.epoch.id })?;
        let detail =
            format!("branch {} in epoch {} at LSN {}", branch.name, holder.epoch, branch.fork);
        self.job.body.outcome = Some(JobOutcome::Branch(branch.clone()));
        self.job.body.vars.branch = Some(branch);
        Done::with(detail)
    }

    /// Tells a source that is in contact that its epoch is over. One that is not is told when it
    /// returns.
    pub(super) async fn fence_source(&mut self) -> Result<Done, Failure> {
        let agent = self.machine.body.agent;
        if !self.app.fleet.in_contact(agent) {
            let name = self.app.fleet.name(agent);
            return Done::skipped(format!(
                "{name} is out of contact: it is fenced when it returns"
            ));
        }
        let epoch = self.machine.authority.lineage.epoch();
        let order = Order::AgentFence { epoch };
        match self.order_if_there(agent, "fence", &order, FENCE_PATIENCE).await? {
            Some(_) => Done::with("the source is fenced"),
            None => Done::skipped(silent(self.app, agent).cause),
        }
    }

    pub(super) async fn commit_branch(&mut self) -> Result<Done, Failure> {
        let (node, replica) = (self.machine.body.master_target, self.machine.body.replica);
        self.order(node, "commit", &Order::MtCommit { replica }).await?;
        self.machine.authority.replicated = self.machine.authority.lineage.clone();
        Done::with("older points can't be chosen any more")
    }
}

/// The history of an epoch that forks off a log, as the replica computes it: only what lies before
/// the fork is shared, and the parent is the epoch that the fork lies in.
pub(super) fn forked(log: &Lineage, epoch: Epoch, fork: Lsn) -> Result<Lineage, Failure> {
    let wrong = |error: landfall_types::LineageError| {
        Failure::Server(ServerError::Store(landfall_store::StoreError::Damaged {
            what: "a lineage",
            value: error.to_string(),
        }))
    };
    let shared = |entry: &&LineageEntry| entry.fork == Lsn::ZERO || entry.fork <= fork;
    let entries: Vec<_> = log.entries().iter().take_while(shared).copied().collect();
    let shared = Lineage::from_entries(entries).map_err(wrong)?;
    let epoch = Epoch { parent: Some(shared.epoch().id), ..epoch };
    shared.extend(epoch, fork).map_err(wrong)
}
