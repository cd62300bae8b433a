//! Steps of protecting a machine, and of ending it.

use super::orders::{Cx, Done, Failure, unexpected};
use crate::policies;
use crate::record::MachineRecord;
use landfall_api_types::order::{
    AgentStart, InspectedDisk, MtCreate, Order, OrderOutcome, StartMode,
};
use landfall_api_types::resource::Disk;
use landfall_api_types::{ApiError, codes};
use landfall_model::MachineState;
use landfall_types::{Chain, DiskGeometry, DiskId, DiskIndex, Lsn, NodeId, RetentionPolicy};
use std::time::Duration;

/// How long a relay or agent that is to be left is waited for.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

impl Cx<'_> {
    pub(super) async fn inspect_source(&mut self) -> Result<Done, Failure> {
        let super::Params::Protect(ask) = self.job.body.params.clone() else {
            return Err(Failure::Refused(ApiError::new(&codes::INTERNAL, "no disks were named")));
        };
        let agent = self.machine.body.agent;
        let order = Order::AgentInspect { disks: ask.disks.clone() };
        let outcome = self.order(agent, "inspect", &order).await?;
        let OrderOutcome::Inspected { disks } = outcome else {
            return Err(unexpected(self.app, agent, &outcome).into());
        };
        let geometries = usable(&disks)?;
        if !ask.images.is_empty() {
            self.check_images(&ask.images, &geometries).await?;
        }
        let disk = |(index, (path, geometry)): (usize, (String, DiskGeometry))| Disk {
            index: DiskIndex(u16::try_from(index).unwrap_or(u16::MAX)),
            id: DiskId::generate(),
            path,
            geometry,
        };
        // A repeated step keeps the IDs: what has been given once is what replicas know the disks
        // by.
        if self.machine.body.disks.is_empty() {
            let all = ask.disks.into_iter().zip(geometries).enumerate();
            self.machine.body.disks = all.map(disk).collect();
        }
        let report = self
            .app
            .fleet
            .agent(agent)
            .ok_or_else(|| Failure::Wait(super::orders::silent(self.app, agent)))?;
        self.machine.body.instance = report.instance;
        let bytes: u64 = self.machine.body.disks.iter().map(|disk| disk.geometry.size_bytes).sum();
        Done::with(format!("{} disks, {bytes} bytes", self.machine.body.disks.len()))
    }

    async fn check_images(
        &self,
        images: &[String],
        sources: &[DiskGeometry],
    ) -> Result<(), Failure> {
        let target = self.machine.body.master_target;
        let order = Order::MtInspect { disks: images.to_vec() };
        let outcome = self.order(target, "inspect-images", &order).await?;
        let OrderOutcome::Inspected { disks } = outcome else {
            return Err(unexpected(self.app, target, &outcome).into());
        };
        let found = usable(&disks)?;
        for ((source, image), path) in sources.iter().zip(&found).zip(images) {
            check_fits(path, *source, *image)?;
        }
        Ok(())
    }

    pub(super) async fn create_replica(&mut self) -> Result<Done, Failure> {
        let retention = self.retention().await?;
        let encrypt = match &self.job.body.params {
            super::Params::Protect(ask) => ask.encrypt.clone(),
            _ => None,
        };
        let machine = &self.machine;
        let order = Order::MtCreate(MtCreate {
            replica: machine.body.replica,
            machine: machine.row.id,
            machine_name: machine.row.name.clone(),
            instance: machine.body.instance,
            disks: machine.body.disks.clone(),
            images: machine.body.images.clone(),
            lineage: machine.authority.lineage.clone(),
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            retention,
            encrypt,
        });
        self.order(machine.body.master_target, "create", &order).await?;
        Done::with(format!("replica {}", machine.body.replica))
    }

    /// What is to be kept of the machine's history.
    pub(super) async fn retention(&self) -> Result<RetentionPolicy, Failure> {
        Ok(policies::of(&mut self.app.store.read().await?, &self.machine).await?.retention)
    }

    /// The way from home to the recovery site; for a failback with the new history.
    pub(super) async fn route_forward(&mut self) -> Result<Done, Failure> {
        let order = self.forward_route()?;
        let relay = self.machine.body.process_server;
        self.order(relay, "route", &order).await?;
        Done::with(format!("through {}", self.app.fleet.name(relay)))
    }

    pub(super) fn forward_route(&self) -> Result<Order, Failure> {
        let machine = &self.machine;
        Ok(Order::PsRoute {
            replica: machine.body.replica,
            next_hop: self.address(machine.body.master_target)?,
            lineage: machine.authority.lineage.clone(),
            instance: machine.body.instance,
        })
    }

    /// First copy, or, when home has its disks again, from the position on which they stand.
    pub(super) async fn start_agent(&mut self) -> Result<Done, Failure> {
        let mode = match &self.job.body.vars.receipt {
            Some(receipt) => StartMode::Continue { lsn: receipt.durable, chain: receipt.chain },
            None => StartMode::FirstCopy,
        };
        let order =
            agent_start(&self.machine, self.address(self.machine.body.process_server)?, mode);
        let agent = self.machine.body.agent;
        let outcome = self.order(agent, "start", &Order::AgentStart(order)).await?;
        let OrderOutcome::Started { instance } = outcome else {
            return Err(unexpected(self.app, agent, &outcome).into());
        };
        Done::with(format!("instance {instance} captures"))
    }

    pub(super) async fn stop_agent(&mut self) -> Result<Done, Failure> {
        if self.away_from_home() {
            return Done::skipped("the machine does not run at home");
        }
        let order = Order::AgentStop { machine: self.machine.row.id };
        self.leave(self.machine.body.agent, "stop", &order).await
    }

    pub(super) async fn unroute_forward(&mut self) -> Result<Done, Failure> {
        let replica = self.machine.body.replica;
        let order = Order::PsUnroute { replica, discard: true };
        self.leave(self.machine.body.process_server, "unroute", &order).await
    }

    /// A replica from whose branch the machine runs is left as it is: removing it would take the
    /// running machine's disks away.
    pub(super) async fn remove_replica(&mut self) -> Result<Done, Failure> {
        if self.away_from_home() {
            return Done::skipped("the machine runs from it: it stays, and goes on serving");
        }
        let replica = self.machine.body.replica;
        let order = Order::MtRemove { replica, images: true };
        let target = self.machine.body.master_target;
        self.take_back(target, "remove", &order).await
    }

    fn away_from_home(&self) -> bool {
        matches!(
            self.machine.row.state,
            MachineState::FailedOver
                | MachineState::Committed
                | MachineState::Reprotecting
                | MachineState::Reprotected
        )
    }

    /// Tells a node that it is no longer needed, if it is there. One that is away keeps a route or
    /// a capture that no target takes anything from any more.
    pub(super) async fn leave(
        &self,
        node: NodeId,
        name: &str,
        order: &Order,
    ) -> Result<Done, Failure> {
        match self.order_if_there(node, name, order, LEAVE_PATIENCE).await {
            Ok(Some(_)) => Done::with(""),
            Ok(None) => {
                let node = self.app.fleet.name(node);
                Done::skipped(format!("{node} is out of contact and was not told"))
            }
            Err(Failure::Refused(error)) => Done::skipped(error.cause),
            Err(failure) => Err(failure),
        }
    }
}

/// What an agent is started with.
pub(crate) fn agent_start(
    machine: &MachineRecord,
    next_hop: String,
    mode: StartMode,
) -> AgentStart {
    AgentStart {
        machine: machine.row.id,
        replica: machine.body.replica,
        instance: machine.body.instance,
        disks: machine.body.disks.clone(),
        next_hop,
        lineage: machine.authority.lineage.clone(),
        mode,
        marker_interval_ms: machine.body.marker_interval_ms,
    }
}

/// The geometries of inspected disks, or the first that can't be used.
pub(super) fn usable(disks: &[InspectedDisk]) -> Result<Vec<DiskGeometry>, Failure> {
    let mut geometries = Vec::new();
    for disk in disks {
        match &disk.disk {
            Ok(geometry) => geometries.push(*geometry),
            Err(error) => {
                let mut error = error.clone();
                error.details.entry("disk".to_owned()).or_insert_with(|| disk.path.clone());
                return Err(Failure::Refused(error));
            }
        }
    }
    Ok(geometries)
}

/// Trap T-9: the same sectors, and at least the size; a smaller disk would lose its end, other
/// sectors its partitions.
pub(super) fn check_fits(
    path: &str,
    source: DiskGeometry,
    found: DiskGeometry,
) -> Result<(), Failure> {
    if found.sector_bytes == source.sector_bytes && found.size_bytes >= source.size_bytes {
        return Ok(());
    }
    let cause = format!(
        "{path} has {} bytes in sectors of {}, the disk has {} bytes in sectors of {}",
        found.size_bytes, found.sector_bytes, source.size_bytes, source.sector_bytes
    );
    Err(Failure::Refused(ApiError::new(&codes::DISK_MISMATCH, cause).detail("disk", path)))
}
