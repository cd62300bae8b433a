use crate::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::history::History;
use crate::{DecodeError, body};
use bytes::BytesMut;
use landfall_repl::Message;

/// Reads the frames of one direction of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    pub(crate) history: History,
}

impl Decoder {
    /// Both ends have agreed to remember so many bytes of records; from the next batch on.
    pub fn agree(&mut self, history_bytes: u64) {
        self.history = History::new(history_bytes);
    }

    /// Takes the next message out of what has arrived; `None` when its frame is not complete yet.
    /// The header is checked as soon as it is there, so that no more than a frame's limit is ever
    /// waited for.
    ///
    /// # Errors
    /// [`DecodeError`], after which nothing more can be read from this connection; never panics,
    /// whatever the bytes.
    pub fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
        let Some(raw) = arrived.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let header = FrameHeader::decode(raw)?;
        if arrived.len() < FRAME_HEADER_BYTES + header.length {
            return Ok(None);
        }
        header.verify(raw, &arrived[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.length])?;
        let mut frame = arrived.split_to(FRAME_HEADER_BYTES + header.length);
        let body = frame.split_off(FRAME_HEADER_BYTES).freeze();
        body::decode(header.kind, body, self).map(Some)
    }
}
