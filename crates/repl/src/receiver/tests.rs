use super::*;
use crate::testing::{batch, chain, identity, position};
use bytes::Bytes;
use landfall_types::{Chain, DiskIndex, Epoch, EpochId, Lsn, WindowId};

const NOW: Ticks = Ticks(1_000_000);

struct Rig(Receiver);

impl Rig {
    fn new() -> Self {
        Self(Receiver::new(
            NOW,
            ReceiverOptions {
                log_window_bytes: 400,
                image_window_bytes: 100,
                history_bytes_max: 50,
            },
        ))
    }
    fn live(durable: u64) -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.say(open()), [ReceiverEffect::Open(identity())]);
        let effects = rig.on(ReceiverInput::Opened(Ok(position(durable))));
        let [ReceiverEffect::Send(Message::Welcome(welcome)), ReceiverEffect::Watch(_)] =
            effects.as_slice()
        else {
            panic!("{effects:?}")
        };
        assert_eq!((welcome.credit, welcome.image_window), (400, 100));
        rig
    }
    fn on(&mut self, input: ReceiverInput) -> Vec<ReceiverEffect> {
        self.at(NOW, input)
    }
    fn at(&mut self, now: Ticks, input: ReceiverInput) -> Vec<ReceiverEffect> {
        let mut out = vec![];
        self.0.handle(now, input, &mut out);
        out
    }
    fn say(&mut self, message: Message) -> Vec<ReceiverEffect> {
        self.on(ReceiverInput::Message(message))
    }
}

fn open() -> Message {
    Message::Open(Open { version_min: 1, version_max: 1, identity: identity(), history_bytes: 80 })
}
fn durable(here: u64, at_target: u64) -> Durable {
    Durable { here: Lsn::new(here), at_target: Lsn::new(at_target) }
}
fn ends_with(effects: &[ReceiverEffect], refusal: &Refusal) {
    let close = ReceiverEffect::Send(Message::Close(Some(refusal.clone())));
    assert_eq!(effects, [close, ReceiverEffect::End(Some(refusal.clone()))]);
}
fn ends_with_code(effects: &[ReceiverEffect], code: &str) {
    let [ReceiverEffect::Send(Message::Close(Some(_))), ReceiverEffect::End(Some(refusal))] =
        effects
    else {
        panic!("{effects:?}")
    };
    assert_eq!(refusal.code(), code);
}

/// Guards P2: received is not acknowledged; only what the sink has flushed is.
#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut rig = Rig::live(2);
    assert_eq!(rig.say(Message::Batch(batch(3, 4))), [ReceiverEffect::Append(batch(3, 4))]);
    assert_eq!(rig.on(ReceiverInput::Appended(Ok(()))), [ReceiverEffect::Flush]);
    // A batch that comes during the flush is not part of it: another flush follows.
    assert_eq!(rig.say(Message::Batch(batch(5, 5))), [ReceiverEffect::Append(batch(5, 5))]);
    let credit = rig.on(ReceiverInput::Appended(Ok(())));
    let [ReceiverEffect::Send(Message::Ack(ack))] = credit.as_slice() else { panic!("{credit:?}") };
    assert_eq!((ack.durable, ack.received, ack.credit), (durable(2, 2), Lsn::new(5), 400 + 120));
    let effects = rig.on(ReceiverInput::Flushed(Ok(durable(4, 2))));
    let [ReceiverEffect::Flush, ReceiverEffect::Send(Message::Ack(ack))] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(ack.durable, durable(4, 2));
    let effects = rig.on(ReceiverInput::Progress(Ok(durable(4, 3))));
    let [ReceiverEffect::Watch(seen), ReceiverEffect::Send(Message::Ack(ack))] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!((*seen, ack.durable), (durable(4, 3), durable(4, 3)));
}

/// Guards P2: a sink that claims what never came must not make the sender forget it.
#[test]
fn a_sink_that_promises_too_much_ends_the_session() {
    for too_much in [durable(9, 2), durable(2, 3)] {
        ends_with_code(&Rig::live(2).on(ReceiverInput::Progress(Ok(too_much))), "protocol");
    }
}

#[test]
fn duplicates_are_acknowledged_again_gaps_and_other_chains_end_the_session() {
    let mut rig = Rig::live(4);
    let effects = rig.say(Message::Batch(batch(3, 4)));
    let [ReceiverEffect::Send(Message::Ack(ack))] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(ack.durable.here, Lsn::new(4));
    // Below what this session knows: the sink compares.
    assert_eq!(rig.say(Message::Batch(batch(1, 2)))[0], ReceiverEffect::Append(batch(1, 2)));
    let gap = Refusal::Gap { expected: Lsn::new(5), found: Lsn::new(6) };
    ends_with(&rig.say(Message::Batch(batch(6, 6))), &gap);
    assert!(rig.0.ended() && rig.0.deadline().is_none());
    assert_eq!(rig.say(open()), [], "nothing after the end");

    let mut other = batch(5, 5);
    other.chain_before = Chain::from_bytes([7; 16]);
    let refusal = Refusal::ChainMismatch { lsn: Lsn::new(4) };
    ends_with(&Rig::live(4).say(Message::Batch(other)), &refusal);
}

/// Guards P6: a frame of a lower epoch is refused even inside a session that was admitted.
#[test]
fn a_batch_of_an_epoch_that_is_over_is_fenced() {
    let mut rig = Rig::new();
    let new = Epoch { number: 2, id: EpochId::new(2), parent: Some(EpochId::new(1)) };
    let mut identity = identity();
    identity.lineage = identity.lineage.extend(new, Lsn::new(4)).expect("rises");
    rig.say(Message::Open(Open { version_min: 1, version_max: 3, identity, history_bytes: 80 }));
    rig.on(ReceiverInput::Opened(Ok(position(4))));
    let current = new;
    let refusal = Refusal::Fenced { offered: batch(5, 5).epoch, current };
    ends_with(&rig.say(Message::Batch(batch(5, 5))), &refusal);
}

#[test]
fn credit_bounds_what_may_be_under_way() {
    let mut rig = Rig::live(0);
    // 40 bytes each (header 32, content 8): ten use up the credit of 400, less than that may send
    // one more.
    for lsn in 1..=10 {
        assert_eq!(rig.say(Message::Batch(batch(lsn, lsn))).len(), 1, "{lsn}");
    }
    ends_with_code(&rig.say(Message::Batch(batch(11, 11))), "protocol");
    let mut rig = Rig::live(0);
    for lsn in 1..=10 {
        rig.say(Message::Batch(batch(lsn, lsn)));
    }
    for _ in 0..3 {
        rig.on(ReceiverInput::Appended(Ok(())));
    }
    assert_eq!(rig.say(Message::Batch(batch(11, 11))), [ReceiverEffect::Append(batch(11, 11))]);
}

#[test]
fn image_pieces_and_hash_requests_are_bounded_and_answered_one_by_one() {
    let piece = |len: usize| ImageData {
        window: WindowId(1),
        disk: DiskIndex(0),
        offset: 0,
        length: len as u64,
        data: Some(Bytes::from(vec![0; len])),
    };
    let image = |n: u64, len| Message::ImageData { request: RequestId(n), piece: piece(len) };
    let mut rig = Rig::live(0);
    let effects = rig.say(image(1, IMAGE_DATA_BYTES_MAX));
    let asked = ReceiverEffect::Image { request: RequestId(1), piece: piece(IMAGE_DATA_BYTES_MAX) };
    assert_eq!(effects, [asked]);
    assert_eq!(rig.say(image(2, 100)).len(), 1);
    let refused = Err(Refusal::Unavailable { reason: "full".into() });
    let done = ReceiverInput::ImageDone { request: RequestId(1), result: refused.clone() };
    let answer = Message::ImageAck { request: RequestId(1), result: refused };
    assert_eq!(rig.on(done), [ReceiverEffect::Send(answer)], "one refused piece ends nothing");
    assert_eq!(rig.say(image(3, IMAGE_DATA_BYTES_MAX)).len(), 1);
    ends_with_code(&rig.say(image(4, 1)), "protocol");

    let ask = HashRequest {
        after: Lsn::ZERO,
        disk: DiskIndex(0),
        offset: 0,
        length: 1,
        block_bytes: 512,
    };
    let question = |n| Message::HashRequest { request: RequestId(n), ask: ask.clone() };
    let mut rig = Rig::live(0);
    for n in 0..HASH_REQUESTS_MAX {
        assert_eq!(
            rig.say(question(n)),
            [ReceiverEffect::Hash { request: RequestId(n), ask: ask.clone() }]
        );
    }
    let result = Ok(HashReply { hashes: vec![[3; 16]] });
    let done = ReceiverInput::HashDone { request: RequestId(5), result: result.clone() };
    let answer = Message::HashReply { request: RequestId(5), result };
    assert_eq!(rig.on(done), [ReceiverEffect::Send(answer)]);
    assert_eq!(rig.say(question(100)).len(), 1);
    ends_with_code(&rig.say(question(101)), "protocol");
}

/// Every message in every state: what is out of turn ends the session, nothing panics.
#[test]
fn messages_out_of_turn_end_the_session() {
    let open_twice = |rig: &mut Rig| ends_with_code(&rig.say(open()), "protocol");
    open_twice(&mut Rig::live(0));
    let mut opening = Rig::new();
    opening.say(open());
    open_twice(&mut opening);
    let ack = || Message::Ack(Ack::default());
    for message in [Message::Batch(batch(1, 1)), ack(), Message::Pong(1)] {
        ends_with_code(&Rig::new().say(message), "protocol");
    }
    ends_with_code(&Rig::live(0).say(ack()), "protocol");
    assert_eq!(Rig::new().say(Message::Ping(7)), [ReceiverEffect::Send(Message::Pong(7))]);
    assert_eq!(Rig::live(0).say(Message::Close(None)), [ReceiverEffect::End(None)]);
    for early in [
        ReceiverInput::Opened(Ok(position(0))),
        ReceiverInput::Appended(Ok(())),
        ReceiverInput::Flushed(Ok(durable(0, 0))),
        ReceiverInput::Progress(Ok(durable(0, 0))),
    ] {
        ends_with_code(&Rig::new().on(early), "protocol");
    }
    ends_with_code(&Rig::live(0).on(ReceiverInput::Appended(Ok(()))), "protocol");
}

#[test]
fn the_sinks_refusals_are_told_to_the_sender() {
    let superseded = Refusal::Superseded;
    let mut rig = Rig::new();
    rig.say(open());
    ends_with(&rig.on(ReceiverInput::Opened(Err(superseded.clone()))), &superseded);
    let mut rig = Rig::live(0);
    rig.say(Message::Batch(batch(1, 1)));
    ends_with(&rig.on(ReceiverInput::Appended(Err(superseded.clone()))), &superseded);
    ends_with(&Rig::live(0).on(ReceiverInput::Progress(Err(superseded.clone()))), &superseded);
}

/// Version N speaks with N − 1: in its version, and without what only N has.
#[test]
fn the_newest_common_version_is_spoken() {
    let agreed = |version_max, history_bytes| {
        let mut rig = Rig::new();
        let open = Open { version_min: 1, version_max, identity: identity(), history_bytes };
        rig.say(Message::Open(open));
        let effects = rig.on(ReceiverInput::Opened(Ok(position(0))));
        let ReceiverEffect::Send(Message::Welcome(welcome)) = &effects[0] else {
            panic!("{effects:?}")
        };
        (welcome.version, welcome.history_bytes)
    };
    assert_eq!(agreed(1, 80), (1, 0));
    assert_eq!(agreed(2, 80), (2, 50), "no more than the receiver is ready for");
    assert_eq!(agreed(2, 30), (2, 30), "no more than was offered");
    assert_eq!(agreed(9, 0), (PROTOCOL_MAX, 0));
}

#[test]
fn versions_without_overlap_are_refused() {
    for (min, max, fits) in
        [(1, 1, true), (1, 9, true), (0, 1, true), (2, 9, true), (3, 9, false), (0, 0, false)]
    {
        let open =
            Open { version_min: min, version_max: max, identity: identity(), history_bytes: 0 };
        let effects = Rig::new().say(Message::Open(open));
        assert_eq!(matches!(effects[0], ReceiverEffect::Open(_)), fits, "{min}..={max}");
    }
}

/// Fault F4, half-open connection: silence ends the session, any word prolongs it.
#[test]
fn silence_ends_the_session() {
    let mut rig = Rig::live(1);
    let due = rig.0.deadline().expect("live");
    assert_eq!(rig.at(Ticks(due.0 - 1), ReceiverInput::Tick), []);
    rig.at(Ticks(due.0 - 1), ReceiverInput::Message(Message::Ping(0)));
    assert_eq!(rig.at(due, ReceiverInput::Tick), []);
    let later = rig.0.deadline().expect("live");
    assert_eq!(rig.at(later, ReceiverInput::Tick), [ReceiverEffect::End(None)]);
    assert_eq!(chain(0), Chain::ROOT);
}
