use super::*;
use crate::limits::LOG_WINDOW_BYTES;
use crate::testing::{batch, epoch, identity, position};
use crate::{HashReply, HashRequest, ImageData};
use bytes::Bytes;
use landfall_types::{Chain, DiskIndex, Epoch, EpochId, Lineage, WindowId};

const NOW: Ticks = Ticks(5_000_000);

struct Rig(Sender);

impl Rig {
    fn new() -> Self {
        Self(Sender::new(NOW, SenderOptions::default()))
    }
    fn opening() -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.on(SenderInput::Tick), [SenderEffect::Connect]);
        let effects = rig.on(SenderInput::Connected(identity()));
        assert!(matches!(effects[0], SenderEffect::Send(Message::Open(_))), "{effects:?}");
        rig
    }
    fn live(durable: u64) -> Self {
        let mut rig = Self::opening();
        let effects = rig.say(welcome(durable));
        assert_eq!(effects, [SenderEffect::Resume(position(durable))]);
        let effects = rig.on(SenderInput::Resumed(Ok(())));
        let from = Lsn::new(durable).next();
        assert!(matches!(effects[0], SenderEffect::Acknowledged(_)));
        assert_eq!(effects[1..], [SenderEffect::Live, read(from)]);
        rig
    }
    fn on(&mut self, input: SenderInput) -> Vec<SenderEffect> {
        self.at(NOW, input)
    }
    fn at(&mut self, now: Ticks, input: SenderInput) -> Vec<SenderEffect> {
        let mut out = vec![];
        self.0.handle(now, input, &mut out);
        out
    }
    fn say(&mut self, message: Message) -> Vec<SenderEffect> {
        self.on(SenderInput::Message(message))
    }
    /// Disconnected; then the time until the next attempt, in milliseconds.
    fn wait_ms(&mut self) -> Option<u64> {
        self.on(SenderInput::Disconnected { jitter: 0 });
        self.0.deadline().map(|at| at.since(NOW) / 1000)
    }
}

fn welcome(durable: u64) -> Message {
    let position = position(durable);
    let (version, credit) = (1, LOG_WINDOW_BYTES);
    Message::Welcome(Welcome { version, position, credit, image_window: 20, history_bytes: 0 })
}
fn read(from: Lsn) -> SenderEffect {
    SenderEffect::Read { from, bytes_max: crate::limits::BATCH_BYTES_TARGET }
}
fn ack(received: u64, here: u64, at_target: u64) -> Message {
    let durable = Durable { here: Lsn::new(here), at_target: Lsn::new(at_target) };
    Message::Ack(Ack { received: Lsn::new(received), durable, credit: LOG_WINDOW_BYTES })
}
/// The session was ended by the sender, and the receiver told why.
fn gives_up(effects: &[SenderEffect], code: &str) {
    let [
        SenderEffect::Send(Message::Close(Some(told))),
        SenderEffect::Refused(shown),
        SenderEffect::Disconnect,
    ] = effects
    else {
        panic!("{effects:?}")
    };
    assert_eq!((told.code(), shown), (code, told));
}

#[test]
fn resumes_behind_what_the_receiver_has_and_sends_in_order() {
    let mut rig = Rig::live(4);
    let effects = rig.on(SenderInput::Read(Ok(batch(5, 6))));
    assert_eq!(effects, [SenderEffect::Send(Message::Batch(batch(5, 6))), read(Lsn::new(7))]);
    assert_eq!(
        rig.say(ack(6, 5, 2)),
        [SenderEffect::Acknowledged(Durable { here: Lsn::new(5), at_target: Lsn::new(2) })]
    );
    assert_eq!(rig.say(ack(6, 5, 2)), [], "nothing new");
    let (sent, acked) = rig.0.progress().expect("live");
    assert_eq!((sent, acked.received, acked.durable.here), (Lsn::new(6), Lsn::new(6), Lsn::new(5)));
}

/// Guards P2: an acknowledgement of what was never sent, or one that is taken back, frees nothing.
#[test]
fn impossible_acknowledgements_end_the_session() {
    for impossible in [ack(5, 5, 2), ack(3, 3, 2), ack(4, 3, 2), ack(4, 4, 1), ack(4, 4, 5)] {
        gives_up(&Rig::live(4).say(impossible), "protocol");
    }
    let durable = Durable { here: Lsn::new(4), at_target: Lsn::new(2) };
    let less = Message::Ack(Ack { received: Lsn::new(4), durable, credit: 1 });
    gives_up(&Rig::live(4).say(less), "protocol");
}

#[test]
fn a_source_that_gives_what_does_not_follow_is_not_believed() {
    gives_up(&Rig::live(4).on(SenderInput::Read(Ok(batch(6, 6)))), "gap");
    let mut other = batch(5, 5);
    other.chain_before = Chain::ROOT;
    gives_up(&Rig::live(4).on(SenderInput::Read(Ok(other))), "chain-mismatch");
    let mut empty = batch(5, 5);
    empty.records.clear();
    gives_up(&Rig::live(4).on(SenderInput::Read(Ok(empty))), "protocol");
    let mut older = batch(5, 5);
    older.epoch.number = 0;
    gives_up(&Rig::live(4).on(SenderInput::Read(Ok(older))), "fenced");
    let lost = Refusal::Unavailable { reason: "disk".into() };
    gives_up(&Rig::live(4).on(SenderInput::Read(Err(lost))), "unavailable");
}

/// Guards P6: the answer of a receiver with another history is recognised without the receiver's
/// help.
#[test]
fn lineages_are_compared_from_this_side_too() {
    let with = |lineage: Lineage, durable: u64| {
        let mut position = position(durable);
        position.lineage = lineage;
        let (version, credit) = (1, 100);
        Rig::opening().say(Message::Welcome(Welcome {
            version,
            position,
            credit,
            image_window: 9,
            history_bytes: 0,
        }))
    };
    let newer = Epoch { number: 2, id: EpochId::new(9), parent: Some(epoch().id) };
    gives_up(&with(identity().lineage.extend(newer, Lsn::new(3)).expect("rises"), 3), "fenced");
    gives_up(&with(Lineage::root(newer), 3), "diverged");
    let mut too_new = position(3);
    too_new.durable_at_target = Lsn::new(4);
    let (version, credit) = (1, 100);
    let welcome = Welcome { version, position: too_new, credit, image_window: 9, history_bytes: 0 };
    gives_up(&Rig::opening().say(Message::Welcome(welcome.clone())), "protocol");
    let version = Welcome { version: 3, position: position(3), ..welcome };
    gives_up(&Rig::opening().say(Message::Welcome(version)), "protocol");
}

/// A receiver must not remember more than was offered, nor anything in a version that has no
/// history: its memory and the sender's would differ.
#[test]
fn no_more_is_remembered_than_was_offered() {
    let link = |version, offered, agreed| {
        let (position, credit) = (position(3), 100);
        let welcome = Welcome { version, position, credit, image_window: 9, history_bytes: agreed };
        link::Link::new(&identity(), &welcome, offered).is_ok()
    };
    assert!(link(1, 50, 0) && link(2, 50, 0) && link(2, 50, 50) && link(2, 50, 20));
    assert!(!link(2, 50, 51) && !link(1, 50, 50) && !link(2, 0, 1));
}

/// Guards P6 and T-1: what a refusal of each class leads to.
#[test]
fn refusals_are_retried_by_their_class() {
    let fenced = Refusal::Fenced { offered: epoch(), current: epoch() };
    let permanent = Refusal::ChainMismatch { lsn: Lsn::new(4) };
    let transient = Refusal::Unavailable { reason: "full".into() };
    let bug = Refusal::Protocol { detail: "x".into() };
    let table = [
        (None, Some(50)),
        (Some(transient), Some(50)),
        (Some(bug), Some(BACKOFF_MS_MAX)),
        (Some(Refusal::Superseded), Some(BACKOFF_MS_MAX)),
        (Some(permanent.clone()), None),
        (Some(fenced.clone()), None),
        (Some(Refusal::OtherInstance(identity().instance)), None),
    ];
    for (reason, wait) in table {
        let mut rig = Rig::live(4);
        let effects = rig.say(Message::Close(reason.clone()));
        assert_eq!(effects.last(), Some(&SenderEffect::Disconnect));
        assert_eq!(rig.wait_ms(), wait, "{reason:?}");
        assert_eq!(rig.0.phase() == SenderPhase::Stopped, wait.is_none());
    }
    let slow = SenderOptions { retry_permanent_ms: Some(5_000), ..SenderOptions::default() };
    for (reason, wait) in [(permanent, Some(5_000)), (fenced, None)] {
        let mut rig = Rig::opening();
        rig.0.options = slow;
        rig.say(Message::Close(Some(reason)));
        assert_eq!(rig.wait_ms(), wait);
    }
}

#[test]
fn failures_wait_longer_and_longer_until_records_get_through() {
    let mut rig = Rig::new();
    for expected in [50, 100, 200] {
        rig.0.state = State::Connecting;
        assert_eq!(rig.wait_ms(), Some(expected));
    }
    let mut live = Rig::live(4);
    live.0.backoff = rig.0.backoff;
    live.on(SenderInput::Read(Ok(batch(5, 5))));
    live.say(ack(5, 5, 2));
    assert_eq!(live.wait_ms(), Some(50));
}

/// A restart must not be lost, whenever the owner asks for it.
#[test]
fn restart_is_heeded_in_every_state() {
    let fenced = || Message::Close(Some(Refusal::OtherInstance(identity().instance)));
    let mut stopped = Rig::live(4);
    stopped.say(fenced());
    stopped.wait_ms();
    stopped.on(SenderInput::Restart);
    assert_eq!(stopped.on(SenderInput::Tick), [SenderEffect::Connect]);
    let mut closing = Rig::live(4);
    closing.say(fenced());
    closing.on(SenderInput::Restart);
    assert_eq!(closing.wait_ms(), Some(50));
    closing.on(SenderInput::Restart);
    assert_eq!(closing.on(SenderInput::Tick), [SenderEffect::Connect]);
    for mut rig in [Rig::opening(), Rig::live(4)] {
        let effects = rig.on(SenderInput::Restart);
        assert_eq!(effects, [SenderEffect::Send(Message::Close(None)), SenderEffect::Disconnect]);
        assert!(rig.wait_ms().is_some());
    }
}

#[test]
fn requests_survive_connections_and_are_refused_only_when_given_up() {
    let piece = ImageData {
        window: WindowId(1),
        disk: DiskIndex(0),
        offset: 0,
        length: 20,
        data: Some(Bytes::from(vec![1; 20])),
    };
    let ask = |n: u64| SenderInput::Ask { request: RequestId(n), ask: Ask::Image(piece.clone()) };
    let say = |n: u64| {
        SenderEffect::Send(Message::ImageData { request: RequestId(n), piece: piece.clone() })
    };
    let mut rig = Rig::new();
    assert_eq!(rig.on(ask(1)), []);
    rig.on(SenderInput::Tick);
    rig.on(SenderInput::Connected(identity()));
    rig.say(welcome(4));
    let effects = rig.on(SenderInput::Resumed(Ok(())));
    assert_eq!(effects.last(), Some(&say(1)));
    assert_eq!(rig.on(ask(2)), [], "the window of 20 bytes is used up");
    let done = |n| Message::ImageAck { request: RequestId(n), result: Ok(()) };
    let answer =
        |n, result| SenderEffect::Answered { request: RequestId(n), answer: Answer::Image(result) };
    assert_eq!(rig.say(done(1)), [answer(1, Ok(())), say(2)]);
    assert_eq!(rig.wait_ms(), Some(50));
    rig.at(NOW.plus_ms(50), SenderInput::Tick);
    rig.on(SenderInput::Connected(identity()));
    rig.say(welcome(4));
    assert_eq!(rig.on(SenderInput::Resumed(Ok(()))).last(), Some(&say(2)), "sent again");
    let refusal = Refusal::OtherInstance(identity().instance);
    rig.say(Message::Close(Some(refusal.clone())));
    let effects = rig.on(SenderInput::Disconnected { jitter: 0 });
    assert_eq!(effects, [answer(2, Err(refusal.clone()))]);
    assert_eq!(rig.on(ask(3)), [answer(3, Err(refusal))]);
}

#[test]
fn hash_answers_find_their_question() {
    let question = HashRequest {
        after: Lsn::ZERO,
        disk: DiskIndex(0),
        offset: 0,
        length: 9,
        block_bytes: 512,
    };
    let mut rig = Rig::live(0);
    let ask = SenderInput::Ask { request: RequestId(1), ask: Ask::Hash(question.clone()) };
    assert_eq!(
        rig.on(ask),
        [SenderEffect::Send(Message::HashRequest { request: RequestId(1), ask: question })]
    );
    let result = Ok(HashReply { hashes: vec![[1; 16]] });
    let reply = Message::HashReply { request: RequestId(1), result: result.clone() };
    let answered = SenderEffect::Answered { request: RequestId(1), answer: Answer::Hash(result) };
    assert_eq!(rig.say(reply.clone()), [answered]);
    gives_up(&rig.say(reply), "protocol");
}

/// Fault F4, half-open connection: the sender asks, and gives up when nothing is heard.
#[test]
fn asks_whether_the_receiver_is_there_and_gives_up_in_the_end() {
    let mut rig = Rig::live(4);
    let ping = rig.0.deadline().expect("live");
    assert_eq!(ping, NOW.plus_ms(PING_INTERVAL_MS));
    assert_eq!(rig.at(ping, SenderInput::Tick), [SenderEffect::Send(Message::Ping(ping.0))]);
    rig.at(Ticks(ping.0 + 700), SenderInput::Message(Message::Pong(ping.0)));
    assert_eq!(rig.0.rtt_us(), Some(700));
    let silent = Ticks(ping.0 + 700).plus_ms(SILENCE_MS_MAX);
    let effects = rig.at(silent, SenderInput::Tick);
    assert!(matches!(effects[..], [SenderEffect::Refused(_), SenderEffect::Disconnect]));
    assert!(rig.wait_ms().is_some());
}

#[test]
fn stop_ends_everything_and_stays() {
    let mut rig = Rig::live(4);
    let effects = rig.on(SenderInput::Stop);
    assert_eq!(effects, [SenderEffect::Send(Message::Close(None)), SenderEffect::Disconnect]);
    assert_eq!(rig.wait_ms(), None);
    assert_eq!(rig.0.phase(), SenderPhase::Stopped);
    assert_eq!(rig.on(SenderInput::Tick), []);
}

/// Every message in every state: nothing panics, what is out of turn ends the session.
#[test]
fn messages_out_of_turn_end_the_session() {
    let out_of_turn = [ack(4, 4, 2), Message::Batch(batch(1, 1)), Message::Ping(1)];
    for message in out_of_turn {
        gives_up(&Rig::opening().say(message), "protocol");
    }
    gives_up(&Rig::live(4).say(welcome(4)), "protocol");
    gives_up(&Rig::live(4).say(Message::Batch(batch(1, 1))), "protocol");
    let mut resuming = Rig::opening();
    resuming.say(welcome(4));
    assert_eq!(resuming.say(ack(4, 4, 3)), [], "an early acknowledgement is no mistake");
    gives_up(&resuming.say(welcome(4)), "protocol");
}
