use crate::proto::{Request, Violation};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read ahead: at 4 KiB a request, sixteen in one system call.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// The client's stream, cut into requests and payloads. Memory is taken only for what was admitted.
pub(super) struct Input<R> {
    reader: R,
    ahead: BytesMut,
    expecting: Expecting,
}

enum Expecting {
    Header,
    /// A payload for which `data` has exactly the capacity that was asked for.
    Payload {
        data: BytesMut,
        length: usize,
    },
    /// A payload that nobody wants.
    Skip {
        left: usize,
    },
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        let ahead = BytesMut::with_capacity(READ_AHEAD_BYTES);
        Self { reader, ahead, expecting: Expecting::Header }
    }

    /// Reads what there is; false at the end of the stream. Safe to cancel: nothing that was read
    /// is lost.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        let read = match &mut self.expecting {
            Expecting::Payload { data, length } => {
                let missing = *length - data.len();
                // Small ones come by way of the read-ahead, with the requests behind them in the
                // same call.
                if missing >= READ_AHEAD_BYTES {
                    self.reader.read_buf(&mut data.limit(missing)).await?
                } else {
                    self.ahead.reserve(READ_AHEAD_BYTES);
                    self.reader.read_buf(&mut self.ahead).await?
                }
            }
            Expecting::Header | Expecting::Skip { .. } => {
                self.ahead.reserve(READ_AHEAD_BYTES);
                self.reader.read_buf(&mut self.ahead).await?
            }
        };
        Ok(read > 0)
    }

    /// The next request, once it is there whole. Its payload must be taken or skipped before the
    /// next.
    pub(super) fn request(&mut self) -> Result<Option<Request>, Violation> {
        let Some(header) = self.ahead.first_chunk::<{ Request::BYTES }>() else { return Ok(None) };
        let request = Request::decode(header)?;
        self.ahead.advance(Request::BYTES);
        Ok(Some(request))
    }

    /// True when no further request is there whole.
    pub(super) fn is_idle(&self) -> bool {
        self.ahead.len() < Request::BYTES
    }

    /// Announces that the next `length` bytes are wanted.
    pub(super) fn expect_payload(&mut self, length: usize) {
        self.expecting = Expecting::Payload { data: BytesMut::with_capacity(length), length };
    }

    /// Announces that the next `length` bytes are not wanted.
    pub(super) fn expect_skip(&mut self, length: usize) {
        self.expecting = Expecting::Skip { left: length };
    }

    /// The payload, once it is there whole.
    pub(super) fn payload(&mut self) -> Option<Bytes> {
        let Expecting::Payload { data, length } = &mut self.expecting else { return None };
        let take = self.ahead.len().min(*length - data.len());
        data.put_slice(&self.ahead[..take]);
        self.ahead.advance(take);
        if data.len() < *length {
            return None;
        }
        let payload = data.split().freeze();
        self.expecting = Expecting::Header;
        Some(payload)
    }

    /// True once all bytes that are not wanted have passed.
    pub(super) fn skipped(&mut self) -> bool {
        let Expecting::Skip { left } = &mut self.expecting else { return true };
        let take = self.ahead.len().min(*left);
        self.ahead.advance(take);
        *left -= take;
        if *left > 0 {
            return false;
        }
        self.expecting = Expecting::Header;
        true
    }

    /// Reads and forgets until the client closes: a stream that is closed with bytes unread can
    /// lose the answers that are still on their way (a reset overtakes them on TCP).
    pub(super) async fn drain(&mut self) {
        self.ahead.clear();
        while matches!(self.reader.read_buf(&mut self.ahead).await, Ok(read) if read > 0) {
            self.ahead.clear();
        }
    }
}
