//! What the configuration server tells roles to do. Every order can be repeated: the second time it
//! finds its work done.

use crate::request::{Consistency, PointChoice};
use crate::resource::{Branch, Disk, Divergence, Points};
use crate::retention::{Hold, Note};
use landfall_types::{
    BranchId, Chain, DiskGeometry, Epoch, GroupPointId, InstanceId, Lineage, Lsn, MachineId,
    ReplicaId, RetentionPolicy,
};
use serde::{Deserialize, Serialize};

/// What a member of a group is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum BarrierAsk {
    /// Freeze everything, take the moment of a marker, stay frozen. Answered when that is done.
    Freeze {
        /// The marker's name.
        name: String,
        /// What it promises; at least frozen file systems.
        consistency: Consistency,
    },
    /// Say whether everything is frozen still; thaw.
    Confirm,
    /// Put the marker into the log. Answered when it is there.
    Keep,
    /// Put no marker into the log; thaw what is frozen.
    Void,
}

/// An order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    // To agents.
    /// Look at disks before they are protected: size, sectors, usable or why not.
    AgentInspect {
        /// Paths.
        disks: Vec<String>,
    },
    /// Capture and send. Answered when the capture is active (not when the first copy has ended).
    AgentStart(AgentStart),
    /// Demote: stop capturing and sending, durably. Answered with the last LSN.
    AgentStop {
        /// The machine.
        machine: MachineId,
    },
    /// The agent's epoch is over: become inert, durably.
    AgentFence {
        /// The epoch that holds now.
        epoch: Epoch,
    },
    /// Put a named marker into the log.
    AgentMark {
        /// Its name.
        name: String,
        /// What it promises.
        #[serde(default)]
        consistency: Consistency,
    },

    /// A point of several machines at once (trap T-19): one question of its barrier. The answer is
    /// not remembered over the node's end.
    AgentBarrier {
        /// Which point.
        group: GroupPointId,
        /// The question.
        ask: BarrierAsk,
    },

    // To process servers.
    /// Take this replica's log and carry it to the next hop.
    PsRoute {
        /// Which replica.
        replica: ReplicaId,
        /// `host:port` of the master target.
        next_hop: String,
        /// The history whose frames may pass; frames of a lower epoch are refused for ever.
        lineage: Lineage,
        /// The instance that has authority.
        instance: InstanceId,
    },
    /// Stop carrying it; refused while the spool holds what the next hop has not, unless `discard`.
    PsUnroute {
        /// Which replica.
        replica: ReplicaId,
        /// Throw away what the next hop has not.
        discard: bool,
    },
    /// Take nothing more from upstream, deliver what was acknowledged, say what is left (trap
    /// T-14). Answered after `wait_ms` at the latest.
    PsDrain {
        /// Which replica.
        replica: ReplicaId,
        /// Milliseconds.
        wait_ms: u64,
    },

    /// Limit what replication uses of the link to next hops, durably.
    PsBandwidth {
        /// As text, see `landfall_model::BandwidthPlan`.
        plan: String,
    },

    // To master targets.
    /// Look at disks that are to become images.
    MtInspect {
        /// Paths.
        disks: Vec<String>,
    },
    /// Create a replica that takes frames.
    MtCreate(MtCreate),
    /// Take frames no more, durably (before a promotion). Answered with the newest positions.
    MtFreeze {
        /// Which replica.
        replica: ReplicaId,
    },
    /// Give up a freeze: take frames again (nothing was promoted).
    MtThaw {
        /// Which replica.
        replica: ReplicaId,
    },
    /// List the recovery points.
    MtPoints {
        /// Which replica.
        replica: ReplicaId,
    },
    /// What holds for the replica's history from now on.
    MtPolicy {
        /// Which replica.
        replica: ReplicaId,
        /// Valid: whoever gives the order has checked it.
        policy: RetentionPolicy,
    },
    /// Pin, unpin or name a listed point.
    MtNote {
        /// Which replica.
        replica: ReplicaId,
        /// A marker's position.
        lsn: Lsn,
        /// What to do.
        note: Note,
        /// Who asks.
        by: String,
    },
    /// List what keeps history from expiring.
    MtHolds {
        /// Which replica.
        replica: ReplicaId,
    },
    /// Make a test branch and serve it.
    MtTestBranch {
        /// Which replica.
        replica: ReplicaId,
        /// Ours.
        branch: BranchId,
        /// Unique within the replica.
        name: String,
        /// Where.
        point: PointChoice,
    },
    /// Throw a test branch away.
    MtDropBranch {
        /// Which replica.
        replica: ReplicaId,
        /// Which branch.
        name: String,
    },
    /// Revoke the former branch's export if there is one, then make the branch of a new epoch with
    /// authority and serve it. Used for failover and for change of point (trap T-17).
    MtPromote {
        /// Which replica.
        replica: ReplicaId,
        /// Ours.
        branch: BranchId,
        /// Name of the branch, for instance `epoch-2`.
        name: String,
        /// Where, in the log that was replicated.
        point: PointChoice,
        /// The new epoch.
        epoch: Epoch,
    },
    /// The branch's log is now the log; older points can't be chosen any more; fold to the fork in
    /// the background.
    MtCommit {
        /// Which replica.
        replica: ReplicaId,
    },
    /// What a reprotect would send and lose (RQ-RE-4).
    MtEstimate {
        /// Which replica.
        replica: ReplicaId,
    },
    /// Discard divergence by name.
    MtDiscardDivergence {
        /// Which replica.
        replica: ReplicaId,
        /// By name.
        names: Vec<String>,
    },
    /// Send the branch's log home: a catch-up in compare mode first, then the log. Answered when
    /// the window is open.
    MtReverseStart {
        /// The replica whose branch has authority.
        replica: ReplicaId,
        /// The replica at home.
        to: ReplicaId,
        /// `host:port` of the process server.
        next_hop: String,
        /// The instance that the home replica expects.
        instance: InstanceId,
    },
    /// The position before the first record that [`Order::MtReverseStart`] will send: base of the
    /// home replica.
    MtReverseBase {
        /// The replica whose branch has authority.
        replica: ReplicaId,
    },
    /// Stop sending home.
    MtReverseStop {
        /// The replica whose branch has authority.
        replica: ReplicaId,
    },
    /// Revoke the branch's export, put a last marker into its log, make it durable: the source of
    /// this direction is demoted.
    MtDemote {
        /// The replica whose branch has authority.
        replica: ReplicaId,
    },
    /// Wait until this is durable here. Answered after `wait_ms` at the latest.
    MtAwait {
        /// Which replica.
        replica: ReplicaId,
        /// Until when.
        lsn: Lsn,
        /// Milliseconds.
        wait_ms: u64,
    },
    /// Fold the image to this LSN with undo kept, and release the disks to the machine (home's
    /// promotion).
    MtRelease {
        /// The replica at home (frozen).
        replica: ReplicaId,
        /// Where to.
        lsn: Lsn,
        /// The chain there: proof that it is the same history (trap T-17).
        chain: Chain,
        /// The epoch in which home writes.
        epoch: Epoch,
    },
    /// Undo a release that was given up before the machine started.
    MtUnrelease {
        /// The replica at home.
        replica: ReplicaId,
    },
    /// The demoted replica takes frames again, of this new epoch forked at `fork`.
    MtFollow {
        /// Which replica.
        replica: ReplicaId,
        /// The new epoch.
        epoch: Epoch,
        /// Last LSN of the replica's own log.
        fork: Lsn,
        /// The instance that may send.
        instance: InstanceId,
    },
    /// A demotion was given up before anything was promoted: serve the branch again in its epoch.
    MtUndemote {
        /// Which replica.
        replica: ReplicaId,
    },
    /// Remove a replica with journal, branches and undo; the image stays.
    MtRemove {
        /// Which replica.
        replica: ReplicaId,
        /// Remove image files that the master target made itself.
        images: bool,
    },
}

/// How an agent begins.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "start", rename_all = "kebab-case")]
pub enum StartMode {
    /// First copy into the image.
    FirstCopy,
    /// The disks stand exactly at this position of the shared lineage; the capture is active before
    /// anything writes.
    Continue {
        /// Where.
        lsn: Lsn,
        /// The chain there.
        chain: Chain,
    },
}

/// See [`Order::AgentStart`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentStart {
    /// The machine.
    pub machine: MachineId,
    /// The replica that its log is for.
    pub replica: ReplicaId,
    /// Must be this agent's own instance, else refused (trap T-11).
    pub instance: InstanceId,
    /// The disks.
    pub disks: Vec<Disk>,
    /// `host:port` of the process server.
    pub next_hop: String,
    /// The history; its last epoch is the one to write in.
    pub lineage: Lineage,
    /// How to begin.
    pub mode: StartMode,
    /// Milliseconds between crash-consistent markers.
    pub marker_interval_ms: u64,
}

/// See [`Order::MtCreate`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MtCreate {
    /// Ours.
    pub replica: ReplicaId,
    /// Of which machine.
    pub machine: MachineId,
    /// Its name: part of the exports' names.
    pub machine_name: String,
    /// The instance whose sessions are accepted.
    pub instance: InstanceId,
    /// The disks, in order.
    pub disks: Vec<Disk>,
    /// Image of each disk; `None`: a raw file of the master target's own.
    pub images: Vec<Option<String>>,
    /// The history.
    pub lineage: Lineage,
    /// The position before the first record, and the chain there; [`Lsn::ZERO`] and the root chain
    /// for a first copy.
    pub base: Lsn,
    /// See `base`.
    pub base_chain: Chain,
    /// How long what is kept.
    pub retention: RetentionPolicy,
    /// Name of the key-encryption key, on the master target's host, of a replica that is to be
    /// encrypted; none: as the master target does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<String>,
}

/// What an inspected disk is like.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InspectedDisk {
    /// The path that was asked about.
    pub path: String,
    /// Size and sectors, or why it can't be used.
    pub disk: Result<DiskGeometry, crate::ApiError>,
}

/// Positions of a replica.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReplicaPosition {
    /// Durable.
    pub durable: Lsn,
    /// The chain there.
    pub chain: Chain,
    /// Newest durable LSN at which no window is open.
    pub newest_legal: Option<Lsn>,
    /// Its history.
    pub lineage: Lineage,
}

/// What came of an order.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum OrderOutcome {
    /// Nothing to say.
    Done,
    /// Of the inspect orders.
    Inspected {
        /// One per path.
        disks: Vec<InspectedDisk>,
    },
    /// Of [`Order::AgentStart`]: the instance that started.
    Started {
        /// The agent's own.
        instance: InstanceId,
    },
    /// Of [`Order::AgentStop`], [`Order::MtDemote`], [`Order::MtFreeze`], [`Order::MtAwait`],
    /// [`Order::MtReverseBase`].
    Position(ReplicaPosition),
    /// Of [`Order::PsDrain`]: what the next hop still has not; all zero when drained.
    Drained {
        /// Bytes left.
        bytes: u64,
        /// Records left.
        records: u64,
        /// Seconds since the oldest of them came.
        age_s: f64,
    },
    /// Of [`Order::MtPoints`].
    Points(Points),
    /// Of [`Order::MtHolds`].
    Holds {
        /// The earliest first.
        holds: Vec<Hold>,
    },
    /// Of [`Order::MtTestBranch`], [`Order::MtPromote`], [`Order::MtUndemote`].
    Branch(Branch),
    /// Of [`Order::MtEstimate`].
    Estimate {
        /// Bytes of the blocks known to differ.
        bytes: u64,
        /// What is known to have diverged.
        divergence: Vec<Divergence>,
    },
    /// Of [`Order::MtRelease`].
    Released {
        /// Paths of the disks, now the machine's own.
        disks: Vec<String>,
        /// Bytes that were written into them.
        folded_bytes: u64,
    },
}

impl Order {
    /// Its answer is worth nothing to a node that has ended meanwhile, and must not be made durable
    /// before it is sent: the disk that it would be written to may be frozen.
    #[must_use]
    pub const fn is_momentary(&self) -> bool {
        matches!(self, Self::AgentBarrier { .. })
    }
}
