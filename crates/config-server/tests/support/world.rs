//! What the nodes have durably, and the rules of design section 7 that they enforce.

use landfall_api_types::alert::Condition;
use landfall_api_types::node::{AgentReport, RelayReport, ReplicaReport, ReplicaRole, Report};
use landfall_api_types::order::{
    InspectedDisk, MtCreate, Order, OrderOutcome, ReplicaPosition, StartMode,
};
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::{Branch, CaptureMode, Divergence, Point, Points, Watermarks};
use landfall_api_types::retention::{Note, Outlook, RetentionStatus};
use landfall_api_types::{ApiError, codes};
use landfall_model::TimedLsn;
use landfall_types::{
    BranchId, Chain, DiskGeometry, Epoch, InstanceId, Lineage, LineageEntry, Lsn, MachineId,
    MarkerKind, NodeId, ReplicaId, RetentionPolicy, UnixNanos, WindowId,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

pub(crate) struct Replica {
    pub(crate) node: NodeId,
    pub(crate) create: MtCreate,
    pub(crate) role: ReplicaRole,
    pub(crate) lineage: Lineage,
    pub(crate) durable: Lsn,
    pub(crate) newest_legal: Option<Lsn>,
    pub(crate) window_open: bool,
    pub(crate) branches: Vec<Branch>,
    pub(crate) authority: Option<(BranchId, Epoch)>,
    pub(crate) demoted: bool,
    pub(crate) committed: bool,
    pub(crate) divergence: Vec<Divergence>,
    pub(crate) retention: RetentionStatus,
    pub(crate) notes: Vec<(Lsn, Note)>,
    /// Of its newest point.
    pub(crate) point_age_s: u64,
}

#[derive(Default)]
pub(crate) struct Agent {
    pub(crate) instance: Option<InstanceId>,
    pub(crate) machine: Option<MachineId>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) fenced: bool,
    pub(crate) started: Option<StartMode>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) names: HashMap<NodeId, String>,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
    pub(crate) routes: HashMap<(NodeId, ReplicaId), Lineage>,
    pub(crate) agent: Agent,
    /// What each relay still holds: bytes.
    pub(crate) spool: HashMap<NodeId, u64>,
    /// Orders by name, in the order in which they were carried out.
    pub(crate) log: Vec<String>,
    /// Orders that wait until they are let go.
    pub(crate) held: HashSet<String>,
    /// The next refusals of orders by name.
    pub(crate) refuse: HashMap<String, Vec<ApiError>>,
    /// The machine at home can write to its disks: until the disaster, and again once they were
    /// released.
    pub(crate) home_writes: bool,
    pub(crate) wrong_disk: bool,
    /// What master targets say is wrong.
    pub(crate) conditions: Vec<Condition>,
    /// The agent's markers: positions, and how many seconds ago they were set.
    pub(crate) timeline: Vec<(u64, u64)>,
}

fn chain(lsn: Lsn) -> Chain {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&lsn.get().to_le_bytes());
    Chain::from_bytes(bytes)
}

fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    UnixNanos(u64::try_from(since.as_nanos()).expect("before 2554"))
}

fn ago(seconds: u64) -> UnixNanos {
    UnixNanos(now().0 - seconds * 1_000_000_000)
}

fn done() -> Result<OrderOutcome, ApiError> {
    Ok(OrderOutcome::Done)
}

fn wrong(cause: &str) -> ApiError {
    ApiError::new(&codes::WRONG_STATE, cause)
}

/// The order's name in the API.
pub(crate) fn name(order: &Order) -> String {
    let value = serde_json::to_value(order).expect("ours");
    value["order"].as_str().expect("tagged").to_owned()
}

impl World {
    pub(crate) fn add_node(&mut self, id: NodeId, name: &str) {
        self.names.insert(id, name.to_owned());
        if name == "agent" && self.agent.instance.is_none() {
            self.agent.instance = Some(InstanceId::generate());
            self.home_writes = true;
        }
    }

    pub(crate) fn is_held(&self, order: &Order) -> bool {
        self.held.contains(&name(order))
    }

    pub(crate) fn hold(&mut self, order: &str) {
        self.held.insert(order.to_owned());
    }

    pub(crate) fn let_go(&mut self, order: &str) {
        self.held.remove(order);
    }

    pub(crate) fn refuse_next(&mut self, order: &str, error: ApiError) {
        self.refuse.entry(order.to_owned()).or_default().push(error);
    }

    pub(crate) fn count(&self, order: &str) -> usize {
        self.log.iter().filter(|done| *done == order).count()
    }

    fn at(&mut self, site: &str) -> &mut Replica {
        let names = self.names.clone();
        let found = self.replicas.values_mut().find(|replica| names[&replica.node] == site);
        found.expect("there is a replica there")
    }

    pub(crate) fn recovery(&mut self) -> &mut Replica {
        self.at("mt-recovery")
    }

    pub(crate) fn home(&mut self) -> &mut Replica {
        self.at("mt-home")
    }

    /// The first copy ends, and forty records are durable.
    pub(crate) fn first_copy_ends(&mut self) {
        let replica = self.recovery();
        replica.window_open = false;
        replica.durable = Lsn::new(50);
        replica.newest_legal = Some(Lsn::new(40));
    }

    pub(crate) fn home_dies(&mut self) {
        self.home_writes = false;
    }

    pub(crate) fn window_home_closes(&mut self) {
        self.recovery().durable = Lsn::new(60);
        let home = self.home();
        home.window_open = false;
        home.durable = Lsn::new(60);
        home.newest_legal = Some(Lsn::new(60));
    }

    /// Home's log has come to the recovery site after a failback.
    pub(crate) fn home_log_arrives(&mut self) {
        let replica = self.recovery();
        replica.durable = Lsn::new(70);
        replica.newest_legal = Some(Lsn::new(70));
    }

    /// Guards P6: at no moment can both sides write.
    fn check_writers(&self) {
        let branches = self.replicas.values().filter(|one| one.role == ReplicaRole::Writable);
        let writers = branches.count() + usize::from(self.home_writes);
        assert!(writers <= 1, "{writers} sides can write; orders so far: {:?}", self.log);
    }

    pub(crate) fn report(&self, node: NodeId) -> Report {
        let mut report = Report {
            address: Some(format!("127.0.0.1:{}", 1000 + self.names[&node].len())),
            version: "test".to_owned(),
            ..Report::default()
        };
        if self.names[&node] == "agent" {
            report.address = None;
            report.agent = Some(AgentReport {
                machine: self.agent.machine,
                instance: self.agent.instance.expect("made"),
                epoch: self.agent.epoch,
                fenced: self.agent.fenced,
                capture: Some((CaptureMode::Data, "test".to_owned())),
                captured: Lsn::new(55),
                sent: Lsn::new(54),
                durable_here: Lsn::new(53),
                durable_at_target: Lsn::new(50),
                catch_up: None,
                queued_bytes: 0,
                losses: Vec::new(),
                disks: Vec::new(),
                returns: 0,
                now: Some(now()),
                timeline: self.timeline(),
                connected: Some(true),
                rtt_ms: Some(0.4),
            });
        }
        let relays = self.routes.keys().filter(|key| key.0 == node).map(|key| RelayReport {
            replica: key.1,
            upstream: true,
            downstream: true,
            durable_here: Lsn::new(53),
            durable_at_target: Lsn::new(50),
            sent: Some(Lsn::new(51)),
            spool_bytes: self.spool.get(&node).copied().unwrap_or(0),
            spool_records: 3,
            spool_age_s: 1.5,
            cache_free: 1.0,
            rtt_ms: Some(40.0),
            refusal: None,
        });
        report.relays = relays.collect();
        report.replicas = self.replica_reports(node);
        if !report.replicas.is_empty() {
            report.conditions.clone_from(&self.conditions);
        }
        report
    }

    fn timeline(&self) -> Vec<TimedLsn> {
        let mark = |(lsn, age): &(u64, u64)| TimedLsn { lsn: Lsn::new(*lsn), time: ago(*age) };
        self.timeline.iter().map(mark).collect()
    }

    fn replica_reports(&self, node: NodeId) -> Vec<ReplicaReport> {
        let of_node = self.replicas.iter().filter(|(_, replica)| replica.node == node);
        of_node.map(|(id, replica)| replica.report(*id)).collect()
    }

    fn replica(&mut self, id: ReplicaId) -> Result<&mut Replica, ApiError> {
        let missing = || ApiError::new(&codes::NOT_FOUND, format!("no replica {id}"));
        self.replicas.get_mut(&id).ok_or_else(missing)
    }

    pub(crate) fn carry_out(
        &mut self,
        node: NodeId,
        order: &Order,
    ) -> Result<OrderOutcome, ApiError> {
        let name = name(order);
        self.log.push(name.clone());
        if let Some(refusals) = self.refuse.get_mut(&name)
            && !refusals.is_empty()
        {
            return Err(refusals.remove(0));
        }
        let outcome = self.act(node, order);
        self.check_writers();
        outcome
    }

    fn act(&mut self, node: NodeId, order: &Order) -> Result<OrderOutcome, ApiError> {
        match order.clone() {
            Order::AgentInspect { disks } | Order::MtInspect { disks } => {
                let size = if self.wrong_disk { 1 << 20 } else { 2 << 20 };
                let geometry = DiskGeometry { size_bytes: size, sector_bytes: 512 };
                let disk = |path| InspectedDisk { path, disk: Ok(geometry) };
                Ok(OrderOutcome::Inspected { disks: disks.into_iter().map(disk).collect() })
            }
            Order::AgentStart(start) => {
                if Some(start.instance) != self.agent.instance {
                    return Err(ApiError::new(&codes::OTHER_INSTANCE, "not this one"));
                }
                self.agent.machine = Some(start.machine);
                self.agent.epoch = Some(start.lineage.epoch());
                self.agent.fenced = false;
                self.agent.started = Some(start.mode);
                Ok(OrderOutcome::Started { instance: start.instance })
            }
            Order::AgentFence { .. } => {
                self.agent.fenced = true;
                done()
            }
            Order::AgentStop { .. } | Order::AgentMark { .. } | Order::AgentBarrier { .. } => {
                done()
            }
            Order::PsRoute { replica, lineage, .. } => {
                self.routes.insert((node, replica), lineage);
                done()
            }
            Order::PsUnroute { replica, .. } => {
                self.routes.remove(&(node, replica));
                done()
            }
            Order::PsDrain { .. } => {
                let bytes = self.spool.get(&node).copied().unwrap_or(0);
                let records = u64::from(bytes > 0);
                Ok(OrderOutcome::Drained { bytes, records, age_s: 2.0 })
            }
            Order::MtCreate(create) => {
                let new = Replica::new(node, create.clone());
                self.replicas.entry(create.replica).or_insert(new);
                done()
            }
            Order::MtRemove { replica, .. } => {
                self.replicas.remove(&replica);
                done()
            }
            other => self.act_on_replica(&other),
        }
    }

    // One arm per order of a master target.
    fn act_on_replica(&mut self, order: &Order) -> Result<OrderOutcome, ApiError> {
        match order.clone() {
            Order::MtFreeze { replica } => self.replica(replica)?.freeze(),
            Order::MtThaw { replica } => self.replica(replica)?.thaw(),
            Order::MtPoints { replica } => self.replica(replica)?.points(),
            Order::MtPolicy { replica, policy } => {
                self.replica(replica)?.retention.policy = policy;
                done()
            }
            Order::MtNote { replica, lsn, note, .. } => {
                self.replica(replica)?.notes.push((lsn, note));
                done()
            }
            Order::MtHolds { .. } => Ok(OrderOutcome::Holds { holds: vec![] }),
            Order::MtTestBranch { replica, branch, name, .. } => {
                let replica = self.replica(replica)?;
                let fork = replica.newest_legal.ok_or_else(|| wrong("no point"))?;
                Ok(OrderOutcome::Branch(replica.add_branch(branch, &name, fork, false)))
            }
            Order::MtDropBranch { replica, name } => {
                self.replica(replica)?.branches.retain(|branch| branch.name != name);
                done()
            }
            Order::MtPromote { replica, branch, name, point, epoch } => {
                self.replica(replica)?.promote(branch, &name, &point, epoch)
            }
            Order::MtCommit { replica } => self.replica(replica)?.commit(),
            Order::MtEstimate { replica } => {
                let divergence = self.replica(replica)?.divergence.clone();
                Ok(OrderOutcome::Estimate { bytes: 4096, divergence })
            }
            Order::MtDiscardDivergence { replica, names } => {
                for one in &mut self.replica(replica)?.divergence {
                    one.discarded |= names.contains(&one.name);
                }
                done()
            }
            Order::MtReverseBase { replica } => self.replica(replica)?.position(),
            Order::MtReverseStart { .. } | Order::MtReverseStop { .. } => done(),
            Order::MtDemote { replica } => self.replica(replica)?.demote(),
            Order::MtUndemote { replica } => self.replica(replica)?.undemote(),
            Order::MtAwait { replica, .. } => self.replica(replica)?.position(),
            Order::MtRelease { replica, lsn, chain: expected, epoch } => {
                let outcome = self.replica(replica)?.release(lsn, expected, epoch)?;
                self.home_writes = true;
                Ok(outcome)
            }
            Order::MtFollow { replica, epoch, fork, .. } => {
                self.replica(replica)?.follow(epoch, fork)
            }
            other => Err(wrong(&format!("{other:?} is not for this node"))),
        }
    }
}

fn kept(policy: RetentionPolicy) -> RetentionStatus {
    RetentionStatus {
        fits_s: policy.keep_s,
        policy,
        listed: 3,
        thinned: 0,
        pinned: 0,
        oldest: Some(Lsn::new(1)),
        oldest_time: None,
        history_s: 60,
        used_bytes: 4096,
        shortened: None,
        rates: None,
        outlook: Outlook::Enough,
        left_s: None,
        volume_free_bytes: 1 << 30,
        volume_bytes: 1 << 31,
    }
}

impl Replica {
    fn new(node: NodeId, create: MtCreate) -> Self {
        let foreign = create.images.iter().any(Option::is_some);
        let old = Divergence {
            name: "old-disks".to_owned(),
            server: String::new(),
            description: String::new(),
            epoch: None,
            after: create.base,
            through: create.base,
            written_bytes: 0,
            first_time: None,
            last_time: None,
            discarded: false,
        };
        Self {
            node,
            role: ReplicaRole::Replicating,
            lineage: create.lineage.clone(),
            durable: create.base,
            newest_legal: None,
            window_open: true,
            branches: Vec::new(),
            authority: None,
            demoted: false,
            committed: false,
            divergence: if foreign { vec![old] } else { Vec::new() },
            retention: kept(create.retention.clone()),
            notes: Vec::new(),
            point_age_s: 2,
            create,
        }
    }

    fn report(&self, id: ReplicaId) -> ReplicaReport {
        let point = |lsn| Point {
            lsn,
            time: ago(self.point_age_s),
            kind: MarkerKind::CrashConsistent,
            name: None,
            group: None,
            corrupt: false,
            pinned: false,
        };
        ReplicaReport {
            replica: id,
            machine: self.create.machine,
            role: self.role,
            lineage: self.lineage.clone(),
            watermarks: Watermarks {
                received: self.durable,
                durable: self.durable,
                ..Watermarks::default()
            },
            newest_point: self.newest_legal.map(point),
            newest_legal: self.newest_legal,
            open_windows: if self.window_open { vec![WindowId(1)] } else { vec![] },
            image_copied: Vec::new(),
            branches: self.branches.clone(),
            divergence: self.divergence.clone(),
            journal_records: self.durable.get(),
            journal_bytes: 4096 * self.durable.get(),
            key: self.create.encrypt.clone(),
            connected: true,
            reverse: None,
            fold: None,
            retention: Some(self.retention.clone()),
        }
    }

    fn position(&self) -> Result<OrderOutcome, ApiError> {
        Ok(OrderOutcome::Position(ReplicaPosition {
            durable: self.durable,
            chain: chain(self.durable),
            newest_legal: self.newest_legal,
            lineage: self.lineage.clone(),
        }))
    }

    fn points(&self) -> Result<OrderOutcome, ApiError> {
        let legal = self.newest_legal.map(|newest| (Lsn::new(1), newest));
        let point = |lsn: u64, name: Option<&str>| Point {
            lsn: Lsn::new(lsn),
            time: UnixNanos(lsn * 1_000),
            kind: MarkerKind::CrashConsistent,
            name: name.map(str::to_owned),
            group: None,
            corrupt: false,
            pinned: false,
        };
        let mut points = vec![point(10, None), point(20, Some("before")), point(40, None)];
        for (lsn, note) in &self.notes {
            let Some(point) = points.iter_mut().find(|point| point.lsn == *lsn) else { continue };
            match note {
                Note::Pin { .. } => point.pinned = true,
                Note::Unpin => point.pinned = false,
                Note::Name { name } => point.name.clone_from(name),
            }
        }
        Ok(OrderOutcome::Points(Points { points, legal: legal.into_iter().collect(), more: false }))
    }

    fn freeze(&mut self) -> Result<OrderOutcome, ApiError> {
        match self.role {
            ReplicaRole::Replicating | ReplicaRole::Frozen => self.role = ReplicaRole::Frozen,
            ReplicaRole::Writable | ReplicaRole::Released => {
                return Err(wrong("it is not receiving"));
            }
        }
        self.position()
    }

    fn thaw(&mut self) -> Result<OrderOutcome, ApiError> {
        match self.role {
            ReplicaRole::Replicating | ReplicaRole::Frozen => self.role = ReplicaRole::Replicating,
            ReplicaRole::Writable | ReplicaRole::Released => return Err(wrong("it is not frozen")),
        }
        done()
    }

    fn add_branch(&mut self, id: BranchId, name: &str, fork: Lsn, authority: bool) -> Branch {
        let branch = Branch {
            id,
            name: name.to_owned(),
            fork,
            head: fork,
            authority,
            written_bytes: 0,
            exports: Vec::new(),
        };
        if !self.branches.iter().any(|one| one.id == id) {
            self.branches.push(branch.clone());
        }
        branch
    }

    fn promote(
        &mut self,
        id: BranchId,
        name: &str,
        point: &PointChoice,
        epoch: Epoch,
    ) -> Result<OrderOutcome, ApiError> {
        if let Some((held, of)) = self.authority {
            if held == id && of.is(&epoch) {
                let branch = self.branches.iter().find(|one| one.id == id).expect("kept");
                return Ok(OrderOutcome::Branch(branch.clone()));
            }
            if self.committed {
                return Err(wrong("it is committed"));
            }
        }
        let held = self.lineage.epoch();
        if epoch.number <= held.number {
            return Err(ApiError::new(&codes::FENCED, format!("epoch {held} holds")));
        }
        if self.role != ReplicaRole::Frozen && self.authority.is_none() {
            return Err(wrong("it is not frozen"));
        }
        let fork = match point {
            PointChoice::Lsn(lsn) => *lsn,
            _ => self.newest_legal.ok_or_else(|| wrong("no point"))?,
        };
        let entries: Vec<LineageEntry> = self.create.lineage.entries().to_vec();
        let base = Lineage::from_entries(entries).expect("ours");
        let epoch = Epoch { parent: Some(base.epoch().id), ..epoch };
        self.lineage = base.extend(epoch, fork).expect("it fits");
        self.branches.retain(|branch| !branch.authority);
        self.role = ReplicaRole::Writable;
        self.authority = Some((id, epoch));
        Ok(OrderOutcome::Branch(self.add_branch(id, name, fork, true)))
    }

    fn commit(&mut self) -> Result<OrderOutcome, ApiError> {
        self.authority.ok_or_else(|| wrong("no branch has authority"))?;
        if !self.committed {
            self.committed = true;
            let fork = self.lineage.last().fork;
            self.divergence.push(Divergence {
                name: format!("epoch-1-after-{fork}"),
                server: String::new(),
                description: String::new(),
                epoch: None,
                after: fork,
                through: self.durable,
                written_bytes: 4096,
                first_time: None,
                last_time: None,
                discarded: false,
            });
        }
        done()
    }

    fn demote(&mut self) -> Result<OrderOutcome, ApiError> {
        match (self.role, self.demoted) {
            (_, true) => {}
            (ReplicaRole::Writable, false) => {
                self.role = ReplicaRole::Frozen;
                self.demoted = true;
            }
            _ => return Err(wrong("no branch has authority")),
        }
        self.position()
    }

    fn undemote(&mut self) -> Result<OrderOutcome, ApiError> {
        let (id, _) = self.authority.ok_or_else(|| wrong("no branch had authority"))?;
        if self.demoted {
            self.role = ReplicaRole::Writable;
            self.demoted = false;
        }
        let branch = self.branches.iter().find(|one| one.id == id).expect("kept");
        Ok(OrderOutcome::Branch(branch.clone()))
    }

    fn release(
        &mut self,
        lsn: Lsn,
        expected: Chain,
        epoch: Epoch,
    ) -> Result<OrderOutcome, ApiError> {
        if self.role != ReplicaRole::Released {
            if self.role != ReplicaRole::Frozen || self.durable != lsn || chain(lsn) != expected {
                return Err(wrong("it does not stand there"));
            }
            self.lineage = self.lineage.extend(epoch, lsn).expect("it fits");
            self.role = ReplicaRole::Released;
        }
        let disks = self.create.images.iter().flatten().cloned().collect();
        Ok(OrderOutcome::Released { disks, folded_bytes: 4096 })
    }

    fn follow(&mut self, epoch: Epoch, fork: Lsn) -> Result<OrderOutcome, ApiError> {
        if self.role == ReplicaRole::Replicating && self.lineage.epoch().is(&epoch) {
            return done();
        }
        if !self.demoted {
            return Err(wrong("it is not demoted"));
        }
        self.lineage = self.lineage.extend(epoch, fork).expect("it fits");
        self.role = ReplicaRole::Replicating;
        self.demoted = false;
        self.authority = None;
        self.branches.retain(|branch| !branch.authority);
        done()
    }
}
