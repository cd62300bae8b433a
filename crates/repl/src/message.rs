//! What the two ends of a session say to each other. Bytes are `landfall-wire`'s business.

use crate::{
    Batch, Durable, HashReply, HashRequest, ImageData, ReceiverPosition, Refusal, SourceIdentity,
};

/// Oldest version of the protocol that this code speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest version of the protocol that this code speaks.
pub const PROTOCOL_MAX: u16 = 2;
/// From this version on both ends may remember records (see [`Welcome::history_bytes`]).
pub const PROTOCOL_HISTORY: u16 = 2;

/// Names a request within a session, so that its answer finds it; rises with each request of a
/// sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RequestId(pub u64);

/// The sender announces itself: the first message of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// Oldest version that the sender speaks.
    pub version_min: u16,
    /// Newest version that the sender speaks.
    pub version_max: u16,
    /// Who it is.
    pub identity: SourceIdentity,
    /// Bytes of records that the sender can remember, see [`Welcome::history_bytes`].
    pub history_bytes: u64,
}

/// The receiver says where it stands; the sender resumes there (design section 5.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version of everything that follows.
    pub version: u16,
    /// Where the receiver stands.
    pub position: ReceiverPosition,
    /// Bytes of batches that the sender may have sent in this session (see [`Ack::credit`]).
    pub credit: u64,
    /// Bytes of image pieces that may be unanswered at once.
    pub image_window: u64,
    /// Bytes of records that both ends remember in this session, so that batches can be compressed
    /// against them: no more than the sender offered; 0 before [`PROTOCOL_HISTORY`].
    pub history_bytes: u64,
}

/// How far the receiver is. Cumulative; *acknowledged* always means durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Last LSN that arrived in order: for display only, nothing may be forgotten because of it.
    pub received: landfall_types::Lsn,
    /// What is durable here and at the target.
    pub durable: Durable,
    /// Bytes of batches that the sender may have sent since the session began: only ever rises. A
    /// sender that has used less may send one more batch, whatever its size.
    pub credit: u64,
}

/// One message. The sender says `Open`, `Batch`, `ImageData`, `HashRequest`, `Ping`; the receiver
/// `Welcome`, `Ack`, `ImageAck`, `HashReply`, `Pong`; both `Close`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// See [`Open`].
    Open(Open),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// Records.
    Batch(Batch),
    /// See [`Ack`].
    Ack(Ack),
    /// A piece of a first copy.
    ImageData {
        /// Names it.
        request: RequestId,
        /// The piece.
        piece: ImageData,
    },
    /// The piece is durable at the target, or was refused.
    ImageAck {
        /// Which.
        request: RequestId,
        /// How it went.
        result: Result<(), Refusal>,
    },
    /// Asks for hashes.
    HashRequest {
        /// Names it.
        request: RequestId,
        /// The question.
        ask: HashRequest,
    },
    /// The hashes, or why there are none.
    HashReply {
        /// Which.
        request: RequestId,
        /// The answer.
        result: Result<HashReply, Refusal>,
    },
    /// Are you there? Carries the sender's clock, which comes back in the answer.
    Ping(u64),
    /// The answer with what the question carried.
    Pong(u64),
    /// The session ends: in order (`None`), or because of something.
    Close(Option<Refusal>),
}

impl Message {
    /// The variant's name, for logs and refusals.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Welcome(_) => "welcome",
            Self::Batch(_) => "batch",
            Self::Ack(_) => "ack",
            Self::ImageData { .. } => "image-data",
            Self::ImageAck { .. } => "image-ack",
            Self::HashRequest { .. } => "hash-request",
            Self::HashReply { .. } => "hash-reply",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Close(_) => "close",
        }
    }
}
