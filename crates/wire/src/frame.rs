//! The 20 bytes before every message.

use crate::{DecodeError, batch, image};
use bytes::Bytes;
use landfall_repl::Message;
use landfall_repl::limits::{BATCH_BYTES_MAX, HASHES_MAX, IMAGE_DATA_BYTES_MAX};

/// First four bytes of every frame: `LFr1`, little-endian.
pub const MAGIC: u32 = u32::from_le_bytes(*b"LFr1");
/// Version of the frame header itself; the protocol's version is agreed in `Open` and `Welcome`.
pub const FRAME_VERSION: u8 = 1;
/// Bytes of the header.
pub const FRAME_HEADER_BYTES: usize = 20;
/// Most bytes of a frame with its header, whatever its type.
pub const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + batch::PREFIX_BYTES + BATCH_BYTES_MAX;

/// Room for a lineage of 4096 epochs, the largest thing in a small message.
const SMALL_BODY_BYTES_MAX: usize = 512 * 1024;

/// The frame types; the numbers are the format's and are never used again for something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FrameType {
    Open = 1,
    Welcome = 2,
    Batch = 3,
    Ack = 4,
    ImageData = 5,
    ImageAck = 6,
    HashRequest = 7,
    HashReply = 8,
    Ping = 9,
    Pong = 10,
    Close = 11,
}

impl FrameType {
    pub(crate) const ALL: [Self; 11] = [
        Self::Open,
        Self::Welcome,
        Self::Batch,
        Self::Ack,
        Self::ImageData,
        Self::ImageAck,
        Self::HashRequest,
        Self::HashReply,
        Self::Ping,
        Self::Pong,
        Self::Close,
    ];

    pub(crate) const fn of(message: &Message) -> Self {
        match message {
            Message::Open(_) => Self::Open,
            Message::Welcome(_) => Self::Welcome,
            Message::Batch(_) => Self::Batch,
            Message::Ack(_) => Self::Ack,
            Message::ImageData { .. } => Self::ImageData,
            Message::ImageAck { .. } => Self::ImageAck,
            Message::HashRequest { .. } => Self::HashRequest,
            Message::HashReply { .. } => Self::HashReply,
            Message::Ping(_) => Self::Ping,
            Message::Pong(_) => Self::Pong,
            Message::Close(_) => Self::Close,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Welcome => "welcome",
            Self::Batch => "batch",
            Self::Ack => "ack",
            Self::ImageData => "image-data",
            Self::ImageAck => "image-ack",
            Self::HashRequest => "hash-request",
            Self::HashReply => "hash-reply",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Close => "close",
        }
    }

    pub(crate) const fn body_bytes_max(self) -> usize {
        match self {
            Self::Batch => batch::PREFIX_BYTES + BATCH_BYTES_MAX,
            Self::ImageData => image::PREFIX_BYTES + IMAGE_DATA_BYTES_MAX,
            Self::Open | Self::Welcome => SMALL_BODY_BYTES_MAX,
            Self::HashReply => 4096 + 16 * HASHES_MAX,
            Self::Ack | Self::HashRequest | Self::Ping | Self::Pong => 1024,
            Self::ImageAck | Self::Close => 4096,
        }
    }
}

/// A decoded header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameType,
    pub(crate) length: usize,
    checksum: u32,
}

impl FrameHeader {
    /// The bytes of the header for `body`.
    pub(crate) fn encode(kind: FrameType, body: &[Bytes]) -> [u8; FRAME_HEADER_BYTES] {
        let length: usize = body.iter().map(Bytes::len).sum();
        debug_assert!(length <= kind.body_bytes_max());
        let mut out = [0; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = FRAME_VERSION;
        out[5] = kind as u8;
        // 6..8: flags, none yet. 8..12: reserved.
        let length = u32::try_from(length).expect("bodies are bounded far below 4 GiB");
        out[12..16].copy_from_slice(&length.to_le_bytes());
        let start = crc32c::crc32c(&out[..16]);
        let checksum = body.iter().fold(start, |crc, part| crc32c::crc32c_append(crc, part));
        out[16..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Checks all that can be checked before the body is there, so that no nonsense is waited for.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if word(0) != MAGIC {
            return Err(DecodeError::Magic(word(0)));
        }
        if bytes[4] != FRAME_VERSION {
            return Err(DecodeError::Version(bytes[4]));
        }
        let kind = FrameType::ALL.into_iter().find(|kind| *kind as u8 == bytes[5]);
        let kind = kind.ok_or(DecodeError::Type(bytes[5]))?;
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        if flags != 0 {
            return Err(DecodeError::Flags(flags));
        }
        if word(8) != 0 {
            return Err(DecodeError::Malformed { kind: kind.name(), what: "reserved bytes" });
        }
        let (length, max) = (word(12) as usize, kind.body_bytes_max());
        if length > max {
            let (length, max) = (length as u64, max as u64);
            return Err(DecodeError::TooLong { kind: kind.name(), length, max });
        }
        Ok(Self { kind, length, checksum: word(16) })
    }

    /// Compares the checksum over header and body.
    pub(crate) fn verify(
        &self,
        header: &[u8; FRAME_HEADER_BYTES],
        body: &[u8],
    ) -> Result<(), DecodeError> {
        let found = crc32c::crc32c_append(crc32c::crc32c(&header[..16]), body);
        if found == self.checksum {
            return Ok(());
        }
        Err(DecodeError::Checksum { expected: self.checksum, found })
    }
}
