//! Frames that wait to be written.

use bytes::{Buf, Bytes};
use landfall_repl::Message;
use landfall_wire::{Compression, EncodeError, Encoder};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Parts handed to the socket at once.
const PARTS_MAX: usize = 64;

/// Frames in order; the session's task writes them while it waits for other things.
pub(crate) struct Outbox {
    encoder: Encoder,
    parts: VecDeque<Bytes>,
    bytes: usize,
    unflushed: bool,
}

impl Outbox {
    pub(crate) fn new(compression: Compression) -> Self {
        let encoder = Encoder::new(compression);
        Self { encoder, parts: VecDeque::new(), bytes: 0, unflushed: false }
    }

    /// # Errors
    /// The message breaks a limit of the format.
    pub(crate) fn push(&mut self, message: &Message) -> Result<(), EncodeError> {
        for part in self.encoder.encode(message, self.bytes)? {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
        Ok(())
    }

    /// Both ends have agreed to remember so many bytes of records.
    pub(crate) fn agree(&mut self, history_bytes: u64) {
        self.encoder.agree(history_bytes);
    }

    /// Bytes that wait.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when [`Outbox::write`] has something to do.
    pub(crate) fn busy(&self) -> bool {
        self.unflushed || !self.parts.is_empty()
    }

    /// Writes some of it, at most about `bytes_max`, or flushes when all is written; says how many
    /// bytes went out. May be dropped at any time.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn write(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        bytes_max: usize,
    ) -> io::Result<usize> {
        if self.parts.is_empty() {
            to.flush().await?;
            self.unflushed = false;
            return Ok(0);
        }
        let mut room = bytes_max;
        let slices = self.parts.iter().take(PARTS_MAX).map_while(|part| {
            let part = &part[..part.len().min(room)];
            room -= part.len();
            (!part.is_empty()).then(|| IoSlice::new(part))
        });
        let slices: Vec<IoSlice<'_>> = slices.collect();
        let written = to.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        self.bytes -= written;
        let mut rest = written;
        while let Some(part) = self.parts.front_mut() {
            let taken = rest.min(part.len());
            part.advance(taken);
            rest -= taken;
            if !part.is_empty() {
                break;
            }
            self.parts.pop_front();
        }
        Ok(written)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn drain(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while self.busy() {
            self.write(to, usize::MAX).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use landfall_wire::Decoder;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn what_is_pushed_arrives_however_little_fits_at_once() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let mut outbox = Outbox::new(Compression::Off);
        for clock in 0..20 {
            outbox.push(&Message::Ping(clock)).expect("small");
        }
        let reader = tokio::spawn(async move {
            let mut bytes = BytesMut::new();
            while far.read_buf(&mut bytes).await.expect("open") > 0 {}
            let mut clocks = vec![];
            let mut decoder = Decoder::default();
            while let Some(message) = decoder.decode(&mut bytes).expect("ours") {
                clocks.push(message);
            }
            clocks
        });
        outbox.drain(&mut near).await.expect("open");
        assert_eq!((outbox.bytes(), outbox.busy()), (0, false));
        drop(near);
        assert_eq!(reader.await.expect("runs"), (0..20).map(Message::Ping).collect::<Vec<_>>());
    }
}
