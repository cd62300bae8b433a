//! Steps of the way home: demote, drain, promote, follow.

use super::orders::{Cx, Done, Failure, silent, unexpected};
use crate::reconcile::fence_prefix;
use landfall_api_types::order::{Order, OrderOutcome, ReplicaPosition};
use landfall_api_types::resource::JobOutcome;
use landfall_api_types::{ApiError, codes};
use landfall_model::authority::{Authority, Change};
use std::time::Instant;

impl Cx<'_> {
    /// Everything that is needed must be there: after the demotion the machine is down until home
    /// has its disks.
    pub(super) async fn check_home(&mut self) -> Result<Done, Failure> {
        for node in self.machine.nodes() {
            if self.app.fleet.gone(node) {
                return Err(Failure::Refused(silent(self.app, node)));
            }
            // This server has just started and waits for first reports.
            if !self.app.fleet.in_contact(node) {
                return Err(Failure::Wait(silent(self.app, node)));
            }
        }
        let agent = self.machine.body.agent;
        let report = self.app.fleet.agent(agent);
        let report = report.ok_or_else(|| Failure::Refused(silent(self.app, agent)))?;
        // An order to fence that is still open would reach the agent after it was given the new
        // epoch.
        let prefix = fence_prefix(self.machine.row.id);
        let open = self.app.store.read().await?.open_orders(agent).await?;
        if open.iter().any(|order| order.idempotency.starts_with(&prefix)) {
            return Err(Failure::Wait(silent(self.app, agent)));
        }
        // The instance that runs at home now is the one that gets authority (trap T-11).
        self.machine.body.instance = report.instance;
        Done::with("every server that is needed is in contact")
    }

    pub(super) async fn demote(&mut self) -> Result<Done, Failure> {
        let (node, replica) = (self.machine.body.master_target, self.machine.body.replica);
        let outcome = self.order(node, "demote", &Order::MtDemote { replica }).await?;
        let OrderOutcome::Position(receipt) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        if matches!(self.machine.authority.authority, Authority::Held { .. }) {
            let epoch = self.machine.authority.lineage.epoch().id;
            let (lsn, chain) = (receipt.durable, receipt.chain);
            self.change_authority(&Change::Demoted { epoch, lsn, chain })?;
        }
        let detail = format!("the recovery site has ended at LSN {}", receipt.durable);
        self.job.body.vars.receipt = Some(receipt);
        Done::with(detail)
    }

    fn receipt(&self) -> Result<ReplicaPosition, Failure> {
        self.job.body.vars.receipt.clone().ok_or_else(|| {
            Failure::Refused(ApiError::new(&codes::INTERNAL, "there is no receipt of the demotion"))
        })
    }

    /// Waits until home has everything durable, as long as it takes and gets further.
    pub(super) async fn await_home(&mut self) -> Result<Done, Failure> {
        let lsn = self.receipt()?.durable;
        let reverse = self.reverse()?;
        let wait_ms = u64::try_from(self.app.timing.order_wait.as_millis()).unwrap_or(u64::MAX);
        let order = Order::MtAwait { replica: reverse.replica, lsn, wait_ms };
        let (mut best, mut since) = (None, Instant::now());
        for round in 0_u32.. {
            let node = reverse.master_target;
            let outcome = self.order(node, &format!("await-{round}"), &order).await?;
            let OrderOutcome::Position(position) = outcome else {
                return Err(unexpected(self.app, node, &outcome).into());
            };
            if position.durable >= lsn {
                return Done::with(format!("durable at home through LSN {}", position.durable));
            }
            if best.is_none_or(|best| position.durable > best) {
                (best, since) = (Some(position.durable), Instant::now());
            } else if since.elapsed() > self.app.timing.drain_stall {
                let cause = format!(
                    "home is durable through LSN {} of {lsn} and gets no further",
                    position.durable
                );
                return Err(Failure::Refused(
                    ApiError::new(&codes::RELAY_NOT_DRAINED, cause)
                        .cure("mend the link and retry the job; or cancel it"),
                ));
            }
        }
        Done::with("")
    }

    pub(super) async fn drain_reverse(&mut self) -> Result<Done, Failure> {
        let reverse = self.reverse()?;
        match self.drain(reverse.process_server, reverse.replica).await? {
            Some(detail) => Done::with(detail),
            // Home has everything through the receipt already: the relay can hold nothing newer.
            None => Done::skipped(silent(self.app, reverse.process_server).cause),
        }
    }

    /// The relay takes from upstream again.
    pub(super) async fn reopen_reverse(&mut self) -> Result<Done, Failure> {
        let relay = self.reverse()?.process_server;
        let order = self.home_route()?;
        self.take_back(relay, "route", &order).await
    }

    /// Home must stand exactly where the recovery site ended: same position, same history.
    pub(super) async fn freeze_home(&mut self) -> Result<Done, Failure> {
        let receipt = self.receipt()?;
        let reverse = self.reverse()?;
        let node = reverse.master_target;
        let outcome =
            self.order(node, "freeze", &Order::MtFreeze { replica: reverse.replica }).await?;
        let OrderOutcome::Position(position) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        if (position.durable, position.chain) != (receipt.durable, receipt.chain) {
            let cause = format!(
                "home stands at LSN {} ({}), the recovery site ended at LSN {} ({})",
                position.durable, position.chain, receipt.durable, receipt.chain
            );
            return Err(Failure::Refused(ApiError::new(&codes::VERIFY_FAILED, cause)));
        }
        Done::with(format!("LSN {}, the same history", position.durable))
    }

    pub(super) async fn release(&mut self) -> Result<Done, Failure> {
        let receipt = self.receipt()?;
        let reverse = self.reverse()?;
        let holder = self.reserved()?;
        let order = Order::MtRelease {
            replica: reverse.replica,
            lsn: receipt.durable,
            chain: receipt.chain,
            epoch: holder.epoch,
        };
        let node = reverse.master_target;
        let outcome = self.order(node, "release", &order).await?;
        let OrderOutcome::Released { disks, folded_bytes } = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        let lineage = &self.machine.authority.lineage;
        let lineage = super::failover::forked(lineage, holder.epoch, receipt.durable)?;
        self.machine.authority.lineage = lineage.clone();
        self.machine.authority.replicated = lineage;
        self.change_authority(&Change::Promoted { epoch: holder.epoch.id })?;
        let detail = format!("{} disks, {folded_bytes} bytes were written into them", disks.len());
        // The disks may have other paths than when they were protected: the agent must capture
        // these.
        for (disk, path) in self.machine.body.disks.iter_mut().zip(&disks) {
            disk.path.clone_from(path);
        }
        self.job.body.vars.released = disks;
        Done::with(detail)
    }

    /// The recovery site becomes the receiver again, of the epoch that home writes in.
    pub(super) async fn follow(&mut self) -> Result<Done, Failure> {
        let receipt = self.receipt()?;
        let entry = *self.machine.authority.lineage.last();
        let order = Order::MtFollow {
            replica: self.machine.body.replica,
            epoch: entry.epoch,
            fork: receipt.durable,
            instance: self.machine.body.instance,
        };
        self.order(self.machine.body.master_target, "follow", &order).await?;
        self.job.body.outcome = Some(JobOutcome::Released {
            epoch: entry.epoch,
            lsn: receipt.durable,
            disks: self.job.body.vars.released.clone(),
        });
        Done::with(format!("epoch {} from LSN {}", entry.epoch, receipt.durable))
    }
}
