use crate::body;
use crate::frame::{FrameHeader, FrameType};
use bytes::{Bytes, BytesMut};
use landfall_repl::Message;
use landfall_types::Class;

/// Whether records and image pieces are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Never: the link is faster than the processor.
    Off,
    /// zstd at this level, frame by frame, where it saves at least an eighth.
    #[default]
    Fast,
    /// zstd at a level that favors bytes over processor time, for slow links.
    Small,
}

impl Compression {
    const fn level(self) -> Option<i32> {
        match self {
            Self::Off => None,
            Self::Fast => Some(1),
            Self::Small => Some(3),
        }
    }
}

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
    squeeze: Squeeze,
}

impl Encoder {
    /// An encoder for one connection.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self { squeeze: Squeeze { compression, skip: 0, misses: 0 } }
    }

    /// The frame as parts to be written one after the other; payloads are not copied.
    ///
    /// # Errors
    /// [`EncodeError`] when the message breaks a limit of the format.
    pub fn encode(&mut self, message: &Message) -> Result<Vec<Bytes>, EncodeError> {
        let kind = FrameType::of(message);
        let mut parts = vec![Bytes::new()];
        parts.extend(body::encode(message, &mut self.squeeze)?);
        let length = parts.iter().map(Bytes::len).sum();
        let max = kind.body_bytes_max();
        if length > max {
            return Err(EncodeError::TooLong { kind: kind.name(), length, max });
        }
        parts[0] = Bytes::copy_from_slice(&FrameHeader::encode(kind, &parts[1..]));
        Ok(parts)
    }
}

/// Decides whether compression pays. Data that does not compress (archives, encrypted disks) comes
/// in long runs: after a miss some frames are not even tried, twice as many after each further
/// miss.
#[derive(Debug, Default)]
pub(crate) struct Squeeze {
    compression: Compression,
    skip: u32,
    misses: u32,
}

/// Below this a frame costs more in calls than it could save.
const SQUEEZE_BYTES_MIN: usize = 256;
/// Most frames that go by untried after a miss.
const SQUEEZE_SKIP_MAX: u32 = 16;

impl Squeeze {
    /// The compressed form of what `whole` returns, where that is worth it.
    pub(crate) fn try_squeeze(
        &mut self,
        length: usize,
        whole: impl FnOnce() -> BytesMut,
    ) -> Option<Bytes> {
        let level = self.compression.level()?;
        if length < SQUEEZE_BYTES_MIN {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        // An error of the compressor costs bandwidth, nothing else: the frame goes out as it is.
        let squeezed = zstd::bulk::compress(&whole(), level).ok();
        let worth = squeezed.filter(|squeezed| squeezed.len() <= length / 8 * 7);
        match worth {
            Some(squeezed) => {
                self.misses = 0;
                Some(Bytes::from(squeezed))
            }
            None => {
                self.skip = (1 << self.misses.min(8)).min(SQUEEZE_SKIP_MAX);
                self.misses += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(squeeze: &mut Squeeze, data: &[u8]) -> (bool, bool) {
        let mut tried = false;
        let result = squeeze.try_squeeze(data.len(), || {
            tried = true;
            BytesMut::from(data)
        });
        (tried, result.is_some())
    }

    #[test]
    fn what_does_not_compress_is_tried_less_and_less() {
        let mut noise = vec![0; 4096];
        landfall_testkit::Rng::new(1).fill(&mut noise);
        let mut squeeze = Squeeze::default();
        let tried: Vec<bool> = (0..60).map(|_| tries(&mut squeeze, &noise).0).collect();
        let at: Vec<usize> = (0..60).filter(|n| tried[*n]).collect();
        assert_eq!(at, [0, 2, 5, 10, 19, 36, 53]);
        // What compresses again is found again, and resets the count.
        while squeeze.skip > 0 {
            assert_eq!(tries(&mut squeeze, &[0; 4096]), (false, false));
        }
        assert_eq!(tries(&mut squeeze, &[0; 4096]), (true, true));
        assert_eq!(tries(&mut squeeze, &noise), (true, false));
        assert_eq!(squeeze.skip, 1);
    }

    #[test]
    fn small_frames_and_fast_links_are_left_alone() {
        assert_eq!(tries(&mut Squeeze::default(), &[0; SQUEEZE_BYTES_MIN - 1]), (false, false));
        assert_eq!(tries(&mut Squeeze::default(), &[0; SQUEEZE_BYTES_MIN]), (true, true));
        let mut off = Squeeze { compression: Compression::Off, skip: 0, misses: 0 };
        assert_eq!(tries(&mut off, &[0; 4096]), (false, false));
    }
}
