//! The task of one accepted connection.

use super::{COMPRESSION, OUTBOX_BYTES_MAX, ReceiverConfig};
use crate::outbox::Outbox;
use crate::running::Running;
use bytes::BytesMut;
use landfall_pki::PeerIdentity;
use landfall_repl::{
    Batch, Durable, HashReply, HashRequest, ImageData, LogSink, Message, Receiver, ReceiverEffect,
    ReceiverInput, ReceiverPosition, Refusal, RequestId, SessionToken, Ticks,
};
use landfall_wire::Decoder;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long the last words of a session may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Room made for the next read from the connection.
const READ_BYTES: usize = 256 * 1024;

type Stream = TlsStream<TcpStream>;

/// What the task waits for.
enum Event {
    Arrived(io::Result<usize>),
    Written(io::Result<usize>),
    Opened(Result<(SessionToken, ReceiverPosition), Refusal>),
    Appended(Result<(), Refusal>),
    Flushed(Result<Durable, Refusal>),
    Progress(Result<Durable, Refusal>),
    Image(RequestId, Result<(), Refusal>),
    Hash(RequestId, Result<HashReply, Refusal>),
    Due,
    Shutdown,
}

/// What the sink is asked, and what waits to be asked. Appends go one after the other; the credit
/// bounds their number.
struct Calls {
    opening: Running<Result<(SessionToken, ReceiverPosition), Refusal>>,
    appends: VecDeque<Batch>,
    appending: Running<Result<(), Refusal>>,
    flushing: Running<Result<Durable, Refusal>>,
    watching: Running<Result<Durable, Refusal>>,
    images: VecDeque<(RequestId, ImageData)>,
    imaging: Running<(RequestId, Result<(), Refusal>)>,
    hashes: VecDeque<(RequestId, HashRequest)>,
    hashing: Running<(RequestId, Result<HashReply, Refusal>)>,
}

struct Task {
    peer: PeerIdentity,
    config: ReceiverConfig,
    sink: Arc<dyn LogSink>,
    receiver: Receiver,
    start: Instant,
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    arrived: BytesMut,
    decoder: Decoder,
    outbox: Outbox,
    calls: Calls,
    session: Option<SessionToken>,
    effects: Vec<ReceiverEffect>,
}

pub(super) async fn run(
    stream: Stream,
    peer: PeerIdentity,
    config: ReceiverConfig,
    sink: Arc<dyn LogSink>,
    shutdown: CancellationToken,
) {
    let (reader, writer) = tokio::io::split(stream);
    let mut task = Task {
        peer,
        receiver: Receiver::new(Ticks(0), config.options),
        config,
        sink,
        start: Instant::now(),
        reader,
        writer,
        arrived: BytesMut::with_capacity(READ_BYTES),
        decoder: Decoder::default(),
        outbox: Outbox::new(COMPRESSION),
        calls: Calls::new(),
        session: None,
        effects: Vec::new(),
    };
    while !task.receiver.ended() {
        let event = task.wait(&shutdown).await;
        task.handle(event);
    }
    task.finish().await;
}

impl Calls {
    const fn new() -> Self {
        Self {
            opening: Running::new(),
            appends: VecDeque::new(),
            appending: Running::new(),
            flushing: Running::new(),
            watching: Running::new(),
            images: VecDeque::new(),
            imaging: Running::new(),
            hashes: VecDeque::new(),
            hashing: Running::new(),
        }
    }
}

impl Task {
    async fn wait(&mut self, shutdown: &CancellationToken) -> Event {
        let due = self.receiver.deadline().map(|at| self.start + Duration::from_micros(at.0));
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let busy = self.outbox.busy();
        self.arrived.reserve(READ_BYTES);
        tokio::select! {
            result = self.outbox.write(&mut self.writer, usize::MAX), if busy => {
                Event::Written(result)
            }
            result = self.reader.read_buf(&mut self.arrived) => Event::Arrived(result),
            result = self.calls.opening.next() => Event::Opened(result),
            result = self.calls.appending.next() => Event::Appended(result),
            result = self.calls.flushing.next() => Event::Flushed(result),
            result = self.calls.watching.next() => Event::Progress(result),
            (request, result) = self.calls.imaging.next() => Event::Image(request, result),
            (request, result) = self.calls.hashing.next() => Event::Hash(request, result),
            () = due => Event::Due,
            () = shutdown.cancelled() => Event::Shutdown,
        }
    }

    fn handle(&mut self, event: Event) {
        let input = match event {
            Event::Arrived(Ok(1..)) => return self.arrived(),
            Event::Arrived(_) | Event::Written(Err(_)) => ReceiverInput::Disconnected,
            Event::Written(Ok(_)) => return,
            Event::Opened(Ok((session, position))) => {
                self.session = Some(session);
                ReceiverInput::Opened(Ok(position))
            }
            Event::Opened(Err(refusal)) => ReceiverInput::Opened(Err(refusal)),
            Event::Appended(result) => ReceiverInput::Appended(result),
            Event::Flushed(result) => ReceiverInput::Flushed(result),
            Event::Progress(result) => ReceiverInput::Progress(result),
            Event::Image(request, result) => ReceiverInput::ImageDone { request, result },
            Event::Hash(request, result) => ReceiverInput::HashDone { request, result },
            Event::Due => ReceiverInput::Tick,
            Event::Shutdown => {
                let reason = "the receiver is shutting down".into();
                let _ = self.outbox.push(&Message::Close(Some(Refusal::Unavailable { reason })));
                ReceiverInput::Disconnected
            }
        };
        self.input(input);
    }

    fn arrived(&mut self) {
        while !self.receiver.ended() {
            match self.decoder.decode(&mut self.arrived) {
                Ok(None) => return,
                Ok(Some(message)) => self.input(ReceiverInput::Message(message)),
                Err(error) => {
                    tracing::warn!(peer = %self.peer.uri(), %error, "not a message");
                    let _ = self.outbox.push(&Message::Close(Some(error.refusal())));
                    self.input(ReceiverInput::Disconnected);
                }
            }
        }
    }

    fn input(&mut self, input: ReceiverInput) {
        let now = Ticks(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX));
        let mut effects = std::mem::take(&mut self.effects);
        self.receiver.handle(now, input, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
        self.start_calls();
        if self.outbox.bytes() > OUTBOX_BYTES_MAX && !self.receiver.ended() {
            tracing::warn!(peer = %self.peer.uri(), "the sender does not read its answers");
            self.input(ReceiverInput::Disconnected);
        }
    }

    fn perform(&mut self, effect: ReceiverEffect) {
        let sink = Arc::clone(&self.sink);
        match effect {
            ReceiverEffect::Open(identity) => {
                let allowed = (self.config.authorize)(&self.peer, &identity);
                self.calls.opening.start(async move {
                    allowed?;
                    sink.open(&identity).await
                });
            }
            ReceiverEffect::Append(batch) => self.calls.appends.push_back(batch),
            ReceiverEffect::Flush => {
                let Some(session) = self.session else { return };
                self.calls.flushing.start(async move { sink.flush(session).await });
            }
            ReceiverEffect::Watch(seen) => {
                let Some(session) = self.session else { return };
                self.calls.watching.start(async move { sink.durable_beyond(session, seen).await });
            }
            ReceiverEffect::Image { request, piece } => {
                self.calls.images.push_back((request, piece));
            }
            ReceiverEffect::Hash { request, ask } => self.calls.hashes.push_back((request, ask)),
            ReceiverEffect::Send(message) => {
                if let Message::Welcome(welcome) = &message {
                    // Before the first batch can arrive: the sender has not heard it yet.
                    self.decoder.agree(welcome.history_bytes);
                }
                if let Err(error) = self.outbox.push(&message) {
                    // The sink's answer breaks a limit; the sender will hear nothing and ask again
                    // elsewhere.
                    tracing::error!(%error, message = message.name(), "can't be sent");
                }
            }
            ReceiverEffect::End(reason) => {
                if let Some(refusal) = reason {
                    let (peer, code) = (self.peer.uri(), refusal.code());
                    tracing::info!(peer, code, reason = %refusal, "session ended");
                }
            }
        }
    }

    /// Begins what waits and may begin.
    fn start_calls(&mut self) {
        let Some(session) = self.session else { return };
        let calls = &mut self.calls;
        if calls.appending.len() == 0
            && let Some(batch) = calls.appends.pop_front()
        {
            let sink = Arc::clone(&self.sink);
            calls.appending.start(async move { sink.append(session, batch).await });
        }
        while calls.imaging.len() < self.config.images_at_once.max(1)
            && let Some((request, piece)) = calls.images.pop_front()
        {
            let sink = Arc::clone(&self.sink);
            calls.imaging.start(async move { (request, sink.image(session, piece).await) });
        }
        while calls.hashing.len() < self.config.hashes_at_once.max(1)
            && let Some((request, ask)) = calls.hashes.pop_front()
        {
            let sink = Arc::clone(&self.sink);
            calls.hashing.start(async move { (request, sink.hash(session, ask).await) });
        }
    }

    /// Says the last words, and tells the sink that nobody is there any more.
    async fn finish(mut self) {
        self.calls = Calls::new();
        if let Some(session) = self.session {
            self.sink.close(session).await;
        }
        let farewell = async {
            self.outbox.drain(&mut self.writer).await?;
            self.writer.shutdown().await
        };
        // A peer that is gone does not hear them.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
