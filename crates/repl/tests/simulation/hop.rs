//! One hop: a sender, the connections it made, and the receivers at their other ends. Messages are
//! lost only with their connection; everything that takes time (connecting, reading, storing) ends
//! at a random later step.

use landfall_repl::{
    Batch, Durable, Message, Receiver, ReceiverEffect, ReceiverInput, ReceiverOptions,
    ReceiverPosition, Refusal, Sender, SenderEffect, SenderInput, SenderOptions, SourceIdentity,
    Ticks,
};
use landfall_testkit::Rng;
use landfall_types::Lsn;
use std::collections::VecDeque;

pub(crate) trait Source {
    fn identity(&mut self) -> Option<SourceIdentity>;
    fn resume(&mut self, position: &ReceiverPosition) -> Result<(), Refusal>;
    fn read(&mut self, from: Lsn, count: u64) -> Option<Result<Batch, Refusal>>;
    fn acknowledged(&mut self, durable: Durable);
    fn refused(&mut self, refusal: &Refusal);
}

pub(crate) trait Sink {
    /// `None`: not yet, ask again.
    fn open(
        &mut self,
        connection: u64,
        identity: &SourceIdentity,
    ) -> Option<Result<(u64, ReceiverPosition), Refusal>>;
    fn append(&mut self, session: u64, batch: &Batch) -> Result<(), Refusal>;
    fn flush(&mut self, session: u64) -> Result<Durable, Refusal>;
    fn durable(&mut self, session: u64) -> Result<Durable, Refusal>;
    fn gone(&mut self, connection: u64);
    /// No room for records now: whoever brings one waits (RQ-PS-6).
    fn stalled(&self) -> bool;
}

#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) sender: Sender,
    options: SenderOptions,
    connecting: bool,
    disconnecting: bool,
    resume: Option<ReceiverPosition>,
    read: Option<Lsn>,
    /// The connection that the sender uses.
    active: Option<u64>,
    connections: Vec<Connection>,
    next: u64,
    pub(crate) reachable: bool,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    receiver: Receiver,
    to_receiver: VecDeque<Message>,
    to_sender: VecDeque<Message>,
    session: u64,
    open: Option<SourceIdentity>,
    appends: VecDeque<Batch>,
    flush: bool,
    watch: Option<Durable>,
}

impl Hop {
    pub(crate) fn new(first_connection: u64, options: SenderOptions) -> Self {
        Self {
            sender: Sender::new(Ticks(0), options),
            options,
            connecting: false,
            disconnecting: false,
            resume: None,
            read: None,
            active: None,
            connections: vec![],
            next: first_connection,
            reachable: true,
        }
    }

    /// One random thing that can happen; false when nothing did.
    pub(crate) fn step(
        &mut self,
        now: Ticks,
        rng: &mut Rng,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
    ) -> bool {
        if rng.one_in(3) || self.connections.is_empty() {
            return self.sender_step(now, rng, source);
        }
        let at = usize::try_from(rng.below(self.connections.len() as u64)).expect("small");
        if self.active == Some(self.connections[at].id)
            && rng.one_in(2)
            && let Some(message) = self.connections[at].to_sender.pop_front()
        {
            self.input(now, SenderInput::Message(message), source);
            return true;
        }
        let did = self.connections[at].step(now, rng, sink);
        self.sweep(sink);
        did
    }

    fn sender_step(&mut self, now: Ticks, rng: &mut Rng, source: &mut dyn Source) -> bool {
        if self.disconnecting {
            self.disconnecting = false;
            self.detach(rng.one_in(4));
            self.input(now, SenderInput::Disconnected { jitter: rng.next_u64() }, source);
        } else if self.connecting {
            self.connecting = false;
            let identity = source.identity().filter(|_| self.reachable);
            match identity {
                None => {
                    let jitter = rng.next_u64();
                    self.input(now, SenderInput::Disconnected { jitter }, source);
                }
                Some(identity) => {
                    self.connections.push(Connection::new(self.next, now));
                    self.active = Some(self.next);
                    self.next += 1;
                    self.input(now, SenderInput::Connected(identity), source);
                }
            }
        } else if let Some(position) = self.resume.take() {
            let result = source.resume(&position);
            self.input(now, SenderInput::Resumed(result), source);
        } else if self.sender.deadline().is_some_and(|due| due <= now) {
            self.input(now, SenderInput::Tick, source);
        } else if self.active.is_some_and(|id| self.connections.iter().all(|c| c.id != id)) {
            // The receiver closed its end, and all that it said has been heard.
            self.cut(now, false, rng, source);
        } else if let Some(from) = self.read {
            let Some(result) = source.read(from, 1 + rng.below(4)) else { return false };
            self.read = None;
            self.input(now, SenderInput::Read(result), source);
        } else {
            return false;
        }
        true
    }

    pub(crate) fn input(&mut self, now: Ticks, input: SenderInput, source: &mut dyn Source) {
        let mut out = vec![];
        self.sender.handle(now, input, &mut out);
        for effect in out {
            match effect {
                SenderEffect::Connect => self.connecting = true,
                SenderEffect::Disconnect => {
                    self.disconnecting = true;
                    (self.resume, self.read) = (None, None);
                }
                SenderEffect::Send(message) => {
                    let active = self.active;
                    let mut all = self.connections.iter_mut();
                    if let Some(connection) = all.find(|c| Some(c.id) == active) {
                        connection.to_receiver.push_back(message);
                    }
                }
                SenderEffect::Resume(position) => self.resume = Some(position),
                SenderEffect::Read { from, .. } => self.read = Some(from),
                SenderEffect::Acknowledged(durable) => source.acknowledged(durable),
                SenderEffect::Refused(refusal) => source.refused(&refusal),
                SenderEffect::Live => {}
                SenderEffect::Answered { .. } => unreachable!("nothing is asked here"),
            }
        }
    }

    /// The network cuts the connection. `half_open`: only the sender notices; what was under way
    /// still arrives.
    pub(crate) fn cut(
        &mut self,
        now: Ticks,
        half_open: bool,
        rng: &mut Rng,
        source: &mut dyn Source,
    ) {
        if self.active.is_none() {
            return;
        }
        self.detach(half_open);
        (self.resume, self.read) = (None, None);
        if !self.disconnecting {
            self.input(now, SenderInput::Disconnected { jitter: rng.next_u64() }, source);
        }
    }

    fn detach(&mut self, half_open: bool) {
        let Some(active) = self.active.take() else { return };
        for connection in self.connections.iter_mut().filter(|c| c.id == active) {
            if half_open && self.next - connection.id < 4 {
                connection.to_sender.clear();
            } else {
                connection.kill();
            }
        }
    }

    /// The receiving process died: no connection of this hop is left.
    pub(crate) fn receiver_died(
        &mut self,
        now: Ticks,
        rng: &mut Rng,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
    ) {
        self.cut(now, false, rng, source);
        self.connections.iter_mut().for_each(Connection::kill);
        self.sweep(sink);
    }

    /// The sending process died: its machine forgets everything, too.
    pub(crate) fn sender_died(&mut self, now: Ticks) {
        self.detach(true);
        self.sender = Sender::new(now, self.options);
        (self.connecting, self.disconnecting) = (false, false);
        (self.resume, self.read) = (None, None);
    }

    fn sweep(&mut self, sink: &mut dyn Sink) {
        let active = self.active;
        self.connections.retain(|connection| {
            let heard = active == Some(connection.id) && !connection.to_sender.is_empty();
            let ended = connection.receiver.ended() && !heard;
            if ended {
                sink.gone(connection.id);
            }
            !ended
        });
    }

    pub(crate) fn deadline(&self) -> Option<Ticks> {
        let receivers = self.connections.iter().filter_map(|c| c.receiver.deadline());
        receivers.chain(self.sender.deadline()).min()
    }
}

impl Connection {
    fn new(id: u64, now: Ticks) -> Self {
        let options = ReceiverOptions {
            log_window_bytes: 300,
            image_window_bytes: 300,
            history_bytes_max: 4096,
        };
        Self {
            id,
            receiver: Receiver::new(now, options),
            to_receiver: VecDeque::new(),
            to_sender: VecDeque::new(),
            session: 0,
            open: None,
            appends: VecDeque::new(),
            flush: false,
            watch: None,
        }
    }

    fn kill(&mut self) {
        self.to_receiver.clear();
        self.to_sender.clear();
        self.receiver.handle(Ticks(0), ReceiverInput::Disconnected, &mut vec![]);
        (self.open, self.flush, self.watch) = (None, false, None);
        self.appends.clear();
    }

    fn step(&mut self, now: Ticks, rng: &mut Rng, sink: &mut dyn Sink) -> bool {
        if self.receiver.ended() {
            return false;
        }
        let input = match rng.below(5) {
            0 | 1 => self.to_receiver.pop_front().map(ReceiverInput::Message),
            2 => self.stored(sink),
            3 if self.flush => {
                self.flush = false;
                Some(ReceiverInput::Flushed(sink.flush(self.session)))
            }
            4 => self.watched(sink),
            _ => self.receiver.deadline().filter(|due| *due <= now).map(|_| ReceiverInput::Tick),
        };
        let Some(input) = input else { return false };
        let mut out = vec![];
        self.receiver.handle(now, input, &mut out);
        for effect in out {
            match effect {
                ReceiverEffect::Open(identity) => self.open = Some(identity),
                ReceiverEffect::Append(batch) => self.appends.push_back(batch),
                ReceiverEffect::Flush => self.flush = true,
                ReceiverEffect::Watch(seen) => self.watch = Some(seen),
                ReceiverEffect::Send(message) => self.to_sender.push_back(message),
                ReceiverEffect::End(_) => {
                    (self.open, self.flush, self.watch) = (None, false, None);
                    self.appends.clear();
                }
                ReceiverEffect::Image { .. } | ReceiverEffect::Hash { .. } => unreachable!(),
            }
        }
        true
    }

    fn stored(&mut self, sink: &mut dyn Sink) -> Option<ReceiverInput> {
        if let Some(identity) = &self.open {
            let result = sink.open(self.id, identity)?;
            self.open = None;
            return Some(ReceiverInput::Opened(result.map(|(session, position)| {
                self.session = session;
                position
            })));
        }
        if sink.stalled() {
            return None;
        }
        let batch = self.appends.pop_front()?;
        Some(ReceiverInput::Appended(sink.append(self.session, &batch)))
    }

    fn watched(&mut self, sink: &mut dyn Sink) -> Option<ReceiverInput> {
        let seen = self.watch?;
        let result = sink.durable(self.session);
        if result == Ok(seen) {
            return None;
        }
        self.watch = None;
        Some(ReceiverInput::Progress(result))
    }
}
