use crate::body;
use crate::frame::{FrameHeader, FrameType};
use crate::history::History;
use crate::squeeze::{Compression, Squeeze};
use bytes::Bytes;
use landfall_repl::Message;
use landfall_types::Class;

/// Why a message can't be written: its maker broke a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// Longer than its type may be.
    #[error("{kind} frame of {length} bytes, more than {max}")]
    TooLong {
        /// Name of the type.
        kind: &'static str,
        /// Bytes of the body.
        length: usize,
        /// Most for this type.
        max: usize,
    },
    /// The data of an image piece is not as long as the piece.
    #[error("image piece of {length} bytes carries {data}")]
    ImageLength {
        /// Bytes that the piece covers.
        length: u64,
        /// Bytes of data.
        data: u64,
    },
}

impl EncodeError {
    /// A defect of whoever made the message.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::TooLong { .. } | Self::ImageLength { .. } => Class::Bug,
        }
    }
}

/// Writes the frames of one direction of one connection.
#[derive(Debug, Default)]
pub struct Encoder {
    pub(crate) squeeze: Squeeze,
    pub(crate) history: History,
}

impl Encoder {
    /// An encoder for one connection.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self { squeeze: Squeeze::new(compression), history: History::default() }
    }

    /// Both ends have agreed to remember so many bytes of records; from the next batch on.
    pub fn agree(&mut self, history_bytes: u64) {
        self.history = History::new(history_bytes);
    }

    /// The frame as parts to be written one after the other; payloads are not copied. `backlog`:
    /// bytes of earlier frames that the link has not taken yet; an adaptive encoder spends more
    /// processor time while there are any.
    ///
    /// # Errors
    /// [`EncodeError`] when the message breaks a limit of the format.
    pub fn encode(&mut self, message: &Message, backlog: usize) -> Result<Vec<Bytes>, EncodeError> {
        let kind = FrameType::of(message);
        self.squeeze.backlog(backlog);
        let mut parts = vec![Bytes::new()];
        parts.extend(body::encode(message, self)?);
        let length = parts.iter().map(Bytes::len).sum();
        let max = kind.body_bytes_max();
        if length > max {
            return Err(EncodeError::TooLong { kind: kind.name(), length, max });
        }
        parts[0] = Bytes::copy_from_slice(&FrameHeader::encode(kind, &parts[1..]));
        Ok(parts)
    }
}
