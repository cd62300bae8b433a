//! What roles say to the configuration server: enrolment, reports, results of orders.

use crate::ApiError;
use crate::alert::Condition;
use crate::order::{Order, OrderOutcome};
use crate::resource::{
    Branch, CaptureMode, CatchUp, DiskCapture, Divergence, NodeRole, Point, Progress, Watermarks,
};
use landfall_model::TimedLsn;
use landfall_types::{
    DiskIndex, Epoch, InstanceId, Lineage, Lsn, MachineId, NodeId, OrderId, ReplicaId, UnixNanos,
    WindowId,
};
use serde::{Deserialize, Serialize};

/// `POST /v1/enroll`: the only call without a client certificate (RQ-CS-3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// The server's registration passphrase.
    pub passphrase: String,
    /// Role that is asked for; never [`NodeRole::Operator`].
    pub role: NodeRole,
    /// Unique name of the server.
    pub name: String,
    /// The node's earlier ID, when it enrols again.
    pub node: Option<NodeId>,
    /// PKCS #10 request, PEM.
    pub csr_pem: String,
    /// `host:port` of its replication listener, if it has one.
    pub address: Option<String>,
    /// Version of Landfall there.
    pub version: String,
}

/// Answer to [`Enroll`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// The node's ID.
    pub node: NodeId,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The authority's certificate, PEM.
    pub ca_pem: String,
}

/// `POST /v1/node/renew`: a new certificate over the same key, with the old certificate; answered
/// by [`Enrolled`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// PKCS #10 request, PEM.
    pub csr_pem: String,
    /// DNS names and IP addresses by which programs that were not written here reach it; for
    /// master targets, whose disks such programs use.
    #[serde(default)]
    pub names: Vec<String>,
}

/// `POST /v1/node/report`, about once a second.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// `host:port` of the replication listener, if there is one.
    pub address: Option<String>,
    /// Version of Landfall there.
    pub version: String,
    /// Agents: the machine that is protected.
    #[serde(default)]
    pub agent: Option<AgentReport>,
    /// Process servers: the bandwidth plan in force.
    #[serde(default)]
    pub bandwidth: Option<String>,
    /// Process servers: one per route.
    #[serde(default)]
    pub relays: Vec<RelayReport>,
    /// Master targets: one per replica.
    #[serde(default)]
    pub replicas: Vec<ReplicaReport>,
    /// What is wrong.
    #[serde(default)]
    pub problems: Vec<ApiError>,
    /// What is wrong and how bad it is, with the machine that it is about.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// State of an agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentReport {
    /// The machine that it was told to protect, as it has it durably.
    pub machine: Option<MachineId>,
    /// Its instance (trap T-11).
    pub instance: InstanceId,
    /// The epoch that it holds durably.
    pub epoch: Option<Epoch>,
    /// It has learned that its epoch is over, and is inert for good.
    pub fenced: bool,
    /// How writes are captured, with the reason; none while inert.
    pub capture: Option<(CaptureMode, String)>,
    /// Newest LSN given to a captured write.
    pub captured: Lsn,
    /// Newest LSN sent.
    pub sent: Lsn,
    /// Durable at the process server.
    pub durable_here: Lsn,
    /// Durable at the master target.
    pub durable_at_target: Lsn,
    /// The running or last catch-up.
    pub catch_up: Option<CatchUp>,
    /// Bytes in the ring and the queue.
    pub queued_bytes: u64,
    /// How often capture was lost, by reason code, since the start.
    pub losses: Vec<(String, u64)>,
    /// How each disk is captured.
    #[serde(default)]
    pub disks: Vec<DiskCapture>,
    /// How often a disk went back to data mode, since the start.
    #[serde(default)]
    pub returns: u64,
    /// The machine's clock at this report; none of an agent of a former version.
    #[serde(default)]
    pub now: Option<UnixNanos>,
    /// Newest markers, with their times by that clock: from the one that the target has on.
    #[serde(default)]
    pub timeline: Vec<TimedLsn>,
    /// It has a session with the process server; none of an agent of a former version.
    #[serde(default)]
    pub connected: Option<bool>,
    /// Round trip to the process server in milliseconds (RQ-PS-5).
    #[serde(default)]
    pub rtt_ms: Option<f64>,
}

/// State of a route through a process server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RelayReport {
    /// Which replica's log.
    pub replica: ReplicaId,
    /// A sender is connected.
    pub upstream: bool,
    /// The next hop is connected.
    pub downstream: bool,
    /// Durable here.
    pub durable_here: Lsn,
    /// Durable at the master target.
    pub durable_at_target: Lsn,
    /// Newest LSN sent to the next hop; none of a process server of a former version.
    #[serde(default)]
    pub sent: Option<Lsn>,
    /// Bytes in the spool that the next hop does not have.
    pub spool_bytes: u64,
    /// Records in the spool that the next hop does not have.
    pub spool_records: u64,
    /// Seconds since the oldest of them came.
    pub spool_age_s: f64,
    /// Free share of the cache, 0 to 1 (RQ-PS-6: warning at 0.30, critical at 0.25, back-pressure
    /// at 0.20).
    pub cache_free: f64,
    /// Round trip to the next hop in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why the downstream session was last refused, code and text.
    pub refusal: Option<(String, String)>,
}

/// Durable role of a replica (design section 7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaRole {
    /// Takes frames of its epoch.
    Replicating,
    /// Takes nothing: between two roles.
    Frozen,
    /// A branch of it has authority.
    Writable,
    /// Its image was handed over to the machine.
    Released,
}

/// State of a replica at a master target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which.
    pub replica: ReplicaId,
    /// Of which machine.
    pub machine: MachineId,
    /// Its durable role.
    pub role: ReplicaRole,
    /// Its durable history.
    pub lineage: Lineage,
    /// Positions (captured and sent are filled in by the reverse direction only).
    pub watermarks: Watermarks,
    /// Newest durable legal point that has a marker.
    pub newest_point: Option<Point>,
    /// Newest durable LSN at which no window is open; none before the first copy has ended.
    pub newest_legal: Option<Lsn>,
    /// Open windows.
    pub open_windows: Vec<WindowId>,
    /// A first copy: bytes that are in the image, per disk.
    pub image_copied: Vec<(DiskIndex, u64)>,
    /// Branches, test branches and the one with authority.
    pub branches: Vec<Branch>,
    /// Divergence that is kept.
    pub divergence: Vec<Divergence>,
    /// Records in the journal.
    pub journal_records: u64,
    /// Bytes of the journal on the retention volume.
    pub journal_bytes: u64,
    /// Name of the key-encryption key; none where the replica is not encrypted.
    #[serde(default)]
    pub key: Option<String>,
    /// A sender is connected.
    pub connected: bool,
    /// The reverse direction, when this replica's branch is the source.
    pub reverse: Option<ReverseReport>,
    /// A running fold.
    pub fold: Option<Progress>,
    /// What is kept.
    #[serde(default)]
    pub retention: Option<crate::retention::RetentionStatus>,
}

/// The direction towards home, seen from its source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReverseReport {
    /// The replica at home.
    pub to: ReplicaId,
    /// Connected to the process server.
    pub connected: bool,
    /// Newest LSN of the branch that is sent.
    pub sent: Lsn,
    /// Durable at home's master target.
    pub durable_at_target: Lsn,
    /// Bytes on the wire so far.
    pub wire_bytes: u64,
    /// The running or last catch-up.
    pub catch_up: Option<CatchUp>,
    /// Why the session was last refused, code and text.
    pub refusal: Option<(String, String)>,
}

/// `GET /v1/node/orders?wait_ms=N&known=ID,ID`: orders not yet answered, oldest first; waits up to
/// N ms for one that is not among those that the node says it is carrying out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// To be carried out in order, each at most once.
    pub orders: Vec<OrderEnvelope>,
}

/// An order with its ID: a node remembers the results of the last ones and answers a repeated order
/// with its result.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OrderEnvelope {
    /// Idempotency key.
    pub id: OrderId,
    /// What to do.
    pub order: Order,
}

/// `POST /v1/node/orders/{id}/result`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderResult {
    /// Done.
    Done(OrderOutcome),
    /// Refused or failed.
    Failed(ApiError),
}
