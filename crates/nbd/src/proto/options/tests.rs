use super::{
    InfoRequest, MetaContextRequest, OptionError, OptionHeader, OptionReply, put_option,
    put_option_reply,
};
use crate::proto::Violation;
use crate::proto::constants::{OPT_GO, OPT_LIST, REP_ACK};
use crate::proto::limits::{OPTION_REPLY_BYTES_MAX, QUERIES_MAX, STRING_BYTES_MAX};
use bytes::BufMut;
use landfall_testkit::{Rng, seed};

#[test]
fn options_and_replies_survive_the_wire() {
    let info = InfoRequest { name: "machine/0@latest".into(), wanted: vec![3, 0] };
    assert_eq!(InfoRequest::decode(&info.encode()), Ok(info));
    let queries = vec!["base:allocation".to_owned(), "x-other:".to_owned()];
    let meta = MetaContextRequest { name: String::new(), queries };
    assert_eq!(MetaContextRequest::decode(&meta.encode()), Ok(meta));

    let mut wire = Vec::new();
    put_option(&mut wire, OPT_GO, b"abc");
    let (header, data) = wire.split_first_chunk().expect("a header");
    assert_eq!(OptionHeader::decode(header), Ok(OptionHeader { option: OPT_GO, length: 3 }));
    assert_eq!(data, b"abc");

    let mut wire = Vec::new();
    put_option_reply(&mut wire, OPT_LIST, REP_ACK, b"");
    let header = wire.first_chunk().expect("a header");
    let reply = OptionReply { reply: REP_ACK, length: 0 };
    assert_eq!(OptionReply::decode(header, OPT_LIST), Ok(reply));
    let other = Violation::OptionReplyTo { expected: OPT_GO, found: OPT_LIST };
    assert_eq!(OptionReply::decode(header, OPT_GO), Err(other));
}

#[test]
fn a_reply_may_be_as_long_as_its_limit_and_no_longer() {
    for (length, fits) in [(OPTION_REPLY_BYTES_MAX, true), (OPTION_REPLY_BYTES_MAX + 1, false)] {
        let mut wire = Vec::new();
        put_option_reply(&mut wire, OPT_LIST, REP_ACK, b"");
        wire[16..20].copy_from_slice(&length.to_be_bytes());
        let decoded = OptionReply::decode(wire.first_chunk().expect("a header"), OPT_LIST);
        assert_eq!(decoded.is_ok(), fits, "{length}");
    }
}

#[test]
fn names_and_queries_have_limits() {
    let name = |length| InfoRequest { name: "n".repeat(length), wanted: vec![] }.encode();
    assert!(InfoRequest::decode(&name(STRING_BYTES_MAX)).is_ok());
    let long = InfoRequest::decode(&name(STRING_BYTES_MAX + 1));
    assert_eq!(long, Err(OptionError::NameTooLong));

    let many = |count| {
        let queries = vec!["base:".to_owned(); count];
        MetaContextRequest { name: "m".into(), queries }.encode()
    };
    assert!(MetaContextRequest::decode(&many(QUERIES_MAX as usize)).is_ok());
    let found = MetaContextRequest::decode(&many(QUERIES_MAX as usize + 1));
    assert_eq!(found, Err(OptionError::TooManyQueries));
}

#[test]
fn lengths_that_lie_are_refused() {
    let mut beyond = Vec::new();
    beyond.put_u32(u32::MAX);
    beyond.put_slice(b"short");
    assert_eq!(InfoRequest::decode(&beyond), Err(OptionError::Lengths));
    assert_eq!(MetaContextRequest::decode(&beyond), Err(OptionError::Lengths));

    let mut trailing = InfoRequest { name: "m".into(), wanted: vec![3] }.encode();
    trailing.push(0);
    assert_eq!(InfoRequest::decode(&trailing), Err(OptionError::Lengths));

    let mut garbled = InfoRequest { name: "mm".into(), wanted: vec![] }.encode();
    garbled[4] = 0xff;
    assert_eq!(InfoRequest::decode(&garbled), Err(OptionError::Utf8));
}

/// No bytes make a decoder panic, and what it accepts is what it would have written.
#[test]
fn random_bytes_are_decoded_or_refused() {
    let mut rng = Rng::new(seed("random_bytes_are_decoded_or_refused"));
    let template = MetaContextRequest { name: "m".into(), queries: vec!["base:".into()] }.encode();
    for _ in 0..20_000 {
        let mut bytes = template.clone();
        bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        for _ in 0..rng.below(4) {
            if let Some(last) = (bytes.len() as u64).checked_sub(1) {
                bytes[rng.below(last + 1) as usize] = rng.next_u64() as u8;
            }
        }
        if let Ok(info) = InfoRequest::decode(&bytes) {
            assert_eq!(info.encode(), bytes);
        }
        if let Ok(meta) = MetaContextRequest::decode(&bytes) {
            assert_eq!(meta.encode(), bytes);
        }
    }
}
