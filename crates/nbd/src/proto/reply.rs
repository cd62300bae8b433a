use super::constants::{
    BASE_ALLOCATION_ID, REPLY_FLAG_DONE, REPLY_TYPE_BLOCK_STATUS, REPLY_TYPE_ERROR,
    REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, SIMPLE_REPLY_MAGIC,
    STATE_HOLE, STATE_ZERO, STRUCTURED_REPLY_MAGIC,
};
use super::limits::{CHUNK_BYTES_MAX, STRING_BYTES_MAX};
use super::{Errno, Violation};
use crate::Extent;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Encodes the answers to requests, simple or structured as it was negotiated.
///
/// Returns headers only where a payload follows: the payload itself is sent from where it lies.
#[derive(Debug)]
pub struct ReplyWriter {
    structured: bool,
    scratch: BytesMut,
}

impl ReplyWriter {
    /// For a session with or without structured replies.
    #[must_use]
    pub fn new(structured: bool) -> Self {
        Self { structured, scratch: BytesMut::new() }
    }

    /// Success without data.
    #[must_use]
    pub fn done(&mut self, cookie: u64) -> Bytes {
        if self.structured {
            self.put_chunk(REPLY_TYPE_NONE, cookie, 0);
        } else {
            self.put_simple(0, cookie);
        }
        self.take()
    }

    /// The head of a successful read; exactly `length` bytes of data must follow.
    #[must_use]
    pub fn data(&mut self, cookie: u64, offset: u64, length: u32) -> Bytes {
        if self.structured {
            self.put_chunk(REPLY_TYPE_OFFSET_DATA, cookie, length.saturating_add(8));
            self.scratch.put_u64(offset);
        } else {
            self.put_simple(0, cookie);
        }
        self.take()
    }

    /// A successful read of a range that holds nothing but zeroes; only with structured replies.
    #[must_use]
    pub fn hole(&mut self, cookie: u64, offset: u64, length: u32) -> Bytes {
        self.put_chunk(REPLY_TYPE_OFFSET_HOLE, cookie, 12);
        self.scratch.put_u64(offset);
        self.scratch.put_u32(length);
        self.take()
    }

    /// Extents; `base:allocation` exists only beside structured replies.
    ///
    /// # Panics
    /// When an extent is longer than 4 GiB or there are more than 2^28: [`super::judge`] bounds
    /// both.
    #[must_use]
    pub fn status(&mut self, cookie: u64, extents: &[Extent]) -> Bytes {
        let length =
            u32::try_from(4 + 8 * extents.len()).expect("the number of extents is bounded");
        self.put_chunk(REPLY_TYPE_BLOCK_STATUS, cookie, length);
        self.scratch.put_u32(BASE_ALLOCATION_ID);
        for extent in extents {
            let length = u32::try_from(extent.length).expect("a request spans less than 4 GiB");
            self.scratch.put_u32(length);
            self.scratch.put_u32(if extent.hole { STATE_HOLE | STATE_ZERO } else { 0 });
        }
        self.take()
    }

    /// Failure, with a message for people where the client can take one.
    #[must_use]
    pub fn error(&mut self, cookie: u64, errno: Errno, message: &str) -> Bytes {
        if !self.structured {
            self.put_simple(errno.code(), cookie);
            return self.take();
        }
        let message = clip(message, STRING_BYTES_MAX);
        let length = u16::try_from(message.len()).expect("clipped to 4096 bytes");
        self.put_chunk(REPLY_TYPE_ERROR, cookie, 6 + u32::from(length));
        self.scratch.put_u32(errno.code());
        self.scratch.put_u16(length);
        self.scratch.put_slice(message.as_bytes());
        self.take()
    }

    fn put_simple(&mut self, error: u32, cookie: u64) {
        self.scratch.put_u32(SIMPLE_REPLY_MAGIC);
        self.scratch.put_u32(error);
        self.scratch.put_u64(cookie);
    }

    /// Every reply of ours is one chunk: it is encoded only when nothing can fail any more.
    fn put_chunk(&mut self, kind: u16, cookie: u64, length: u32) {
        self.scratch.put_u32(STRUCTURED_REPLY_MAGIC);
        self.scratch.put_u16(REPLY_FLAG_DONE);
        self.scratch.put_u16(kind);
        self.scratch.put_u64(cookie);
        self.scratch.put_u32(length);
    }

    fn take(&mut self) -> Bytes {
        self.scratch.split().freeze()
    }
}

/// The longest prefix of `text` of at most `bytes` bytes that is still UTF-8.
fn clip(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The fixed part of an answer, as a client reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyHeader {
    /// Data follow without a length of their own when it answers a READ with success.
    Simple {
        /// 0 or an error number.
        error: u32,
        /// Which request.
        cookie: u64,
    },
    /// `length` bytes follow.
    Chunk {
        /// The last of its reply.
        done: bool,
        /// `REPLY_TYPE_…`.
        kind: u16,
        /// Which request.
        cookie: u64,
        /// Bytes that follow, at most [`CHUNK_BYTES_MAX`].
        length: u32,
    },
}

impl ReplyHeader {
    /// Bytes of a simple reply; a chunk has four more.
    pub const SIMPLE_BYTES: usize = 16;
    /// Bytes of a chunk's header.
    pub const CHUNK_BYTES: usize = 20;

    /// Bytes of the header that starts with `magic`.
    ///
    /// # Errors
    /// [`Violation::ReplyMagic`]: the stream is out of step.
    pub const fn bytes(magic: u32) -> Result<usize, Violation> {
        match magic {
            SIMPLE_REPLY_MAGIC => Ok(Self::SIMPLE_BYTES),
            STRUCTURED_REPLY_MAGIC => Ok(Self::CHUNK_BYTES),
            other => Err(Violation::ReplyMagic(other)),
        }
    }

    /// From as many bytes as [`ReplyHeader::bytes`] says.
    ///
    /// # Errors
    /// [`Violation`] when they are no header, or announce more than a client accepts.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Violation> {
        const SHORT: Violation = Violation::Malformed("reply header");
        let magic = bytes.try_get_u32().map_err(|_| SHORT)?;
        if bytes.len() + 4 != Self::bytes(magic)? {
            return Err(SHORT);
        }
        if magic == SIMPLE_REPLY_MAGIC {
            return Ok(Self::Simple { error: bytes.get_u32(), cookie: bytes.get_u64() });
        }
        let flags = bytes.get_u16();
        let (kind, cookie, length) = (bytes.get_u16(), bytes.get_u64(), bytes.get_u32());
        if length > CHUNK_BYTES_MAX {
            return Err(Violation::TooLong(length));
        }
        Ok(Self::Chunk { done: flags & REPLY_FLAG_DONE != 0, kind, cookie, length })
    }
}

/// Splits the payload of a data chunk into its offset on the disk and the data.
///
/// # Errors
/// [`Violation::Malformed`] when it holds no data.
pub fn decode_offset_data(mut payload: Bytes) -> Result<(u64, Bytes), Violation> {
    if payload.len() < 9 {
        return Err(Violation::Malformed("data chunk"));
    }
    let offset = payload.get_u64();
    Ok((offset, payload))
}

/// Offset and length of a hole chunk.
///
/// # Errors
/// [`Violation::Malformed`] when it is no hole.
pub fn decode_offset_hole(mut payload: &[u8]) -> Result<(u64, u32), Violation> {
    if payload.len() != 12 {
        return Err(Violation::Malformed("hole chunk"));
    }
    Ok((payload.get_u64(), payload.get_u32()))
}

/// Number and message of an error chunk.
///
/// # Errors
/// [`Violation::Malformed`] when the lengths do not add up or the error is "none".
pub fn decode_error_chunk(mut payload: &[u8]) -> Result<(Errno, String), Violation> {
    const BAD: Violation = Violation::Malformed("error chunk");
    let code = payload.try_get_u32().map_err(|_| BAD)?;
    let length = usize::from(payload.try_get_u16().map_err(|_| BAD)?);
    let message = payload.get(..length).ok_or(BAD)?;
    if code == 0 || length > STRING_BYTES_MAX {
        return Err(BAD);
    }
    Ok((Errno::from_code(code), String::from_utf8_lossy(message).into_owned()))
}

/// What a block status chunk holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockStatus {
    /// Which metadata context.
    pub context: u32,
    /// Length in bytes and flags of each extent.
    pub extents: Vec<(u32, u32)>,
}

/// The extents of a block status chunk.
///
/// # Errors
/// [`Violation::Malformed`] when there are none, or an empty one.
pub fn decode_block_status(mut payload: &[u8]) -> Result<BlockStatus, Violation> {
    const BAD: Violation = Violation::Malformed("block status chunk");
    let context = payload.try_get_u32().map_err(|_| BAD)?;
    if payload.is_empty() || !payload.len().is_multiple_of(8) {
        return Err(BAD);
    }
    let mut extents = Vec::with_capacity(payload.len() / 8);
    while payload.has_remaining() {
        let (length, flags) = (payload.get_u32(), payload.get_u32());
        if length == 0 {
            return Err(BAD);
        }
        extents.push((length, flags));
    }
    Ok(BlockStatus { context, extents })
}

#[cfg(test)]
mod tests;
