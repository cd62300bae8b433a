//! The receiving end of a session, without input or output.
//!
//! ```text
//! AwaitOpen ──Open──► Opening ──Opened(Ok)──► Live ──any refusal, Close, silence──► Ended
//!                        └──────Opened(Err)───────────────────────────────────────────▲
//! ```

mod intake;

use crate::admission::check_epoch;
use crate::limits::{
    BATCH_BYTES_MAX, HASH_REQUESTS_MAX, HISTORY_BYTES_MAX, IMAGE_DATA_BYTES_MAX,
    IMAGE_WINDOW_BYTES, LOG_WINDOW_BYTES, SILENCE_MS_MAX,
};
use crate::message::{
    Ack, Message, Open, PROTOCOL_HISTORY, PROTOCOL_MAX, PROTOCOL_MIN, RequestId, Welcome,
};
use crate::{
    Batch, Durable, HashReply, HashRequest, ImageData, ReceiverPosition, Refusal, SourceIdentity,
    Ticks,
};
use intake::{Intake, Verdict};
use landfall_types::Lineage;
use std::collections::{BTreeMap, VecDeque};

/// Bounds of one receiving session.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverOptions {
    /// Bytes of batches that may be under way or unappended.
    pub log_window_bytes: u64,
    /// Bytes of image pieces that may be unanswered.
    pub image_window_bytes: u64,
    /// Bytes of records to remember at most, see [`Welcome::history_bytes`].
    pub history_bytes_max: u64,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            log_window_bytes: LOG_WINDOW_BYTES,
            image_window_bytes: IMAGE_WINDOW_BYTES,
            history_bytes_max: HISTORY_BYTES_MAX,
        }
    }
}

/// What happens to a receiver: messages, and the answers to its effects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReceiverInput {
    /// The sender said something.
    Message(Message),
    /// Answer to [`ReceiverEffect::Open`].
    Opened(Result<ReceiverPosition, Refusal>),
    /// Answer to the oldest unanswered [`ReceiverEffect::Append`].
    Appended(Result<(), Refusal>),
    /// Answer to [`ReceiverEffect::Flush`].
    Flushed(Result<Durable, Refusal>),
    /// Answer to [`ReceiverEffect::Watch`].
    Progress(Result<Durable, Refusal>),
    /// Answer to [`ReceiverEffect::Image`].
    ImageDone {
        /// Which.
        request: RequestId,
        /// How it went.
        result: Result<(), Refusal>,
    },
    /// Answer to [`ReceiverEffect::Hash`].
    HashDone {
        /// Which.
        request: RequestId,
        /// The answer.
        result: Result<HashReply, Refusal>,
    },
    /// Time has passed.
    Tick,
    /// The connection is gone.
    Disconnected,
}

/// What a receiver wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReceiverEffect {
    /// Ask the sink to admit this sender.
    Open(SourceIdentity),
    /// Hand to the sink, one after the other.
    Append(Batch),
    /// Make durable what was appended. At most one at a time; appends may go on meanwhile.
    Flush,
    /// Wait until more than this is durable. At most one at a time.
    Watch(Durable),
    /// Hand to the sink; several may be under way, begun in this order.
    Image {
        /// Comes back with the answer.
        request: RequestId,
        /// The piece.
        piece: ImageData,
    },
    /// Ask the sink; several may be under way.
    Hash {
        /// Comes back with the answer.
        request: RequestId,
        /// The question.
        ask: HashRequest,
    },
    /// Say this.
    Send(Message),
    /// The session is over; always the last effect. `None`: in order, or the connection was lost.
    End(Option<Refusal>),
}

/// One receiving session; see the module.
#[derive(Debug)]
pub struct Receiver {
    options: ReceiverOptions,
    last_heard: Ticks,
    state: State,
}

#[derive(Debug)]
enum State {
    AwaitOpen,
    Opening { lineage: Lineage, version: u16, history_bytes: u64 },
    Live(Box<Live>),
    Ended,
}

/// A session that was admitted.
#[derive(Debug)]
struct Live {
    /// The sender's history: says which epoch each position must have.
    lineage: Lineage,
    intake: Intake,
    durable: Durable,
    acked: Ack,
    /// Sizes of batches at the sink, oldest first.
    appending: VecDeque<u64>,
    /// Bytes of batches that the sender has used.
    used: u64,
    /// Bytes of batches that the sink has taken.
    taken: u64,
    flushing: bool,
    /// Something was appended after the last flush began.
    unflushed: bool,
    /// A duplicate came: say again what we have.
    repeat_ack: bool,
    /// Bytes of unanswered image pieces.
    images: BTreeMap<RequestId, u64>,
    hashes: u64,
}

impl Receiver {
    /// A connection was accepted.
    #[must_use]
    pub const fn new(now: Ticks, options: ReceiverOptions) -> Self {
        Self { options, last_heard: now, state: State::AwaitOpen }
    }

    /// Pure: `now` and completions arrive from outside, wishes leave through `out`.
    pub fn handle(&mut self, now: Ticks, input: ReceiverInput, out: &mut Vec<ReceiverEffect>) {
        if matches!(input, ReceiverInput::Message(_)) {
            self.last_heard = now;
        }
        if matches!(self.state, State::Ended) {
            return;
        }
        if let Err(reason) = self.step(now, input, out) {
            self.end(reason, out);
            return;
        }
        if let State::Live(live) = &mut self.state {
            live.maintain(&self.options, out);
            live.assert_invariants(&self.options);
        }
    }

    /// When [`ReceiverInput::Tick`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Ticks> {
        match self.state {
            State::Ended => None,
            State::AwaitOpen | State::Opening { .. } | State::Live(_) => {
                Some(self.last_heard.plus_ms(SILENCE_MS_MAX))
            }
        }
    }

    /// True when the session is over.
    #[must_use]
    pub const fn ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn end(&mut self, reason: Option<Refusal>, out: &mut Vec<ReceiverEffect>) {
        self.state = State::Ended;
        if let Some(refusal) = &reason {
            out.push(ReceiverEffect::Send(Message::Close(Some(refusal.clone()))));
        }
        out.push(ReceiverEffect::End(reason));
    }

    /// `Err` ends the session: `Some` with a reason that the sender is told.
    fn step(
        &mut self,
        now: Ticks,
        input: ReceiverInput,
        out: &mut Vec<ReceiverEffect>,
    ) -> Result<(), Option<Refusal>> {
        match input {
            ReceiverInput::Disconnected => Err(None),
            ReceiverInput::Tick if now >= self.last_heard.plus_ms(SILENCE_MS_MAX) => Err(None),
            ReceiverInput::Tick => Ok(()),
            ReceiverInput::Message(message) => self.message(message, out),
            ReceiverInput::Opened(result) => self.opened(result?, out),
            ReceiverInput::Appended(result) => Ok(self.live()?.appended(result)?),
            ReceiverInput::Flushed(result) => {
                let live = self.live()?;
                live.flushing = false;
                Ok(live.raise(result?)?)
            }
            ReceiverInput::Progress(result) => {
                let live = self.live()?;
                live.raise(result?)?;
                out.push(ReceiverEffect::Watch(live.durable));
                Ok(())
            }
            ReceiverInput::ImageDone { request, result } => {
                self.live()?.images.remove(&request);
                out.push(ReceiverEffect::Send(Message::ImageAck { request, result }));
                Ok(())
            }
            ReceiverInput::HashDone { request, result } => {
                let live = self.live()?;
                live.hashes = live.hashes.saturating_sub(1);
                out.push(ReceiverEffect::Send(Message::HashReply { request, result }));
                Ok(())
            }
        }
    }

    /// An answer of the sink that comes outside a live session is the shell's mistake; it ends the
    /// session.
    fn live(&mut self) -> Result<&mut Live, Refusal> {
        match &mut self.state {
            State::Live(live) => Ok(live),
            State::AwaitOpen | State::Opening { .. } | State::Ended => {
                Err(protocol("an answer of the sink before the session began"))
            }
        }
    }

    fn message(
        &mut self,
        message: Message,
        out: &mut Vec<ReceiverEffect>,
    ) -> Result<(), Option<Refusal>> {
        match (&mut self.state, message) {
            (_, Message::Ping(clock)) => out.push(ReceiverEffect::Send(Message::Pong(clock))),
            (_, Message::Close(_)) => return Err(None),
            (State::AwaitOpen, Message::Open(open)) => {
                let version = agree_version(&open)?;
                let history = if version >= PROTOCOL_HISTORY { open.history_bytes } else { 0 };
                let history_bytes = history.min(self.options.history_bytes_max);
                let lineage = open.identity.lineage.clone();
                self.state = State::Opening { lineage, version, history_bytes };
                out.push(ReceiverEffect::Open(open.identity));
            }
            (State::Live(live), Message::Batch(batch)) => live.batch(&self.options, batch, out)?,
            (State::Live(live), Message::ImageData { request, piece }) => {
                live.image(&self.options, request, piece, out)?;
            }
            (State::Live(live), Message::HashRequest { request, ask }) => {
                live.hashes += 1;
                if live.hashes > HASH_REQUESTS_MAX {
                    return Err(Some(protocol("more hash requests at once than agreed")));
                }
                out.push(ReceiverEffect::Hash { request, ask });
            }
            (_, other) => {
                let detail = format!("{} out of turn at the receiver", other.name());
                return Err(Some(Refusal::Protocol { detail }));
            }
        }
        Ok(())
    }

    fn opened(
        &mut self,
        position: ReceiverPosition,
        out: &mut Vec<ReceiverEffect>,
    ) -> Result<(), Option<Refusal>> {
        let State::Opening { lineage, version, history_bytes } = &self.state else {
            return Err(Some(protocol("opened without having been asked")));
        };
        let durable = Durable { here: position.durable, at_target: position.durable_at_target };
        let (version, history_bytes) = (*version, *history_bytes);
        let credit = self.options.log_window_bytes;
        let live = Live {
            lineage: lineage.clone(),
            intake: Intake::new(position.durable, position.chain),
            durable,
            acked: Ack { received: position.durable, durable, credit },
            appending: VecDeque::new(),
            used: 0,
            taken: 0,
            flushing: false,
            unflushed: false,
            repeat_ack: false,
            images: BTreeMap::new(),
            hashes: 0,
        };
        self.state = State::Live(Box::new(live));
        out.push(ReceiverEffect::Send(Message::Welcome(Welcome {
            version,
            position,
            credit,
            image_window: self.options.image_window_bytes,
            history_bytes,
        })));
        out.push(ReceiverEffect::Watch(durable));
        Ok(())
    }
}

impl Live {
    fn batch(
        &mut self,
        options: &ReceiverOptions,
        batch: Batch,
        out: &mut Vec<ReceiverEffect>,
    ) -> Result<(), Refusal> {
        let bytes = batch.bytes() as u64;
        if self.used >= self.credit(options) || bytes > BATCH_BYTES_MAX as u64 {
            return Err(protocol("more bytes than there was credit for"));
        }
        self.used += bytes;
        let verdict = self.intake.accept(batch)?;
        match verdict {
            Verdict::Next(batch) => {
                check_epoch(&self.lineage, &batch)?;
                self.appending.push_back(bytes);
                out.push(ReceiverEffect::Append(batch));
            }
            Verdict::Duplicate => {
                self.taken += bytes;
                self.repeat_ack = true;
            }
            Verdict::Older(batch) => {
                self.appending.push_back(bytes);
                self.repeat_ack = true;
                out.push(ReceiverEffect::Append(batch));
            }
        }
        Ok(())
    }

    fn image(
        &mut self,
        options: &ReceiverOptions,
        request: RequestId,
        piece: ImageData,
        out: &mut Vec<ReceiverEffect>,
    ) -> Result<(), Refusal> {
        let bytes = piece.data.as_ref().map_or(0, bytes::Bytes::len) as u64;
        let under_way = self.images.values().sum::<u64>();
        let most = options.image_window_bytes + IMAGE_DATA_BYTES_MAX as u64;
        if under_way + bytes > most || self.images.insert(request, bytes).is_some() {
            return Err(protocol("more image pieces at once than agreed"));
        }
        out.push(ReceiverEffect::Image { request, piece });
        Ok(())
    }

    fn appended(&mut self, result: Result<(), Refusal>) -> Result<(), Refusal> {
        result?;
        let bytes = self.appending.pop_front();
        self.taken += bytes.ok_or_else(|| protocol("appended without having been asked"))?;
        self.unflushed = true;
        Ok(())
    }

    /// Watermarks only rise: an answer that was overtaken by a later one changes nothing. A sink
    /// that claims more than came would let the sender forget records that exist nowhere (promise
    /// P2): the session ends before that.
    fn raise(&mut self, durable: Durable) -> Result<(), Refusal> {
        if durable.here > self.intake.received() || durable.at_target > durable.here {
            return Err(protocol("the sink claims to have records durable that it was not given"));
        }
        self.durable.here = self.durable.here.max(durable.here);
        self.durable.at_target = self.durable.at_target.max(durable.at_target);
        Ok(())
    }

    const fn credit(&self, options: &ReceiverOptions) -> u64 {
        options.log_window_bytes + self.taken
    }

    /// What must hold after every input: a flush runs while something is unflushed, and the sender
    /// knows what is new.
    fn maintain(&mut self, options: &ReceiverOptions, out: &mut Vec<ReceiverEffect>) {
        if self.unflushed && !self.flushing {
            self.unflushed = false;
            self.flushing = true;
            out.push(ReceiverEffect::Flush);
        }
        let ack = Ack {
            received: self.intake.received(),
            durable: self.durable,
            credit: self.credit(options),
        };
        let credit_due = ack.credit - self.acked.credit >= (options.log_window_bytes / 4).max(1);
        if self.repeat_ack || ack.durable != self.acked.durable || credit_due {
            self.repeat_ack = false;
            self.acked = ack;
            out.push(ReceiverEffect::Send(Message::Ack(ack)));
        }
    }

    fn assert_invariants(&self, options: &ReceiverOptions) {
        assert!(self.acked.durable.at_target <= self.acked.durable.here);
        assert!(self.acked.durable.here <= self.intake.received(), "acknowledged means durable");
        assert!(
            self.used <= self.credit(options) + BATCH_BYTES_MAX as u64,
            "the sender used more than its credit"
        );
    }
}

/// The newest version that both speak.
fn agree_version(open: &Open) -> Result<u16, Refusal> {
    let newest = open.version_max.min(PROTOCOL_MAX);
    if newest >= open.version_min.max(PROTOCOL_MIN) {
        return Ok(newest);
    }
    let (min, max) = (open.version_min, open.version_max);
    let detail =
        format!("sender speaks protocol {min} to {max}, receiver {PROTOCOL_MIN} to {PROTOCOL_MAX}");
    Err(Refusal::Protocol { detail })
}

fn protocol(detail: &str) -> Refusal {
    Refusal::Protocol { detail: detail.into() }
}

#[cfg(test)]
mod tests;
