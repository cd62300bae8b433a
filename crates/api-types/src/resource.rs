//! What people see.

use crate::ApiError;
use landfall_model::{MachineState, StageTime};
use landfall_types::{
    BranchId, DiskGeometry, DiskId, DiskIndex, Epoch, GroupPointId, InstanceId, JobId, Lineage,
    Lsn, MachineId, MarkerKind, NodeId, ReplicaId, UnixNanos, WindowMode, WindowReason,
};
use serde::{Deserialize, Serialize};

/// A role that registers with the configuration server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// On a protected machine.
    Agent,
    /// Relays the log.
    ProcessServer,
    /// Owns images and journals.
    MasterTarget,
    /// A person's client.
    Operator,
}

/// A registered server (RQ-CS-4).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Ours.
    pub id: NodeId,
    /// Given at registration, unique.
    pub name: String,
    /// What it does.
    pub role: NodeRole,
    /// Where its replication listener can be reached, `host:port`; none for agents.
    pub address: Option<String>,
    /// Landfall's version there.
    pub version: String,
    /// When it last reported.
    pub last_report: Option<UnixNanos>,
    /// It reported within the heartbeat limit.
    pub in_contact: bool,
    /// Process servers: the bandwidth plan in force.
    #[serde(default)]
    pub bandwidth: Option<String>,
    /// What is wrong with it, empty when nothing is.
    pub problems: Vec<ApiError>,
}

/// What a process server may use of its link to next hops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Name of the process server.
    pub server: String,
    /// The plan in force, as it was understood.
    pub plan: String,
}

/// Health of a protected machine's replication: beside its state, not part of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// The newest legal point follows the source.
    Healthy,
    /// A window is open.
    CatchingUp,
    /// The source or the target does not report.
    NoContact,
    /// Nothing replicates in this state.
    Idle,
    /// An operator paused it.
    Paused,
}

/// How writes are captured on a disk (design section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureMode {
    /// Every write with its bytes, in one order.
    Data,
    /// Changed blocks only.
    Bitmap,
    /// Nothing known: hashes on both sides.
    Compare,
    /// Landfall's own disk server is the producer.
    Served,
}

/// How one disk is captured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskCapture {
    /// Which.
    pub disk: DiskIndex,
    /// How.
    pub mode: CaptureMode,
    /// Why not better: a reason code.
    pub reason: String,
}

/// The positions of one direction of replication: captured ≥ sent ≥ received ≥ durable ≥ folded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Watermarks {
    /// At the source.
    pub captured: Lsn,
    /// Sent by the source.
    pub sent: Lsn,
    /// At the master target.
    pub received: Lsn,
    /// Durable at the master target.
    pub durable: Lsn,
    /// In the image.
    pub folded: Lsn,
}

/// How far a long work has come.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, in a few words.
    pub phase: String,
    /// Bytes looked at.
    pub done_bytes: u64,
    /// Bytes to look at; 0 when not known.
    pub total_bytes: u64,
    /// Bytes that had to be sent for it.
    pub sent_bytes: u64,
    /// Bytes looked at per second, recently.
    pub rate_bytes_per_s: f64,
    /// Seconds left at that rate.
    pub eta_s: Option<f64>,
}

/// A catch-up that is running or has ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CatchUp {
    /// Why.
    pub reason: WindowReason,
    /// How.
    pub mode: WindowMode,
    /// Bytes that it was expected to send, told beforehand; none where nothing is known.
    pub estimate_bytes: Option<u64>,
    /// How far it has come.
    pub progress: Progress,
    /// The window is closed and its closing durable at the target.
    pub finished: bool,
}

/// A listed recovery point: a marker (design section 14.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Where.
    pub lsn: Lsn,
    /// The source's wall time.
    pub time: UnixNanos,
    /// What it promises.
    pub kind: MarkerKind,
    /// Given by a person.
    pub name: Option<String>,
    /// The point of several machines that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupPointId>,
    /// Resolves to data that is not what was written (trap T-20).
    #[serde(default)]
    pub corrupt: bool,
    /// It does not expire.
    #[serde(default)]
    pub pinned: bool,
}

/// What can be chosen: the listed points and the stretches of LSNs between windows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Points {
    /// Markers, oldest first.
    pub points: Vec<Point>,
    /// Every LSN from first to last, both inclusive, is recoverable with `--at-lsn`.
    pub legal: Vec<(Lsn, Lsn)>,
    /// More points pass the filter: the next page begins after the last one here.
    #[serde(default)]
    pub more: bool,
}

/// A point of several machines that was made: each has its marker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupPoint {
    /// In the `group` of each member's point.
    pub id: GroupPointId,
    /// Its name.
    pub name: String,
    /// The machines.
    pub machines: Vec<String>,
    /// Milliseconds from the first question to the last *still frozen*: none was frozen for longer.
    pub frozen_ms: u64,
}

/// A branch of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Branch {
    /// Ours.
    pub id: BranchId,
    /// Unique within the machine.
    pub name: String,
    /// Where it forked.
    pub fork: Lsn,
    /// Its newest LSN.
    pub head: Lsn,
    /// It has authority (otherwise a test branch or divergence).
    pub authority: bool,
    /// Bytes that were written to it.
    pub written_bytes: u64,
    /// Its disks as NBD URIs, in order of the disks; empty when it is not served.
    pub exports: Vec<ExportAddress>,
}

/// Where a disk is served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExportAddress {
    /// Which disk.
    pub disk: DiskIndex,
    /// Path of the Unix socket.
    pub socket: String,
    /// Export name.
    pub export: String,
    /// `nbd+unix:///NAME?socket=PATH`, percent-encoded.
    pub uri: String,
    /// `nbds://HOST:PORT/NAME`, percent-encoded, where the master target serves disks over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_uri: Option<String>,
}

/// A certificate for a program that uses disks over NBD.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskClient {
    /// Names the certificate in logs.
    pub id: NodeId,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The authority's certificate, PEM.
    pub ca_pem: String,
}

/// Writes that lost: shown, never merged, readable until discarded by name (design section 7).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Divergence {
    /// Name to discard it by.
    pub name: String,
    /// Where it is kept: a server's name.
    pub server: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Its epoch; none for the content of old disks.
    pub epoch: Option<Epoch>,
    /// The fork that it begins after.
    pub after: Lsn,
    /// Its last record.
    pub through: Lsn,
    /// Bytes written in it.
    pub written_bytes: u64,
    /// Time of its first and last marker.
    pub first_time: Option<UnixNanos>,
    /// See `first_time`.
    pub last_time: Option<UnixNanos>,
    /// It has been discarded.
    pub discarded: bool,
}

/// A disk of a protected machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Its index in the log.
    pub index: DiskIndex,
    /// Ours.
    pub id: DiskId,
    /// Path on the protected machine.
    pub path: String,
    /// Size and sectors.
    pub geometry: DiskGeometry,
}

/// A protected machine with all that `status` shows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Ours.
    pub id: MachineId,
    /// Unique name.
    pub name: String,
    /// Where in the cycle.
    pub state: MachineState,
    /// Rises with each change of the record.
    pub generation: u64,
    /// Commands that this state accepts.
    pub accepts: Vec<String>,
    /// Health of replication.
    pub health: Health,
    /// Who may write.
    pub epoch: Epoch,
    /// All epochs.
    pub lineage: Lineage,
    /// The instance with authority.
    pub instance: InstanceId,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Replica that receives at present (recovery site, or home while reprotected).
    pub replica: ReplicaId,
    /// Names of the servers: source, process server, master target of the present direction.
    pub path: Vec<String>,
    /// How writes are captured, with the reason.
    pub capture: Option<(CaptureMode, String)>,
    /// How each disk is captured.
    #[serde(default)]
    pub disk_capture: Vec<DiskCapture>,
    /// How often data mode ended since the agent's start, by reason code.
    #[serde(default)]
    pub capture_losses: Vec<(String, u64)>,
    /// How often a disk went back to data mode since the agent's start.
    #[serde(default)]
    pub capture_returns: u64,
    /// Positions of the present direction.
    pub watermarks: Watermarks,
    /// Newest durable legal point at the target.
    pub newest_point: Option<Point>,
    /// Now − time of the newest durable legal point, in seconds (trap T-18); none without one.
    pub rpo_s: Option<f64>,
    /// Where that time is spent, from the machine to the target; they add up to the RPO by the
    /// machine's clock. Empty while nothing is known, and on the way home.
    #[serde(default)]
    pub rpo_stages: Vec<StageTime>,
    /// Round trips in milliseconds: source to process server, process server to master target
    /// (RQ-PS-5); none where nothing was measured.
    #[serde(default)]
    pub rtt_ms: [Option<f64>; 2],
    /// The catch-up that runs, or the last one.
    pub catch_up: Option<CatchUp>,
    /// Branches at the recovery site.
    pub branches: Vec<Branch>,
    /// Records in the journal of the present target.
    pub journal_records: u64,
    /// Bytes of the journal of the present target.
    pub journal_bytes: u64,
    /// Name of the key that its replica is encrypted with; none where it is not encrypted, or not
    /// reported yet.
    #[serde(default)]
    pub encryption: Option<String>,
    /// Name of its policy.
    #[serde(default)]
    pub policy: String,
    /// What is kept at the present target; none before it has reported.
    #[serde(default)]
    pub retention: Option<crate::retention::RetentionStatus>,
    /// What happened: newest last ("failed over", "committed", …; RQ-FO-10).
    pub history: Vec<HistoryEntry>,
    /// What is wrong, empty when nothing is.
    pub problems: Vec<ApiError>,
}

/// One line of a machine's history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    pub time: UnixNanos,
    /// Who asked.
    pub by: String,
    /// What.
    pub event: String,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Being carried out.
    Running,
    /// Done.
    Succeeded,
    /// Undone after a failure or by request.
    RolledBack,
    /// Waits for a person: mend what the error says, then `landfall jobs retry`.
    NeedsOperator,
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun: after a crash it is done again, every step can be repeated.
    Started,
    /// Done.
    Succeeded,
    /// Left out, with the reason in the detail.
    Skipped,
    /// Failed.
    Failed,
}

/// One step of a job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Name, stable within the kind of job.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// What it found or did.
    pub detail: String,
}

/// Something that takes time (RQ-PL-6).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Ours.
    pub id: JobId,
    /// `failover`, `reprotect`, …
    pub kind: String,
    /// Of which machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// Where it stands.
    pub state: JobState,
    /// Its steps in order.
    pub steps: Vec<Step>,
    /// Progress of the running step.
    pub progress: Option<Progress>,
    /// Why it failed or waits.
    pub error: Option<ApiError>,
    /// What it produced (a branch for failovers, for instance).
    pub outcome: Option<JobOutcome>,
    /// When it was asked for.
    pub created: UnixNanos,
    /// When it ended.
    pub finished: Option<UnixNanos>,
}

/// What a job produced.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobOutcome {
    /// A branch is served.
    Branch(Branch),
    /// The machine's disks at home are its own again.
    Released {
        /// The epoch in which home writes.
        epoch: Epoch,
        /// The last LSN of the recovery site, on which home's disks stand.
        lsn: Lsn,
        /// The disks.
        disks: Vec<String>,
    },
}
