use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Pieces in one system call: sixteen answers with data of their own.
const SLICES_MAX: usize = 32;
/// Answers are put together in one piece up to this size; then the next one is begun.
const TAIL_BYTES: usize = 256 * 1024;

/// What requests take of their connection's bounds, from admission until their answers are handed
/// to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cost {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

impl Cost {
    /// Of a request whose place is not counted.
    pub(super) const NOTHING: Self = Self { requests: 0, bytes: 0 };

    pub(super) const fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// Answers on their way to the client.
///
/// Small answers lie one behind the other in one piece of memory, so that many leave in one system
/// call; large data are sent from where they lie.
pub(super) struct Output<W> {
    writer: W,
    pieces: VecDeque<Piece>,
    /// The piece that is being put together, and what it gives back.
    tail: BytesMut,
    tail_cost: Cost,
    /// The stream took bytes that it may still hold back.
    unflushed: bool,
}

struct Piece {
    bytes: Bytes,
    /// Given back when this piece is sent.
    releases: Cost,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writer,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            tail_cost: Cost::NOTHING,
            unflushed: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty() && !self.unflushed
    }

    /// Queues an answer; its cost comes back from [`Output::send`] when all of it is sent.
    pub(super) fn push(&mut self, head: &[u8], data: Option<Bytes>, cost: Cost) {
        self.tail.extend_from_slice(head);
        match data.filter(|data| !data.is_empty()) {
            Some(data) => {
                self.seal();
                self.pieces.push_back(Piece { bytes: data, releases: cost });
            }
            None => {
                self.tail_cost.add(cost);
                self.seal_if_full();
            }
        }
    }

    /// Queues an answer whose `length` bytes of data `fill` puts in place. When it fails or finds
    /// that there are none to send, nothing is queued.
    pub(super) fn compose<T>(
        &mut self,
        head: &[u8],
        length: usize,
        cost: Cost,
        fill: impl FnOnce(&mut [u8]) -> Result<Filled, T>,
    ) -> Result<Filled, T> {
        let start = self.tail.len();
        self.tail.extend_from_slice(head);
        let data = self.tail.len();
        self.tail.resize(data + length, 0);
        let filled = fill(&mut self.tail[data..]);
        if matches!(filled, Ok(Filled::Yes)) {
            self.tail_cost.add(cost);
            self.seal_if_full();
        } else {
            self.tail.truncate(start);
        }
        filled
    }

    fn seal_if_full(&mut self) {
        if self.tail.len() >= TAIL_BYTES {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        let bytes = self.tail.split().freeze();
        let releases = std::mem::take(&mut self.tail_cost);
        self.pieces.push_back(Piece { bytes, releases });
    }

    /// Sends what the stream takes at once. Safe to cancel: either nothing was sent or it is
    /// accounted for.
    pub(super) async fn send(&mut self, release: impl FnMut(Cost)) -> io::Result<()> {
        self.seal();
        if !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.pieces.len().min(SLICES_MAX);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(&piece.bytes);
            }
            let sent = self.writer.write_vectored(&slices[..count]).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unflushed = true;
            self.account(sent, release);
        }
        self.writer.flush().await?;
        self.unflushed = false;
        Ok(())
    }

    fn account(&mut self, mut sent: usize, mut release: impl FnMut(Cost)) {
        while let Some(piece) = self.pieces.front_mut() {
            let taken = sent.min(piece.bytes.len());
            piece.bytes.advance(taken);
            sent -= taken;
            if !piece.bytes.is_empty() {
                return;
            }
            release(piece.releases);
            self.pieces.pop_front();
        }
    }

    /// Sends the rest and says that nothing more will come.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        while !self.is_empty() {
            self.send(|_| ()).await?;
        }
        self.writer.shutdown().await
    }
}

/// What became of the data of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Filled {
    /// They are in place.
    Yes,
    /// There are none to send: the answer is another one.
    Unneeded,
}
