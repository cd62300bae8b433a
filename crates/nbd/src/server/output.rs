use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Pieces in one system call: sixteen answers with data.
const SLICES_MAX: usize = 32;

/// What a request takes of its connection's bounds, from admission until its answer is handed to
/// the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cost {
    pub(super) bytes: usize,
}

/// Answers on their way to the client.
pub(super) struct Output<W> {
    writer: W,
    pieces: VecDeque<Piece>,
    /// The stream took bytes that it may still hold back.
    unflushed: bool,
}

struct Piece {
    bytes: Bytes,
    /// Given back when this piece, the last of its answer, is sent.
    releases: Option<Cost>,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, pieces: VecDeque::new(), unflushed: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.unflushed
    }

    /// Queues an answer; its cost comes back from [`Output::send`] when all of it is sent.
    pub(super) fn push(&mut self, head: Bytes, data: Option<Bytes>, cost: Cost) {
        match data.filter(|data| !data.is_empty()) {
            Some(data) => {
                self.pieces.push_back(Piece { bytes: head, releases: None });
                self.pieces.push_back(Piece { bytes: data, releases: Some(cost) });
            }
            None => self.pieces.push_back(Piece { bytes: head, releases: Some(cost) }),
        }
    }

    /// Sends what the stream takes at once. Safe to cancel: either nothing was sent or it is
    /// accounted for.
    pub(super) async fn send(&mut self, release: impl FnMut(Cost)) -> io::Result<()> {
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
            if let Some(cost) = piece.releases {
                release(cost);
            }
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
