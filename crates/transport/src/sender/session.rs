//! The task of one sender.

use super::{Command, OUTBOX_BYTES_MAX, SenderConfig, SenderStatus};
use crate::limit::{Limiter, Turn};
use crate::outbox::Outbox;
use crate::rate::Rate;
use crate::running::Running;
use crate::tls::{ConnectError, connect};
use bytes::BytesMut;
use landfall_repl::{
    Answer, Batch, LogSource, Message, Refusal, RequestId, Sender, SenderEffect, SenderInput,
    SenderPhase, Ticks,
};
use landfall_wire::Decoder;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

/// How long the last words of a session may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Room made for the next read from the connection: acknowledgements are small.
const READ_BYTES: usize = 16 * 1024;

type Stream = TlsStream<TcpStream>;

/// What the task waits for.
enum Event {
    Command(Option<Command>),
    Connected(Result<Box<Stream>, ConnectError>),
    Arrived(io::Result<usize>),
    Written(io::Result<usize>),
    Resumed(Result<(), Refusal>),
    Read(Result<Batch, Refusal>),
    Due,
}

struct Connection {
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    arrived: BytesMut,
    decoder: Decoder,
    outbox: Outbox,
    /// The next write on a link with a limit; kept when the wait for it is dropped.
    turn: Option<Turn>,
    limiter: Arc<Limiter>,
}

struct Task {
    config: SenderConfig,
    source: Arc<dyn LogSource>,
    sender: Sender,
    start: Instant,
    connection: Option<Connection>,
    connecting: Running<Result<Box<Stream>, ConnectError>>,
    resuming: Running<Result<(), Refusal>>,
    reading: Running<Result<Batch, Refusal>>,
    waiting: HashMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    rate: Rate,
    publish: watch::Sender<SenderStatus>,
    effects: Vec<SenderEffect>,
}

pub(super) async fn run(
    config: SenderConfig,
    source: Arc<dyn LogSource>,
    mut inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<SenderStatus>,
) {
    let start = Instant::now();
    let mut task = Task {
        sender: Sender::new(Ticks(0), config.options),
        config,
        source,
        start,
        connection: None,
        connecting: Running::new(),
        resuming: Running::new(),
        reading: Running::new(),
        waiting: HashMap::new(),
        next_request: 1,
        rate: Rate::new(start),
        publish,
        effects: Vec::new(),
    };
    let mut stopping = false;
    while !(stopping && task.sender.phase() == SenderPhase::Stopped) {
        let event = task.wait(&mut inbox, stopping).await;
        stopping |= matches!(event, Event::Command(None | Some(Command::Stop)));
        task.handle(event);
        task.tell();
    }
    // Closing the inbox is what `SenderHandle::stop` waits for.
    inbox.close();
}

impl Task {
    async fn wait(&mut self, inbox: &mut mpsc::Receiver<Command>, stopping: bool) -> Event {
        let due = self.sender.deadline().map(|at| self.start + Duration::from_micros(at.0));
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // Records are read only as fast as they go out: what waits here is not spooled by anyone.
        let may_read = self.connection.as_ref().is_none_or(|c| c.outbox.bytes() < OUTBOX_BYTES_MAX);
        let network = network(self.connection.as_mut());
        tokio::select! {
            command = inbox.recv(), if !stopping => Event::Command(command),
            stream = self.connecting.next() => Event::Connected(stream),
            event = network => event,
            result = self.resuming.next() => Event::Resumed(result),
            result = self.reading.next(), if may_read => Event::Read(result),
            () = due => Event::Due,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Command(Some(Command::Ask(ask, answer))) => {
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.waiting.insert(request, answer);
                self.input(SenderInput::Ask { request, ask });
            }
            Event::Command(Some(Command::Restart)) => self.input(SenderInput::Restart),
            Event::Command(None | Some(Command::Stop)) => self.input(SenderInput::Stop),
            Event::Connected(Ok(stream)) => {
                let (reader, writer) = tokio::io::split(*stream);
                let outbox = Outbox::new(self.config.compression);
                let (arrived, decoder) = (BytesMut::with_capacity(READ_BYTES), Decoder::default());
                self.connection = Some(Connection {
                    reader,
                    writer,
                    arrived,
                    decoder,
                    outbox,
                    turn: None,
                    limiter: Arc::clone(&self.config.limiter),
                });
                self.publish.send_modify(|status| status.connect_error = None);
                self.input(SenderInput::Connected(self.source.identity()));
            }
            Event::Connected(Err(error)) => {
                let text = with_causes(&error);
                tracing::debug!(address = %self.config.address, error = %text, "no connection");
                self.publish.send_modify(|status| status.connect_error = Some(text));
                self.disconnected();
            }
            Event::Arrived(Ok(1..)) => self.arrived(),
            Event::Arrived(_) | Event::Written(Err(_)) => self.disconnected(),
            Event::Written(Ok(bytes)) => self.rate.add(Instant::now(), bytes as u64),
            Event::Resumed(result) => self.input(SenderInput::Resumed(result)),
            Event::Read(result) => self.input(SenderInput::Read(result)),
            Event::Due => {
                self.forget_cancelled();
                self.input(SenderInput::Tick);
            }
        }
    }

    fn arrived(&mut self) {
        while let Some(connection) = &mut self.connection {
            match connection.decoder.decode(&mut connection.arrived) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    if let Message::Welcome(welcome) = &message {
                        connection.outbox.agree(welcome.history_bytes);
                    }
                    self.input(SenderInput::Message(message));
                }
                Err(error) => {
                    tracing::warn!(address = %self.config.address, %error, "not a message");
                    let refusal = error.refusal();
                    let _ = connection.outbox.push(&Message::Close(Some(refusal)));
                    return self.disconnected();
                }
            }
        }
    }

    fn disconnected(&mut self) {
        self.drop_connection();
        self.forget_cancelled();
        let mut jitter = [0; 8];
        // Without randomness all senders would wait equally long: a slower recovery, nothing worse.
        let _ = getrandom::fill(&mut jitter);
        self.input(SenderInput::Disconnected { jitter: u64::from_le_bytes(jitter) });
    }

    /// The last words are said in the background: a peer that does not read must not delay the next
    /// attempt.
    fn drop_connection(&mut self) {
        self.connecting.clear();
        self.resuming.clear();
        self.reading.clear();
        if let Some(mut old) = self.connection.take() {
            tokio::spawn(tokio::time::timeout(FAREWELL, async move {
                old.outbox.drain(&mut old.writer).await?;
                old.writer.shutdown().await
            }));
        }
    }

    fn forget_cancelled(&mut self) {
        let gone: Vec<RequestId> =
            self.waiting.iter().filter(|(_, to)| to.is_closed()).map(|(id, _)| *id).collect();
        for request in gone {
            self.waiting.remove(&request);
            self.input(SenderInput::Cancel(request));
        }
    }

    fn input(&mut self, input: SenderInput) {
        let now = Ticks(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX));
        let mut effects = std::mem::take(&mut self.effects);
        self.sender.handle(now, input, &mut effects);
        let mut disconnect = false;
        for effect in effects.drain(..) {
            disconnect |= self.perform(effect);
        }
        self.effects = effects;
        if disconnect {
            self.disconnected();
        }
    }

    /// True when the connection is to be ended.
    fn perform(&mut self, effect: SenderEffect) -> bool {
        match effect {
            SenderEffect::Connect => {
                let (address, tls) = (self.config.address.clone(), Arc::clone(&self.config.tls));
                self.connecting.start(async move { connect(address, tls).await.map(Box::new) });
            }
            SenderEffect::Disconnect => return true,
            SenderEffect::Send(message) => {
                if let Some(connection) = &mut self.connection
                    && let Err(error) = connection.outbox.push(&message)
                {
                    tracing::error!(%error, message = message.name(), "can't be sent");
                    return true;
                }
            }
            SenderEffect::Resume(position) => {
                let source = Arc::clone(&self.source);
                self.resuming.start(async move { source.resume(&position).await });
            }
            SenderEffect::Read { from, bytes_max } => {
                let source = Arc::clone(&self.source);
                self.reading.start(async move { source.read(from, bytes_max).await });
            }
            SenderEffect::Acknowledged(durable) => self.source.acknowledged(durable),
            SenderEffect::Answered { request, answer } => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    // An error means that nobody waits any more.
                    let _ = waiting.send(answer);
                }
            }
            SenderEffect::Live => self.publish.send_modify(|status| {
                status.connected_since = Some(Instant::now().into_std());
                status.refusal = None;
            }),
            SenderEffect::Refused(refusal) => {
                let (address, code) = (&self.config.address, refusal.code());
                tracing::warn!(%address, code, reason = %refusal, "the session was refused");
                self.source.refused(&refusal);
                self.publish.send_modify(|status| status.refusal = Some(refusal));
            }
        }
        false
    }

    fn tell(&mut self) {
        let now = Instant::now();
        let per_second = self.rate.per_second(now);
        self.publish.send_modify(|status| {
            status.phase = self.sender.phase();
            if let Some((sent, acked)) = self.sender.progress() {
                (status.sent, status.acked) = (sent, acked);
            }
            if status.phase != SenderPhase::Live {
                status.connected_since = None;
            }
            status.rtt_us = self.sender.rtt_us();
            status.wire_bytes = self.rate.total();
            status.wire_bytes_per_s = per_second;
        });
    }
}

/// The next thing that happens on the connection; never, without one. May be dropped at any time.
async fn network(connection: Option<&mut Connection>) -> Event {
    let Some(connection) = connection else { return std::future::pending().await };
    let busy = connection.outbox.busy();
    let Connection { reader, writer, arrived, outbox, turn, limiter, .. } = connection;
    arrived.reserve(READ_BYTES);
    tokio::select! {
        result = paced(writer, outbox, turn, limiter), if busy => Event::Written(result),
        result = reader.read_buf(arrived) => Event::Arrived(result),
    }
}

/// Writes when it is this session's turn on the link.
async fn paced(
    writer: &mut WriteHalf<Stream>,
    outbox: &mut Outbox,
    turn: &mut Option<Turn>,
    limiter: &Limiter,
) -> io::Result<usize> {
    if turn.is_none() && outbox.bytes() > 0 {
        *turn = limiter.turn(Instant::now());
    }
    let Some(Turn { due, bytes }) = *turn else { return outbox.write(writer, usize::MAX).await };
    tokio::time::sleep_until(due).await;
    let written = outbox.write(writer, usize::try_from(bytes).unwrap_or(usize::MAX)).await?;
    let rest = bytes.saturating_sub(written as u64);
    // What is left of the turn is for the next frames, unless there are none.
    *turn = (rest > 0 && outbox.bytes() > 0).then_some(Turn { due, bytes: rest });
    Ok(written)
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
