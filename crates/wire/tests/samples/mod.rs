//! One message of every kind, and of every refusal.

use bytes::Bytes;
use landfall_repl::{
    Ack, Batch, Durable, HashReply, HashRequest, ImageCopyPosition, ImageData, Message, Open,
    ReceiverPosition, Refusal, RequestId, SourceIdentity, Welcome,
};
use landfall_types::{
    ByteRange, Chain, Control, DiskIndex, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn,
    Marker, MarkerKind, Record, ReplicaId, WindowId,
};

pub(crate) fn epoch(number: u64) -> Epoch {
    let parent = (number > 1).then(|| EpochId::new((number - 1) * 0x1111));
    Epoch { number, id: EpochId::new(number * 0x1111), parent }
}

fn lineage() -> Lineage {
    Lineage::root(epoch(1)).extend(epoch(2), Lsn::new(50)).expect("rises")
}

pub(crate) fn batch() -> Batch {
    let marker = Marker {
        kind: MarkerKind::User,
        time_unix_ns: 1_700_000_000_000_000_000,
        name: Some("before".into()),
        group: None,
    };
    Batch {
        epoch: epoch(2),
        incarnation: Incarnation::new(0xabcd),
        chain_before: Chain::from_bytes([9; 16]),
        source_position: 4242,
        records: vec![
            Record::write(Lsn::new(51), DiskIndex(0), 4096, Bytes::from_static(b"some bytes")),
            Record::zero(Lsn::new(52), DiskIndex(1), 8192, 1 << 30),
            Record::discard(Lsn::new(53), DiskIndex(1), 0, 512).as_catch_up(),
            Record::control(Lsn::new(54), &Control::Marker(marker)),
        ],
    }
}

/// Compresses well, so that the codec is used.
pub(crate) fn large_batch() -> Batch {
    let content = Bytes::from(b"the same again ".repeat(300));
    let write = |lsn| Record::write(Lsn::new(lsn), DiskIndex(0), lsn * 4500, content.clone());
    Batch { records: (51..60).map(write).collect(), ..batch() }
}

pub(crate) fn piece(data: Option<Bytes>) -> ImageData {
    let length = data.as_ref().map_or(1 << 20, |data| data.len() as u64);
    ImageData { window: WindowId(3), disk: DiskIndex(1), offset: 1 << 20, length, data }
}

pub(crate) fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::Fenced { offered: epoch(1), current: epoch(2) },
        Refusal::Diverged { common: Lsn::new(50), durable: Lsn::new(80) },
        Refusal::Gap { expected: Lsn::new(5), found: Lsn::new(7) },
        Refusal::ChainMismatch { lsn: Lsn::new(4) },
        Refusal::UnknownReplica(ReplicaId::from_bytes([1; 16])),
        Refusal::OtherInstance(InstanceId::from_bytes([2; 16])),
        Refusal::NotReplicating { state: "frozen".into() },
        Refusal::Superseded,
        Refusal::Unavailable { reason: "the spool is full".into() },
        Refusal::Protocol { detail: "ack out of turn".into() },
    ]
}

/// Named, because the names are those of the golden files.
pub(crate) fn all() -> Vec<(String, Message)> {
    let identity = SourceIdentity {
        replica: ReplicaId::from_bytes([1; 16]),
        lineage: lineage(),
        incarnation: Incarnation::new(0xabcd),
        instance: InstanceId::from_bytes([2; 16]),
    };
    let position = ReceiverPosition {
        lineage: lineage(),
        incarnation: Incarnation::new(0xabcd),
        durable: Lsn::new(50),
        chain: Chain::from_bytes([9; 16]),
        source_position: 4200,
        durable_at_target: Lsn::new(48),
        image_copy: Some(ImageCopyPosition {
            window: WindowId(3),
            durable_bytes: vec![(DiskIndex(0), 1 << 30), (DiskIndex(1), 0)],
        }),
        open_windows: vec![WindowId(3), WindowId(3)],
        rotten: vec![],
    };
    let rotten = ReceiverPosition {
        rotten: vec![
            (DiskIndex(0), ByteRange { start: 4096, end: 8192 }),
            (DiskIndex(0), ByteRange { start: 1 << 40, end: (1 << 40) + 512 }),
            (DiskIndex(1), ByteRange { start: 0, end: 4096 }),
        ],
        ..position.clone()
    };
    let bare = ReceiverPosition { image_copy: None, open_windows: vec![], ..position.clone() };
    let welcome = |position| Welcome {
        version: 1,
        position,
        credit: 1 << 24,
        image_window: 1 << 23,
        history_bytes: 0,
    };
    let ack = Ack {
        received: Lsn::new(60),
        durable: Durable { here: Lsn::new(58), at_target: Lsn::new(50) },
        credit: 1 << 25,
    };
    let ask = HashRequest {
        after: Lsn::new(55),
        disk: DiskIndex(1),
        offset: 65536,
        length: 100_000,
        block_bytes: 4096,
    };
    let hashes = HashReply { hashes: vec![[7; 16], [8; 16]] };
    let request = RequestId(77);
    let refused = Refusal::Unavailable { reason: "no".into() };
    let data = Bytes::from_static(b"data of the image");
    let open = Open { version_min: 1, version_max: 3, identity, history_bytes: 0 };
    let mut all = vec![
        ("open", Message::Open(open.clone())),
        ("open-history", Message::Open(Open { history_bytes: 32 << 20, ..open })),
        ("welcome", Message::Welcome(welcome(position))),
        ("welcome-bare", Message::Welcome(welcome(bare.clone()))),
        ("welcome-rotten", Message::Welcome(welcome(rotten))),
        (
            "welcome-history",
            Message::Welcome(Welcome { version: 2, history_bytes: 1 << 20, ..welcome(bare) }),
        ),
        ("batch", Message::Batch(batch())),
        ("ack", Message::Ack(ack)),
        ("image-data", Message::ImageData { request, piece: piece(Some(data)) }),
        ("image-zeroes", Message::ImageData { request, piece: piece(None) }),
        ("image-ack", Message::ImageAck { request, result: Ok(()) }),
        ("image-refused", Message::ImageAck { request, result: Err(refused.clone()) }),
        ("hash-request", Message::HashRequest { request, ask }),
        ("hash-reply", Message::HashReply { request, result: Ok(hashes) }),
        ("hash-refused", Message::HashReply { request, result: Err(refused) }),
        ("ping", Message::Ping(123_456_789)),
        ("pong", Message::Pong(123_456_789)),
        ("close", Message::Close(None)),
    ]
    .into_iter()
    .map(|(name, message)| (name.to_owned(), message))
    .collect::<Vec<_>>();
    for refusal in refusals() {
        all.push((format!("close-{}", refusal.code()), Message::Close(Some(refusal))));
    }
    all
}
