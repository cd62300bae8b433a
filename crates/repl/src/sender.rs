//! The sending end of a replication, without input or output. It outlives connections: it makes new
//! ones by itself.
//!
//! ```text
//!            ┌──────────────────────── wait over ───────────────────────┐
//!            ▼                                                          │
//! Waiting ─► Connecting ─Connected─► Opening ─Welcome─► Resuming ─► Live │
//!    ▲           │                      │                  │         │  │
//!    │           └──────────────────────┴───── any end ────┴─────────┤  │
//!    │                                                               ▼  │
//!    └── transient ─────────── Disconnected ◄──────────────────── Closing
//!                                   └── fenced or permanent ─► Stopped ─Restart─► Waiting
//! ```

mod link;
mod requests;

use crate::backoff::Backoff;
use crate::limits::{BACKOFF_MS_MAX, PING_INTERVAL_MS, SILENCE_MS_MAX};
use crate::message::{Ack, Message, Open, PROTOCOL_MAX, PROTOCOL_MIN, RequestId, Welcome};
use crate::{Batch, Durable, ReceiverPosition, Refusal, SourceIdentity, Ticks};
use landfall_types::{Class, Lsn};
use link::Link;
use requests::Requests;
pub use requests::{Answer, Ask};

/// How a sender behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderOptions {
    /// After a refusal of class permanent: try again after this many milliseconds. `None`: only
    /// when the owner says [`SenderInput::Restart`]. Refusals of class fenced are never tried again
    /// by themselves.
    pub retry_permanent_ms: Option<u64>,
    /// Bytes of records to remember at most, see [`Welcome::history_bytes`]; 0: for a link where
    /// bytes cost less than memory.
    pub history_bytes: u64,
}

/// What happens to a sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderInput {
    /// Answer to [`SenderEffect::Connect`]: the connection stands. The identity is the source's of
    /// this moment.
    Connected(SourceIdentity),
    /// Answer to [`SenderEffect::Connect`] or [`SenderEffect::Disconnect`], or the connection was
    /// lost. Nothing of the old connection may come after it: not a message, not an answer of the
    /// source.
    Disconnected {
        /// Any random number.
        jitter: u64,
    },
    /// The receiver said something.
    Message(Message),
    /// Answer to [`SenderEffect::Resume`].
    Resumed(Result<(), Refusal>),
    /// Answer to [`SenderEffect::Read`].
    Read(Result<Batch, Refusal>),
    /// The owner asks for something beside the log.
    Ask {
        /// Larger than those of all requests before.
        request: RequestId,
        /// What.
        ask: Ask,
    },
    /// The owner no longer waits for this answer.
    Cancel(RequestId),
    /// Time has passed.
    Tick,
    /// The owner has changed something (a new identity, an order): try again now.
    Restart,
    /// The owner wants no more.
    Stop,
}

/// What a sender wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SenderEffect {
    /// Make a connection; answered by [`SenderInput::Connected`] or [`SenderInput::Disconnected`].
    Connect,
    /// End the connection or the attempt, and give up what is asked of the source; answered by
    /// [`SenderInput::Disconnected`].
    Disconnect,
    /// Say this.
    Send(Message),
    /// Ask the source whether it can go on there.
    Resume(ReceiverPosition),
    /// Ask the source for records.
    Read {
        /// The first one.
        from: Lsn,
        /// About as many bytes.
        bytes_max: usize,
    },
    /// Tell the source what is durable.
    Acknowledged(Durable),
    /// Tell the owner.
    Answered {
        /// Which request.
        request: RequestId,
        /// How it went.
        answer: Answer,
    },
    /// Records flow from here on: shown to the operator.
    Live,
    /// The session ended for this reason: shown to the operator.
    Refused(Refusal),
}

/// A sender's state in one word, for status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SenderPhase {
    /// Before the next attempt.
    Waiting,
    /// A connection is being made, or the receiver has not answered yet.
    Connecting,
    /// Records flow.
    Live,
    /// Given up for the reason that was shown, or stopped by the owner.
    Stopped,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    options: SenderOptions,
    state: State,
    backoff: Backoff,
    requests: Requests,
    last_heard: Ticks,
    last_ping: Ticks,
    rtt_us: Option<u64>,
}

#[derive(Debug)]
enum State {
    Waiting { until: Ticks },
    Connecting,
    Opening { identity: SourceIdentity },
    Resuming { link: Box<Link> },
    Live { link: Box<Link> },
    Closing { reason: Option<Refusal>, stop: bool },
    Stopped { reason: Option<Refusal> },
}

impl Sender {
    /// Connects at the first tick.
    #[must_use]
    pub fn new(now: Ticks, options: SenderOptions) -> Self {
        Self {
            options,
            state: State::Waiting { until: now },
            backoff: Backoff::default(),
            requests: Requests::default(),
            last_heard: now,
            last_ping: now,
            rtt_us: None,
        }
    }

    /// Pure: `now`, randomness and completions arrive from outside, wishes leave through `out`.
    pub fn handle(&mut self, now: Ticks, input: SenderInput, out: &mut Vec<SenderEffect>) {
        if let Err(refusal) = self.step(now, input, out) {
            // What we found wrong ourselves: the receiver is told why.
            out.push(SenderEffect::Send(Message::Close(Some(refusal.clone()))));
            self.close(Some(refusal), out);
        }
        self.maintain(out);
    }

    /// When [`SenderInput::Tick`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Ticks> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting | State::Closing { .. } => None,
            State::Opening { .. } | State::Resuming { .. } | State::Live { .. } => {
                let silence = self.last_heard.plus_ms(SILENCE_MS_MAX);
                Some(silence.min(self.last_ping.plus_ms(PING_INTERVAL_MS)))
            }
            State::Stopped { .. } => None,
        }
    }

    /// In one word.
    #[must_use]
    pub const fn phase(&self) -> SenderPhase {
        match self.state {
            State::Waiting { .. } | State::Closing { .. } => SenderPhase::Waiting,
            State::Connecting | State::Opening { .. } | State::Resuming { .. } => {
                SenderPhase::Connecting
            }
            State::Live { .. } => SenderPhase::Live,
            State::Stopped { .. } => SenderPhase::Stopped,
        }
    }

    /// Last record sent and what the receiver has; `None` without a session.
    #[must_use]
    pub fn progress(&self) -> Option<(Lsn, Ack)> {
        match &self.state {
            State::Live { link } => Some(link.progress()),
            State::Waiting { .. }
            | State::Connecting
            | State::Opening { .. }
            | State::Resuming { .. }
            | State::Closing { .. }
            | State::Stopped { .. } => None,
        }
    }

    /// The last measured round trip in microseconds.
    #[must_use]
    pub const fn rtt_us(&self) -> Option<u64> {
        self.rtt_us
    }

    fn step(
        &mut self,
        now: Ticks,
        input: SenderInput,
        out: &mut Vec<SenderEffect>,
    ) -> Result<(), Refusal> {
        match input {
            SenderInput::Tick => self.tick(now, out),
            SenderInput::Connected(identity) => self.connected(now, identity, out),
            SenderInput::Disconnected { jitter } => self.disconnected(now, jitter, out),
            SenderInput::Message(message) => {
                self.last_heard = now;
                return self.message(now, message, out);
            }
            SenderInput::Resumed(result) => return self.resumed(result, out),
            SenderInput::Read(result) => {
                if let State::Live { link } = &mut self.state {
                    out.push(SenderEffect::Send(Message::Batch(link.sent(result?)?)));
                }
            }
            SenderInput::Ask { request, ask } => match &self.state {
                State::Stopped { reason } => {
                    let answer = ask.refuse(reason.clone().unwrap_or_else(stopped));
                    out.push(SenderEffect::Answered { request, answer });
                }
                State::Waiting { .. }
                | State::Connecting
                | State::Opening { .. }
                | State::Resuming { .. }
                | State::Live { .. }
                | State::Closing { .. } => self.requests.add(request, ask),
            },
            SenderInput::Cancel(request) => self.requests.cancel(request),
            SenderInput::Restart => self.restart(now, out),
            SenderInput::Stop => self.stop(out),
        }
        Ok(())
    }

    fn tick(&mut self, now: Ticks, out: &mut Vec<SenderEffect>) {
        match &self.state {
            State::Waiting { until } if now >= *until => {
                self.state = State::Connecting;
                out.push(SenderEffect::Connect);
            }
            State::Opening { .. } | State::Resuming { .. } | State::Live { .. } => {
                if now >= self.last_heard.plus_ms(SILENCE_MS_MAX) {
                    let reason = "no answer: the connection is half-open".into();
                    self.close(Some(Refusal::Unavailable { reason }), out);
                } else if now >= self.last_ping.plus_ms(PING_INTERVAL_MS) {
                    self.last_ping = now;
                    out.push(SenderEffect::Send(Message::Ping(now.0)));
                }
            }
            State::Waiting { .. }
            | State::Connecting
            | State::Closing { .. }
            | State::Stopped { .. } => {}
        }
    }

    fn connected(&mut self, now: Ticks, identity: SourceIdentity, out: &mut Vec<SenderEffect>) {
        if !matches!(self.state, State::Connecting) {
            return;
        }
        (self.last_heard, self.last_ping) = (now, now);
        let open = Open {
            version_min: PROTOCOL_MIN,
            version_max: PROTOCOL_MAX,
            identity: identity.clone(),
            history_bytes: self.options.history_bytes,
        };
        self.state = State::Opening { identity };
        out.push(SenderEffect::Send(Message::Open(open)));
        out.push(SenderEffect::Send(Message::Ping(now.0)));
    }

    fn message(
        &mut self,
        now: Ticks,
        message: Message,
        out: &mut Vec<SenderEffect>,
    ) -> Result<(), Refusal> {
        match (&mut self.state, message) {
            (_, Message::Pong(clock)) => {
                self.rtt_us = Some(now.since(Ticks(clock.min(now.0))));
                Ok(())
            }
            (State::Closing { .. } | State::Stopped { .. }, _) => Ok(()),
            (_, Message::Close(reason)) => {
                self.close(reason, out);
                Ok(())
            }
            (State::Opening { identity }, Message::Welcome(welcome)) => {
                let identity = identity.clone();
                self.welcome(&identity, welcome, out)
            }
            (State::Live { link }, Message::Ack(ack)) => {
                if let Some(durable) = link.acknowledged(ack)? {
                    self.backoff.reset();
                    out.push(SenderEffect::Acknowledged(durable));
                }
                Ok(())
            }
            (State::Live { .. }, Message::ImageAck { request, result }) => {
                self.answered(request, Answer::Image(result), out)
            }
            (State::Live { .. }, Message::HashReply { request, result }) => {
                self.answered(request, Answer::Hash(result), out)
            }
            // The receiver may acknowledge on its own while the source still thinks about where to
            // resume.
            (State::Resuming { link }, Message::Ack(ack)) => link.acknowledged(ack).map(drop),
            (_, other) => {
                let detail = format!("{} out of turn at the sender", other.name());
                Err(Refusal::Protocol { detail })
            }
        }
    }

    fn answered(
        &mut self,
        request: RequestId,
        answer: Answer,
        out: &mut Vec<SenderEffect>,
    ) -> Result<(), Refusal> {
        if self.requests.answered(request, &answer)? {
            out.push(SenderEffect::Answered { request, answer });
        }
        Ok(())
    }

    fn welcome(
        &mut self,
        identity: &SourceIdentity,
        welcome: Welcome,
        out: &mut Vec<SenderEffect>,
    ) -> Result<(), Refusal> {
        let link = Link::new(identity, &welcome, self.options.history_bytes)?;
        self.state = State::Resuming { link: Box::new(link) };
        out.push(SenderEffect::Resume(welcome.position));
        Ok(())
    }

    fn resumed(
        &mut self,
        result: Result<(), Refusal>,
        out: &mut Vec<SenderEffect>,
    ) -> Result<(), Refusal> {
        let state = std::mem::replace(&mut self.state, State::Connecting);
        let State::Resuming { link } = state else {
            self.state = state;
            return Ok(());
        };
        result?;
        out.push(SenderEffect::Acknowledged(link.progress().1.durable));
        out.push(SenderEffect::Live);
        self.state = State::Live { link };
        Ok(())
    }

    fn disconnected(&mut self, now: Ticks, jitter: u64, out: &mut Vec<SenderEffect>) {
        self.requests.restart();
        let state = std::mem::replace(&mut self.state, State::Connecting);
        let (reason, stop) = match state {
            State::Closing { reason, stop } => (reason, stop),
            State::Stopped { .. } | State::Waiting { .. } => {
                self.state = state;
                return;
            }
            State::Connecting
            | State::Opening { .. }
            | State::Resuming { .. }
            | State::Live { .. } => (None, false),
        };
        let wait = self.backoff.next_ms(jitter);
        let wait = if stop { None } else { self.wait_after(reason.as_ref(), wait) };
        match wait {
            Some(wait) => self.state = State::Waiting { until: now.plus_ms(wait) },
            None => {
                let refusal = reason.clone().unwrap_or_else(stopped);
                for (request, ask) in self.requests.drain() {
                    let answer = ask.refuse(refusal.clone());
                    out.push(SenderEffect::Answered { request, answer });
                }
                self.state = State::Stopped { reason };
            }
        }
    }

    /// The wait after a session that ended for `reason`; `None`: no further attempt. `ordinary` is
    /// the backoff's.
    fn wait_after(&self, reason: Option<&Refusal>, ordinary: u64) -> Option<u64> {
        match reason {
            None => Some(ordinary),
            // Our own older connection can win when both arrive at a slow receiver out of order:
            // then nobody would send any more if this one gave up. Two live senders of one instance
            // take turns, slowly.
            Some(Refusal::Superseded) => Some(BACKOFF_MS_MAX),
            Some(refusal) => match refusal.class() {
                Class::Transient => Some(ordinary),
                Class::Permanent | Class::Corrupt => {
                    self.options.retry_permanent_ms.map(|ms| ms.max(ordinary))
                }
                Class::Fenced => None,
                // A defect of one side: it may be gone after an upgrade, and must not be a storm
                // until then.
                Class::Bug => Some(BACKOFF_MS_MAX),
            },
        }
    }

    fn restart(&mut self, now: Ticks, out: &mut Vec<SenderEffect>) {
        self.backoff.reset();
        match &mut self.state {
            State::Waiting { until } => *until = now,
            State::Stopped { .. } => self.state = State::Waiting { until: now },
            // The end is under way already: were its reason kept, the owner's wish would be lost in
            // `Stopped`.
            State::Closing { reason, stop } => (*reason, *stop) = (None, false),
            State::Connecting => {}
            State::Opening { .. } | State::Resuming { .. } | State::Live { .. } => {
                out.push(SenderEffect::Send(Message::Close(None)));
                self.close(None, out);
            }
        }
    }

    fn stop(&mut self, out: &mut Vec<SenderEffect>) {
        if matches!(self.state, State::Stopped { .. }) {
            return;
        }
        out.push(SenderEffect::Send(Message::Close(None)));
        out.push(SenderEffect::Disconnect);
        self.state = State::Closing { reason: None, stop: true };
    }

    fn close(&mut self, reason: Option<Refusal>, out: &mut Vec<SenderEffect>) {
        if let Some(refusal) = &reason {
            out.push(SenderEffect::Refused(refusal.clone()));
        }
        out.push(SenderEffect::Disconnect);
        self.state = State::Closing { reason, stop: false };
    }

    /// What must hold after every input: while there is credit a read runs, and requests within
    /// their limits are out.
    fn maintain(&mut self, out: &mut Vec<SenderEffect>) {
        let State::Live { link } = &mut self.state else { return };
        if let Some((from, bytes_max)) = link.wants() {
            out.push(SenderEffect::Read { from, bytes_max });
        }
        let say = |message| out.push(SenderEffect::Send(message));
        self.requests.ready(link.image_window(), say);
    }
}

fn stopped() -> Refusal {
    Refusal::Unavailable { reason: "the sender was stopped".into() }
}

#[cfg(test)]
mod tests;
