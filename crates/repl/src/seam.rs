//! The two sides that a session connects: where records come from and where they go.

use async_trait::async_trait;
use bytes::Bytes;
use landfall_types::{
    ByteRange, Chain, Class, DiskIndex, Epoch, Incarnation, Lineage, Lsn, Record, ReplicaId,
    WindowId,
};

/// Who a sender is: compared by the receiver before any position is (trap T-1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceIdentity {
    /// Which replica the records are for.
    pub replica: ReplicaId,
    /// The history that the records continue; its last epoch is the one they are written in.
    pub lineage: Lineage,
    /// The producer's run.
    pub incarnation: Incarnation,
    /// The instance that has authority (trap T-11): another one never takes the session over.
    pub instance: landfall_types::InstanceId,
}

/// Records in order, without gaps, of one epoch and one incarnation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The epoch that they were written in.
    pub epoch: Epoch,
    /// The producer's run.
    pub incarnation: Incarnation,
    /// The chain before the first record.
    pub chain_before: Chain,
    /// The producer's own position after the last record (for an agent: the ring's), 0 where it has
    /// none.
    pub source_position: u64,
    /// At least one.
    pub records: Vec<Record>,
}

impl Batch {
    /// LSN of the first record.
    ///
    /// # Panics
    /// On an empty batch, which no constructor makes.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.records.first().expect("a batch has a record").header.lsn
    }
    /// LSN of the last record.
    ///
    /// # Panics
    /// See [`Batch::first`].
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.records.last().expect("a batch has a record").header.lsn
    }
    /// The chain after the last record.
    #[must_use]
    pub fn chain_after(&self) -> Chain {
        self.records.iter().fold(self.chain_before, |chain, record| record.chain(chain))
    }
    /// Bytes of headers and payloads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|r| landfall_types::HEADER_BYTES + r.payload.len()).sum()
    }
}

/// Where a receiver stands: what it has durable, and of which history. The receiver speaks first
/// (design section 5.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiverPosition {
    /// Its history.
    pub lineage: Lineage,
    /// Whose records it holds last; [`Incarnation::NONE`] when none.
    pub incarnation: Incarnation,
    /// Last LSN that is durable here.
    pub durable: Lsn,
    /// The chain at `durable`.
    pub chain: Chain,
    /// The producer's own position at `durable`.
    pub source_position: u64,
    /// Last LSN known to be durable at the master target (equals `durable` there).
    pub durable_at_target: Lsn,
    /// A first copy in progress: the window and, per disk, the bytes from the start that are
    /// durable in the image.
    pub image_copy: Option<ImageCopyPosition>,
    /// Windows that are open at `durable`.
    pub open_windows: Vec<WindowId>,
    /// What the target can't read any more at its newest position, and asks for again (trap T-20):
    /// in order, without overlaps. The source's answer are new records in a window.
    pub rotten: Vec<(DiskIndex, ByteRange)>,
}

/// How far a first copy has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageCopyPosition {
    /// Its window.
    pub window: WindowId,
    /// Bytes from the start of each disk that are durable in the image.
    pub durable_bytes: Vec<(DiskIndex, u64)>,
}

/// What is durable where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Durable {
    /// At this hop.
    pub here: Lsn,
    /// At the master target: the only one that RPO and "protected" are computed from (trap T-18).
    pub at_target: Lsn,
}

/// One piece of a first copy, straight into the image (design section 14.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageData {
    /// The window that it belongs to.
    pub window: WindowId,
    /// Disk.
    pub disk: DiskIndex,
    /// First byte; pieces of one disk come in order and without gaps.
    pub offset: u64,
    /// Bytes covered.
    pub length: u64,
    /// `None`: all zeroes.
    pub data: Option<Bytes>,
}

/// Asks the master target for hashes of what it would read at its newest position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashRequest {
    /// Answered only when the target has all records up to here (so that the verdict is about a
    /// known position).
    pub after: Lsn,
    /// Disk.
    pub disk: DiskIndex,
    /// First byte.
    pub offset: u64,
    /// Bytes; the last block may be shorter than `block_bytes`.
    pub length: u64,
    /// Bytes per hash.
    pub block_bytes: u32,
}

/// 16 bytes of BLAKE3 per block of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashReply {
    /// In order of the blocks.
    pub hashes: Vec<[u8; 16]>,
}

/// Why a session is refused or ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The sender's epoch is over (design section 5.4); for ever.
    #[error("epoch {offered} is over: the replica is at {current}")]
    Fenced {
        /// What the sender has.
        offered: Epoch,
        /// What the receiver is at.
        current: Epoch,
    },
    /// The histories differ (design section 7): never merged.
    #[error("histories have diverged: they agree up to {common}, the replica is at {durable}")]
    Diverged {
        /// Last LSN that both agree on.
        common: Lsn,
        /// The receiver's durable LSN.
        durable: Lsn,
    },
    /// Not the next LSN: the session is closed, the sender resumes where the receiver says.
    #[error("record {found} came where {expected} was due")]
    Gap {
        /// Due.
        expected: Lsn,
        /// Came.
        found: Lsn,
    },
    /// A duplicate with another hash, or a chain that does not fit (trap T-1): new incarnation and
    /// compare.
    #[error("the chain at {lsn} does not fit: another history was sent under the same positions")]
    ChainMismatch {
        /// Where.
        lsn: Lsn,
    },
    /// No such replica at this receiver.
    #[error("replica {0} is not here")]
    UnknownReplica(ReplicaId),
    /// Another instance than the one that has authority (trap T-11).
    #[error("instance {0} has no authority for this replica")]
    OtherInstance(landfall_types::InstanceId),
    /// The replica does not take records in this state (frozen, writable).
    #[error("the replica is {state} and takes no records")]
    NotReplicating {
        /// Its durable role.
        state: String,
    },
    /// A newer session of the same instance took over.
    #[error("a newer session has taken over")]
    Superseded,
    /// The receiver can't store now (full, failed disk, downstream away): try again later.
    #[error("the receiver can't take records now: {reason}")]
    Unavailable {
        /// What an operator needs to know.
        reason: String,
    },
    /// Bytes that are no message, or a message out of turn.
    #[error("protocol violation: {detail}")]
    Protocol {
        /// Which.
        detail: String,
    },
}

impl Refusal {
    /// Stable code, kebab-case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "fenced",
            Self::Diverged { .. } => "diverged",
            Self::Gap { .. } => "gap",
            Self::ChainMismatch { .. } => "chain-mismatch",
            Self::UnknownReplica(_) => "unknown-replica",
            Self::OtherInstance(_) => "other-instance",
            Self::NotReplicating { .. } => "not-replicating",
            Self::Superseded => "superseded",
            Self::Unavailable { .. } => "unavailable",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// What a sender should do about it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Fenced { .. } | Self::OtherInstance(_) | Self::Superseded => Class::Fenced,
            Self::Gap { .. } | Self::Unavailable { .. } | Self::NotReplicating { .. } => {
                Class::Transient
            }
            Self::Diverged { .. } | Self::ChainMismatch { .. } | Self::UnknownReplica(_) => {
                Class::Permanent
            }
            Self::Protocol { .. } => Class::Bug,
        }
    }
}

/// Where a sender takes its records from: the agent's queue, a spool, or the log of a branch.
#[async_trait]
pub trait LogSource: Send + Sync + 'static {
    /// Who sends.
    fn identity(&self) -> SourceIdentity;
    /// Called once per session with what the receiver said. The source decides whether it can
    /// continue there: `Ok(())` resumes at `position.durable + 1`; an error ends the session with
    /// that reason (the agent then opens a window: new incarnation, compare).
    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal>;
    /// Records from `from` on, at most about `bytes_max` bytes; waits until there is at least one.
    /// The call is dropped when the session ends: nothing may be lost by that.
    async fn read(&self, from: Lsn, bytes_max: usize) -> Result<Batch, Refusal>;
    /// The next hop has more durable; records up to `durable.here` may be forgotten.
    fn acknowledged(&self, durable: Durable);
    /// A session or an attempt to open one ended for this reason. It is shown in the sender's
    /// status, too; what comes here is in order with the other calls, and none is left out.
    fn refused(&self, _refusal: &Refusal) {}
}

/// A session's place at a receiver: names it in later calls, so that a superseded session's calls
/// are refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionToken {
    /// Which replica.
    pub replica: ReplicaId,
    /// Rises with each session of the replica.
    pub serial: u64,
}

/// Where a receiver puts what it gets: a master target's replicas, or a process server's spools.
#[async_trait]
pub trait LogSink: Send + Sync + 'static {
    /// A sender announces itself. Checks lineage, epoch and instance, ends an older session of the
    /// same instance *before* it returns, and says where the replica stands. Received but not
    /// durable records are forgotten here.
    async fn open(
        &self,
        identity: &SourceIdentity,
    ) -> Result<(SessionToken, ReceiverPosition), Refusal>;
    /// Takes the next batch, in memory or beyond; duplicates with the same hash are dropped, others
    /// refused.
    async fn append(&self, session: SessionToken, batch: Batch) -> Result<(), Refusal>;
    /// Makes durable what was taken, and says what is.
    async fn flush(&self, session: SessionToken) -> Result<Durable, Refusal>;
    /// Waits until more than `seen` is durable at the target (a relay's answer comes from its next
    /// hop).
    async fn durable_beyond(
        &self,
        session: SessionToken,
        seen: Durable,
    ) -> Result<Durable, Refusal>;
    /// Puts a piece of a first copy into the image; answers when it is durable at the target. Calls
    /// begin in order; how many run at once is the receiver's setting. After a new connection a
    /// piece may come a second time.
    async fn image(&self, session: SessionToken, piece: ImageData) -> Result<(), Refusal>;
    /// Hashes of the newest content, see [`HashRequest`].
    async fn hash(&self, session: SessionToken, request: HashRequest)
    -> Result<HashReply, Refusal>;
    /// The connection ended.
    async fn close(&self, session: SessionToken);
}
