//! Steps of turning replication towards home.

use super::kind::Params;
use super::orders::{Cx, Done, Failure, question, silent, unexpected};
use super::protect::{check_fits, usable};
use super::start::{check_accepts, find_machine, find_server};
use crate::app::App;
use crate::record::{MachineRecord, Reverse};
use landfall_api_types::node::ReplicaReport;
use landfall_api_types::order::{MtCreate, Order, OrderOutcome};
use landfall_api_types::request::{Reprotect, ReprotectEstimate};
use landfall_api_types::resource::{Divergence, NodeRole};
use landfall_api_types::{ApiError, codes};
use landfall_model::Command;
use landfall_types::{InstanceId, NodeId, ReplicaId};
use std::collections::BTreeSet;

/// The name under which home's replica keeps what the old disks held (trap T-15).
const OLD_DISKS: &str = "old-disks";

/// What a reprotect would send and lose; also checks that it could begin.
pub(crate) async fn reprotect_estimate(
    app: &App,
    name: &str,
    ask: &Reprotect,
) -> Result<ReprotectEstimate, ApiError> {
    let mut tx = app.store.read().await.map_err(crate::ServerError::Store)?;
    let machine = find_machine(&mut tx, name).await?;
    drop(tx);
    check_accepts(machine.row.state, Command::Reprotect)?;
    let home = find_server(app, &ask.master_target, NodeRole::MasterTarget)?;
    let relay = find_server(app, &ask.process_server, NodeRole::ProcessServer)?;
    for node in [home, relay] {
        if !app.fleet.in_contact(node) {
            return Err(silent(app, node));
        }
    }
    let (node, replica) = (machine.body.master_target, machine.body.replica);
    let outcome = question(app, node, &Order::MtEstimate { replica }).await?;
    let OrderOutcome::Estimate { bytes, divergence } = outcome else {
        return Err(unexpected(app, node, &outcome));
    };
    let mut divergence: Vec<_> = divergence.into_iter().filter(|one| !one.discarded).collect();
    for one in divergence.iter_mut().filter(|one| one.server.is_empty()) {
        // A target does not know the name that it is registered under.
        one.server = app.fleet.name(node);
    }
    if !divergence.iter().any(|one| one.name == OLD_DISKS) {
        divergence.push(old_disks(app, &machine, home));
    }
    Ok(ReprotectEstimate {
        estimate_bytes: bytes,
        total_bytes: machine.body.disks.iter().map(|disk| disk.geometry.size_bytes).sum(),
        uncertainty: "blocks that were written at home and never arrived here are not counted; \
                      the comparison finds them"
            .to_owned(),
        divergence,
    })
}

fn old_disks(app: &App, machine: &MachineRecord, home: NodeId) -> Divergence {
    let after = machine.fork();
    Divergence {
        name: OLD_DISKS.to_owned(),
        server: app.fleet.name(home),
        description: "what the disks at home hold now: all that was written there after the \
                      chosen point, whether it arrived elsewhere or not"
            .to_owned(),
        epoch: None,
        after,
        through: after,
        written_bytes: 0,
        first_time: None,
        last_time: None,
        discarded: false,
    }
}

/// Trap T-15: whatever is lost is named by whoever gives it up.
pub(crate) fn check_divergence(
    estimate: &ReprotectEstimate,
    named: &[String],
) -> Result<(), ApiError> {
    let kept: Vec<_> = estimate
        .divergence
        .iter()
        .filter(|one| !named.contains(&one.name))
        .map(|one| format!("{} at {}", one.name, one.server))
        .collect();
    if !kept.is_empty() {
        let cause = format!("this would be lost and was not named: {}", kept.join(", "));
        return Err(
            ApiError::new(&codes::DIVERGENCE_KEPT, cause).detail("divergence", kept.join(", "))
        );
    }
    let known: BTreeSet<_> = estimate.divergence.iter().map(|one| &one.name).collect();
    match named.iter().find(|name| !known.contains(name)) {
        Some(unknown) => {
            let cause = format!("discard_divergence: nothing is named {unknown:?}");
            Err(ApiError::new(&codes::BAD_REQUEST, cause))
        }
        None => Ok(()),
    }
}

/// The direction towards home as it is asked for.
pub(super) fn reverse(
    app: &App,
    machine: &MachineRecord,
    ask: &Reprotect,
) -> Result<Reverse, ApiError> {
    let own = || machine.body.disks.iter().map(|disk| disk.path.clone()).collect();
    let disks: Vec<String> = if ask.disks.is_empty() { own() } else { ask.disks.clone() };
    if disks.len() != machine.body.disks.len() {
        let cause =
            format!("{} disks were named, it has {}", disks.len(), machine.body.disks.len());
        return Err(ApiError::new(&codes::DISK_MISMATCH, cause));
    }
    let different: BTreeSet<_> = disks.iter().collect();
    if different.len() != disks.len() {
        return Err(ApiError::new(&codes::DISK_TAKEN, "a disk is named twice"));
    }
    Ok(Reverse {
        process_server: find_server(app, &ask.process_server, NodeRole::ProcessServer)?,
        master_target: find_server(app, &ask.master_target, NodeRole::MasterTarget)?,
        replica: ReplicaId::generate(),
        instance: InstanceId::generate(),
        disks,
        base: None,
        discard: ask.discard_divergence.clone(),
    })
}

impl Cx<'_> {
    pub(super) fn reverse(&self) -> Result<Reverse, Failure> {
        self.machine.body.reverse.clone().ok_or_else(|| {
            Failure::Refused(ApiError::new(&codes::INTERNAL, "there is no direction towards home"))
        })
    }

    pub(super) async fn inspect_home(&mut self) -> Result<Done, Failure> {
        let reverse = self.reverse()?;
        let node = reverse.master_target;
        let order = Order::MtInspect { disks: reverse.disks.clone() };
        let outcome = self.order(node, "inspect", &order).await?;
        let OrderOutcome::Inspected { disks } = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        let found = usable(&disks)?;
        for ((disk, found), path) in self.machine.body.disks.iter().zip(found).zip(&reverse.disks) {
            check_fits(path, disk.geometry, found)?;
        }
        Done::with(format!("{} disks fit", reverse.disks.len()))
    }

    /// The position before the first record that will be sent home; asked once, because home's
    /// replica stands on it.
    pub(super) async fn reverse_base(&mut self) -> Result<Done, Failure> {
        let (node, replica) = (self.machine.body.master_target, self.machine.body.replica);
        let outcome = self.order(node, "base", &Order::MtReverseBase { replica }).await?;
        let OrderOutcome::Position(position) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        let detail = format!("behind LSN {}", position.durable);
        if let Some(reverse) = &mut self.machine.body.reverse {
            reverse.base = Some(position);
        }
        Done::with(detail)
    }

    pub(super) async fn create_home(&mut self) -> Result<Done, Failure> {
        let retention = self.retention().await?;
        let reverse = self.reverse()?;
        let base = reverse.base.clone().ok_or_else(|| {
            Failure::Refused(ApiError::new(&codes::INTERNAL, "the base is not known"))
        })?;
        let order = Order::MtCreate(MtCreate {
            replica: reverse.replica,
            machine: self.machine.row.id,
            machine_name: self.machine.row.name.clone(),
            instance: reverse.instance,
            disks: self.machine.body.disks.clone(),
            images: reverse.disks.iter().cloned().map(Some).collect(),
            lineage: base.lineage,
            base: base.durable,
            base_chain: base.chain,
            retention,
            // Keys are names on a host: the master target at home knows its own.
            encrypt: None,
        });
        self.order(reverse.master_target, "create", &order).await?;
        Done::with(format!("replica {} on the disks at home", reverse.replica))
    }

    pub(super) async fn route_home(&mut self) -> Result<Done, Failure> {
        let relay = self.reverse()?.process_server;
        let order = self.home_route()?;
        self.order(relay, "route", &order).await?;
        Done::with(format!("through {}", self.app.fleet.name(relay)))
    }

    pub(super) fn home_route(&self) -> Result<Order, Failure> {
        let reverse = self.reverse()?;
        Ok(Order::PsRoute {
            replica: reverse.replica,
            next_hop: self.address(reverse.master_target)?,
            lineage: self.machine.authority.lineage.clone(),
            instance: reverse.instance,
        })
    }

    pub(super) async fn start_reverse(&mut self) -> Result<Done, Failure> {
        let reverse = self.reverse()?;
        let order = Order::MtReverseStart {
            replica: self.machine.body.replica,
            to: reverse.replica,
            next_hop: self.address(reverse.process_server)?,
            instance: reverse.instance,
        };
        self.order(self.machine.body.master_target, "start", &order).await?;
        Done::with("the window towards home is open")
    }

    pub(super) async fn stop_reverse(&mut self) -> Result<Done, Failure> {
        if self.machine.body.reverse.is_none() || !self.machine.homeward() {
            return Done::skipped("nothing goes home");
        }
        let order = Order::MtReverseStop { replica: self.machine.body.replica };
        self.take_back(self.machine.body.master_target, "stop", &order).await
    }

    pub(super) async fn unroute_reverse(&mut self) -> Result<Done, Failure> {
        let Some(reverse) = self.machine.body.reverse.clone() else {
            return Done::skipped("there is none");
        };
        let order = Order::PsUnroute { replica: reverse.replica, discard: true };
        self.leave(reverse.process_server, "unroute", &order).await
    }

    /// Removes home's replica: its journal, and after a failback the undo; the disks are the
    /// machine's.
    pub(super) async fn drop_home(&mut self) -> Result<Done, Failure> {
        let Some(reverse) = self.machine.body.reverse.clone() else {
            return Done::skipped("there is none");
        };
        let order = Order::MtRemove { replica: reverse.replica, images: false };
        self.take_back(reverse.master_target, "remove", &order).await
    }

    /// Discards divergence by name where it is kept. After a reprotect only now, because the window
    /// has closed: until then the old disks were the only copy of what is lost (trap T-15).
    pub(super) async fn discard_named(&mut self) -> Result<Done, Failure> {
        let asked: Vec<String> = match &self.job.body.params {
            Params::DiscardDivergence(ask) => ask.names.clone(),
            _ => self.reverse()?.discard,
        };
        let mut places = vec![(self.machine.body.master_target, self.machine.body.replica)];
        if let Some(reverse) = &self.machine.body.reverse {
            places.push((reverse.master_target, reverse.replica));
        }
        let mut discarded = Vec::new();
        for (node, replica) in places {
            let report = self.report(node, replica)?;
            let named = |one: &&Divergence| !one.discarded && asked.contains(&one.name);
            let names: Vec<_> =
                report.divergence.iter().filter(named).map(|one| one.name.clone()).collect();
            if names.is_empty() {
                continue;
            }
            let order = Order::MtDiscardDivergence { replica, names: names.clone() };
            self.order(node, &format!("discard-{replica}"), &order).await?;
            discarded.extend(names);
        }
        let detail = match discarded.is_empty() {
            true => "nothing is left to discard".to_owned(),
            false => format!("discarded: {}", discarded.join(", ")),
        };
        self.job.body.vars.notes.push(detail.clone());
        Done::with(detail)
    }

    /// What a target said of a replica, as long as it is there to say it.
    pub(super) fn report(
        &self,
        node: NodeId,
        replica: ReplicaId,
    ) -> Result<ReplicaReport, Failure> {
        let report = self.app.fleet.replica(node, replica);
        match report {
            Some(report) if self.app.fleet.in_contact(node) => Ok(report),
            _ => Err(Failure::Wait(silent(self.app, node))),
        }
    }
}
