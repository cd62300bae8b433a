use landfall_repl::Refusal;
use landfall_types::{Class, RecordError};

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Does not begin with the magic number: the other side speaks something else.
    #[error("not a Landfall frame: it begins with {0:#010x}")]
    Magic(u32),
    /// A version of the frame header that we do not know.
    #[error("frame version {0} is unknown")]
    Version(u8),
    /// A frame type that we do not know.
    #[error("frame type {0} is unknown")]
    Type(u8),
    /// A flag that this version does not know.
    #[error("frame flags {0:#06x} are unknown")]
    Flags(u16),
    /// A body longer than its type may have.
    #[error("{kind} frame of {length} bytes, more than {max}")]
    TooLong {
        /// Name of the type.
        kind: &'static str,
        /// What the header claims.
        length: u64,
        /// Most for this type.
        max: u64,
    },
    /// The bytes are not those that were sent.
    #[error("frame checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// In the header.
        expected: u32,
        /// Of what came.
        found: u32,
    },
    /// The body ends too early or too late, or a number in it is out of its bounds.
    #[error("{kind} frame is malformed: {what}")]
    Malformed {
        /// Name of the type.
        kind: &'static str,
        /// Which part.
        what: &'static str,
    },
    /// A record in a batch is none.
    #[error("a record of the batch can't be decoded")]
    Record(#[source] RecordError),
    /// Not CBOR of the shape that we know.
    #[error("{kind} frame can't be decoded")]
    Cbor {
        /// Name of the type.
        kind: &'static str,
        /// What the decoder found.
        #[source]
        source: minicbor::decode::Error,
    },
    /// The compressed part does not expand to what was announced.
    #[error("the compressed batch can't be expanded to {announced} bytes")]
    Expand {
        /// Bytes announced.
        announced: usize,
        /// What the codec says; `None`: it gave another number of bytes.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A batch compressed against what the connection carried before does not expand: the two
    /// ends remember different things.
    #[error(
        "the batch can't be expanded to {announced} bytes with what was received before: {what}"
    )]
    History {
        /// Bytes announced.
        announced: usize,
        /// What the codec says.
        what: &'static str,
    },
}

impl DecodeError {
    /// A wrong checksum is damage on the way and heals with a new connection; the rest is a defect
    /// or a stranger.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Checksum { .. } => Class::Transient,
            Self::Magic(_)
            | Self::Version(_)
            | Self::Type(_)
            | Self::Flags(_)
            | Self::TooLong { .. }
            | Self::Malformed { .. }
            | Self::Record(_)
            | Self::Cbor { .. }
            | Self::Expand { .. }
            | Self::History { .. } => Class::Bug,
        }
    }

    /// As the session's last word to the peer.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::Protocol { detail: self.to_string() }
    }
}
