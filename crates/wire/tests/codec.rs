//! Frames come back as they went out; whatever else arrives is refused without a panic or a large
//! allocation.

mod samples;

use bytes::{Bytes, BytesMut};
use landfall_repl::limits::{BATCH_BYTES_MAX, HASHES_MAX, IMAGE_DATA_BYTES_MAX};
use landfall_repl::{Batch, HashReply, HashRequest, Message, RequestId};
use landfall_types::{DiskIndex, Lsn, PAYLOAD_BYTES_MAX, Record};
use landfall_wire::{
    Compression, DecodeError, Decoder, EncodeError, Encoder, FRAME_BYTES_MAX, FRAME_HEADER_BYTES,
};

fn frame(message: &Message) -> Vec<u8> {
    frame_with(Compression::Off, message)
}
fn frame_with(compression: Compression, message: &Message) -> Vec<u8> {
    Encoder::new(compression).encode(message, 0).expect("within limits").concat()
}
fn read(bytes: &[u8]) -> Result<Option<Message>, DecodeError> {
    Decoder::default().decode(&mut BytesMut::from(bytes))
}
/// Sets the checksum right, so that what lies behind it is reached.
fn reseal(frame: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..16]), &frame[FRAME_HEADER_BYTES..]);
    frame[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// The golden vectors of `docs/formats/wire.md`: a change here is a change of the format.
/// `UPDATE_GOLDEN=1` writes them.
#[test]
fn golden_vectors() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, message) in samples::all() {
        let path = dir.join(format!("{name}.hex"));
        let bytes = frame(&message);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, hex(&bytes)).expect("writable");
        }
        let text = std::fs::read_to_string(&path).expect("a golden file for each sample");
        assert_eq!(hex(&bytes), text, "{name} is written differently");
        assert_eq!(read(&unhex(&text)).expect("ours"), Some(message), "{name} is read differently");
    }
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect()
}
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

#[test]
fn a_stream_comes_back_message_by_message_however_it_is_cut() {
    let messages: Vec<Message> = samples::all().into_iter().map(|(_, message)| message).collect();
    let stream: Vec<u8> = messages.iter().flat_map(frame).collect();
    for step in [1, 7, 20, 21, 4096] {
        let (mut arrived, mut out) = (BytesMut::new(), vec![]);
        for chunk in stream.chunks(step) {
            arrived.extend_from_slice(chunk);
            while let Some(message) = Decoder::default().decode(&mut arrived).expect("ours") {
                out.push(message);
            }
        }
        assert_eq!(out, messages);
        assert!(arrived.is_empty());
    }
}

#[test]
fn compressed_frames_come_back_too() {
    let data = samples::large_batch().records[0].payload.clone();
    let messages = [
        Message::Batch(samples::large_batch()),
        Message::ImageData { request: RequestId(1), piece: samples::piece(Some(data)) },
    ];
    for message in messages {
        let plain = frame(&message).len();
        for compression in [Compression::Fast, Compression::Small] {
            let squeezed = frame_with(compression, &message);
            assert!(squeezed.len() < plain / 4, "{} of {plain}", squeezed.len());
            assert_eq!(read(&squeezed).expect("ours"), Some(message.clone()));
        }
    }
}

/// Limits at the largest value and one beyond it.
#[test]
fn limits_hold_on_both_sides() {
    let full = Record::write(Lsn::new(1), DiskIndex(0), 0, Bytes::from(vec![7; PAYLOAD_BYTES_MAX]));
    let count = BATCH_BYTES_MAX / (PAYLOAD_BYTES_MAX + 32);
    let most = Batch { records: vec![full.clone(); count], ..samples::batch() };
    let bytes = frame(&Message::Batch(most.clone()));
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    assert_eq!(read(&bytes).expect("ours"), Some(Message::Batch(most)));
    let more = Batch { records: vec![full; count + 1], ..samples::batch() };
    let refused = Encoder::new(Compression::Off).encode(&Message::Batch(more), 0);
    assert!(matches!(refused, Err(EncodeError::TooLong { kind: "batch", .. })));

    let image = |len| {
        let piece = samples::piece(Some(Bytes::from(vec![7; len])));
        Message::ImageData { request: RequestId(1), piece }
    };
    assert_eq!(
        read(&frame(&image(IMAGE_DATA_BYTES_MAX))).expect("ours"),
        Some(image(IMAGE_DATA_BYTES_MAX))
    );
    assert!(Encoder::default().encode(&image(IMAGE_DATA_BYTES_MAX * 2), 0).is_err());
    let mut short = samples::piece(Some(Bytes::from_static(b"abc")));
    short.length = 4;
    let refused =
        Encoder::default().encode(&Message::ImageData { request: RequestId(1), piece: short }, 0);
    assert_eq!(refused, Err(EncodeError::ImageLength { length: 4, data: 3 }));

    let reply = |count| Message::HashReply {
        request: RequestId(1),
        result: Ok(HashReply { hashes: vec![[1; 16]; count] }),
    };
    assert_eq!(read(&frame(&reply(HASHES_MAX))).expect("ours"), Some(reply(HASHES_MAX)));
    assert!(read(&frame(&reply(HASHES_MAX + 1))).is_err());
    let ask = |length| Message::HashRequest {
        request: RequestId(1),
        ask: HashRequest {
            after: Lsn::ZERO,
            disk: DiskIndex(0),
            offset: 0,
            length,
            block_bytes: 512,
        },
    };
    assert!(read(&frame(&ask(512 * HASHES_MAX as u64))).is_ok());
    for length in [512 * HASHES_MAX as u64 + 1, 0, u64::MAX] {
        assert!(read(&frame(&ask(length))).is_err(), "{length}");
    }
}

#[test]
fn each_field_of_the_header_is_checked() {
    let good = frame(&Message::Ping(1));
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        reseal(&mut bytes);
        read(&bytes)
    };
    assert!(matches!(with(0, b'x'), Err(DecodeError::Magic(_))));
    assert!(matches!(with(4, 2), Err(DecodeError::Version(2))));
    assert!(matches!(with(5, 0), Err(DecodeError::Type(0))));
    assert!(matches!(with(5, 12), Err(DecodeError::Type(12))));
    assert!(matches!(with(6, 1), Err(DecodeError::Flags(1))));
    assert!(matches!(with(8, 1), Err(DecodeError::Malformed { .. })));
    assert!(matches!(with(15, 0xff), Err(DecodeError::TooLong { .. })));
    assert!(read(&good[..FRAME_HEADER_BYTES - 1]).expect("incomplete").is_none());
    assert!(read(&good[..good.len() - 1]).expect("incomplete").is_none());
    for at in FRAME_HEADER_BYTES..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(matches!(read(&bytes), Err(DecodeError::Checksum { .. })));
    }
}

/// A compressed frame of a few bytes that announces much: at most the announced, bounded, size is
/// allocated.
#[test]
fn a_bomb_is_refused() {
    let message = Message::Batch(samples::large_batch());
    let good = frame_with(Compression::Fast, &message);
    for announced in [0_u32, 31, 100, BATCH_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut bytes = good.clone();
        bytes[FRAME_HEADER_BYTES + 64..][..4].copy_from_slice(&announced.to_le_bytes());
        reseal(&mut bytes);
        assert!(read(&bytes).is_err(), "{announced}");
    }
    let mut many = good.clone();
    many[FRAME_HEADER_BYTES + 4..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    reseal(&mut many);
    assert!(matches!(read(&many), Err(DecodeError::Malformed { .. })));
}

/// Guards "never panic on bytes from the network": random bytes, and every sample damaged in random
/// places with its checksum set right again.
#[test]
fn arbitrary_bytes_never_panic() {
    let mut rng = landfall_testkit::Rng::new(landfall_testkit::seed("arbitrary_bytes_never_panic"));
    let mut frames: Vec<Vec<u8>> = samples::all().iter().map(|(_, m)| frame(m)).collect();
    frames.push(frame_with(Compression::Fast, &Message::Batch(samples::large_batch())));
    let mut understood = 0;
    for round in 0..40_000 {
        let mut bytes = frames[round % frames.len()].clone();
        for _ in 0..=rng.below(3) {
            let at =
                FRAME_HEADER_BYTES + rng.below((bytes.len() - FRAME_HEADER_BYTES) as u64) as usize;
            match rng.below(4) {
                0 => bytes[at] = rng.next_u64() as u8,
                1 => bytes[at] ^= 1 << rng.below(8),
                2 => bytes.truncate(at.max(FRAME_HEADER_BYTES + 1)),
                _ => bytes.insert(at, rng.next_u64() as u8),
            }
        }
        let length = (bytes.len() - FRAME_HEADER_BYTES) as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        reseal(&mut bytes);
        understood += u32::from(read(&bytes).is_ok());
        let mut noise = vec![0; rng.below(200) as usize];
        rng.fill(&mut noise);
        let _ = read(&noise);
        // Noise behind a header that is right.
        let kind = 1 + rng.below(11) as u8;
        let mut sealed = good_header(kind, &noise);
        reseal(&mut sealed);
        let _ = read(&sealed);
    }
    assert!(understood > 0, "some damage lies in values that may be anything");
}

fn good_header(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(&Message::Ping(0))[..FRAME_HEADER_BYTES].to_vec();
    bytes[5] = kind;
    bytes[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A later version may add optional fields to a map; today's code skips them.
#[test]
fn unknown_optional_fields_are_skipped() {
    // {"clock": 5} as an array of one is 81 05; of two, with a later field: 82 05 07.
    let mut bytes = good_header(9, &[0x82, 0x05, 0x07]);
    reseal(&mut bytes);
    assert_eq!(read(&bytes).expect("skipped"), Some(Message::Ping(5)));
    let mut trailing = good_header(9, &[0x81, 0x05, 0x07]);
    reseal(&mut trailing);
    assert!(read(&trailing).is_err());
}

#[test]
fn every_error_has_a_class_and_words_for_the_peer() {
    let error = read(&[0xff; 64]).expect_err("noise");
    assert_eq!(error.class(), landfall_types::Class::Bug);
    assert!(error.refusal().to_string().contains("Landfall"));
}
