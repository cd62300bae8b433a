//! The sending side: a task that outlives connections, and the handle by which its owner speaks to
//! it.

mod session;

use crate::limit::Limiter;
use landfall_repl::limits::{
    HASH_BLOCK_BYTES_MIN, HASH_REQUESTS_MAX, HASHES_MAX, IMAGE_DATA_BYTES_MAX, IMAGE_WINDOW_BYTES,
    IMAGE_ZERO_BYTES_MAX,
};
use landfall_repl::{
    Ack, Answer, Ask, HashReply, HashRequest, ImageData, LogSource, Refusal, SenderOptions,
    SenderPhase,
};
use landfall_types::Lsn;
use landfall_wire::Compression;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// While more bytes than this wait to be written, no further records are read from the source.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one permit for image pieces; the smallest piece takes one.
const IMAGE_PERMIT_BYTES: usize = 4096;

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// `host:port` of the next hop.
    pub address: String,
    /// Shows our certificate and checks the peer's.
    pub tls: Arc<ClientConfig>,
    /// Whether frames are compressed.
    pub compression: Compression,
    /// Of the state machine.
    pub options: SenderOptions,
    /// What replication may use of the link; shared by all senders that use it.
    pub limiter: Arc<Limiter>,
}

/// How a sender is.
#[derive(Clone, Debug)]
pub struct SenderStatus {
    /// In one word. [`SenderPhase::Stopped`] with a refusal: given up until
    /// [`SenderHandle::restart`].
    pub phase: SenderPhase,
    /// Records have been flowing since then.
    pub connected_since: Option<Instant>,
    /// Why the last session was refused; cleared when records flow again.
    pub refusal: Option<Refusal>,
    /// Why the last attempt to connect failed, with its causes; cleared when a connection stands.
    pub connect_error: Option<String>,
    /// Last record sent in this or the last session.
    pub sent: Lsn,
    /// What the next hop has said of itself in this or the last session.
    pub acked: Ack,
    /// Last measured round trip in microseconds (RQ-PS-5).
    pub rtt_us: Option<u64>,
    /// Bytes written to connections since the start, frames included.
    pub wire_bytes: u64,
    /// The same per second, over the last few seconds.
    pub wire_bytes_per_s: f64,
}

/// Commands of the owner.
enum Command {
    Ask(Ask, oneshot::Sender<Answer>),
    Restart,
    Stop,
}

/// Speaks to a sender. Clones speak to the same one; when the last is dropped the sender stops.
#[derive(Clone, Debug)]
pub struct SenderHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<SenderStatus>,
    images: Arc<Semaphore>,
    hashes: Arc<Semaphore>,
}

/// Starts a sender on the current runtime.
///
/// # Panics
/// Outside of a Tokio runtime.
#[must_use]
pub fn run_sender(config: SenderConfig, source: Arc<dyn LogSource>) -> SenderHandle {
    let (commands, inbox) = mpsc::channel(16);
    let (publish, status) = watch::channel(SenderStatus {
        phase: SenderPhase::Waiting,
        connected_since: None,
        refusal: None,
        connect_error: None,
        sent: Lsn::ZERO,
        acked: Ack::default(),
        rtt_us: None,
        wire_bytes: 0,
        wire_bytes_per_s: 0.0,
    });
    tokio::spawn(session::run(config, source, inbox, publish));
    // Twice the window: the next pieces are ready when the window opens.
    let pieces = usize::try_from(IMAGE_WINDOW_BYTES).unwrap_or(usize::MAX) / IMAGE_PERMIT_BYTES * 2;
    let hashes = usize::try_from(HASH_REQUESTS_MAX).unwrap_or(usize::MAX) * 2;
    SenderHandle {
        commands,
        status,
        images: Arc::new(Semaphore::new(pieces)),
        hashes: Arc::new(Semaphore::new(hashes)),
    }
}

impl SenderHandle {
    /// Puts a piece of a first copy into the image; returns when it is durable at the target.
    /// Several may run at once and go out in the order of their first poll; connections may come
    /// and go meanwhile.
    ///
    /// # Errors
    /// The target's refusal of this piece, or the one for which the sender gave up; a piece beyond
    /// the limits of [`landfall_repl::limits`] is not sent.
    pub async fn image(&self, piece: ImageData) -> Result<(), Refusal> {
        let bytes = piece.data.as_ref().map_or(0, bytes::Bytes::len);
        let fits = match &piece.data {
            Some(_) => bytes as u64 == piece.length && bytes <= IMAGE_DATA_BYTES_MAX,
            None => piece.length <= IMAGE_ZERO_BYTES_MAX,
        };
        if !fits || piece.length == 0 {
            // Were it sent, the receiver would end the session, and so for every new one.
            return Err(unfit("an empty or oversized piece, or data of another length"));
        }
        let permits = bytes.div_ceil(IMAGE_PERMIT_BYTES).max(1);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let _held = self.images.acquire_many(permits).await.map_err(|_| stopped())?;
        match self.ask(Ask::Image(piece)).await? {
            Answer::Image(result) => result,
            Answer::Hash(_) => Err(confused()),
        }
    }

    /// Hashes of the target's newest content; several may run at once.
    ///
    /// # Errors
    /// The target's refusal, or the one for which the sender gave up.
    pub async fn hash(&self, request: HashRequest) -> Result<HashReply, Refusal> {
        let blocks = request.length.div_ceil(request.block_bytes.max(1).into());
        let small = request.block_bytes < HASH_BLOCK_BYTES_MIN;
        if small || blocks == 0 || blocks > HASHES_MAX as u64 {
            return Err(unfit("too small blocks, none, or more than one answer has room for"));
        }
        let _held = self.hashes.acquire().await.map_err(|_| stopped())?;
        match self.ask(Ask::Hash(request)).await? {
            Answer::Hash(result) => result,
            Answer::Image(_) => Err(confused()),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Refusal> {
        let (answer, asked) = oneshot::channel();
        self.commands.send(Command::Ask(ask, answer)).await.map_err(|_| stopped())?;
        asked.await.map_err(|_| stopped())
    }

    /// How it is, now and at every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SenderStatus> {
        self.status.clone()
    }

    /// The owner has changed something (identity, route): ends the present session and connects at
    /// once, also when the sender had given up.
    pub async fn restart(&self) {
        // An error means that the sender was stopped before: there is nothing to restart.
        let _ = self.commands.send(Command::Restart).await;
    }

    /// Ends the session in order and waits until the task is gone. Requests under way are refused.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
        self.commands.closed().await;
    }
}

fn stopped() -> Refusal {
    Refusal::Unavailable { reason: "the sender was stopped".into() }
}

fn unfit(detail: &str) -> Refusal {
    Refusal::Protocol { detail: detail.into() }
}

fn confused() -> Refusal {
    Refusal::Protocol { detail: "the answer belongs to another kind of question".into() }
}
