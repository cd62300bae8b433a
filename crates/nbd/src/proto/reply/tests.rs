use super::{
    BlockStatus, ReplyHeader, ReplyWriter, decode_block_status, decode_error_chunk,
    decode_offset_data, decode_offset_hole,
};
use crate::Extent;
use crate::proto::constants::{
    REPLY_TYPE_BLOCK_STATUS, REPLY_TYPE_ERROR, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA,
};
use crate::proto::limits::CHUNK_BYTES_MAX;
use crate::proto::{Errno, Violation};
use bytes::{BufMut, Bytes};
use landfall_testkit::{Rng, seed};

fn chunk(wire: &Bytes) -> (ReplyHeader, Bytes) {
    let header = ReplyHeader::decode(&wire[..ReplyHeader::CHUNK_BYTES]).expect("our own header");
    (header, wire.slice(ReplyHeader::CHUNK_BYTES..))
}

#[test]
fn simple_replies_are_sixteen_bytes() {
    let mut replies = ReplyWriter::new(false);
    let done = ReplyHeader::Simple { error: 0, cookie: 9 };
    assert_eq!(ReplyHeader::decode(&replies.done(9)), Ok(done));
    assert_eq!(ReplyHeader::decode(&replies.data(9, 512, 4096)), Ok(done));
    let failed = ReplyHeader::Simple { error: 5, cookie: 9 };
    assert_eq!(ReplyHeader::decode(&replies.error(9, Errno::Io, "not sent")), Ok(failed));
}

#[test]
fn structured_replies_are_one_final_chunk_each() {
    let mut replies = ReplyWriter::new(true);
    let expected = |kind, length| ReplyHeader::Chunk { done: true, kind, cookie: 3, length };

    let (header, rest) = chunk(&replies.done(3));
    assert_eq!((header, rest.len()), (expected(REPLY_TYPE_NONE, 0), 0));

    let (header, rest) = chunk(&replies.data(3, 512, 4096));
    assert_eq!(header, expected(REPLY_TYPE_OFFSET_DATA, 4104));
    assert_eq!(&rest[..], &512_u64.to_be_bytes());

    let (header, rest) = chunk(&replies.error(3, Errno::NoSpace, "no space"));
    assert_eq!(header, expected(REPLY_TYPE_ERROR, 14));
    assert_eq!(decode_error_chunk(&rest), Ok((Errno::NoSpace, "no space".to_owned())));

    let extents = [Extent { length: 512, hole: true }, Extent { length: 1024, hole: false }];
    let (header, rest) = chunk(&replies.status(3, &extents));
    assert_eq!(header, expected(REPLY_TYPE_BLOCK_STATUS, 20));
    let status = BlockStatus { context: 1, extents: vec![(512, 3), (1024, 0)] };
    assert_eq!(decode_block_status(&rest), Ok(status));
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let mut replies = ReplyWriter::new(true);
    let (_, rest) = chunk(&replies.error(1, Errno::Io, &"é".repeat(4096)));
    let (_, message) = decode_error_chunk(&rest).expect("our own chunk");
    assert_eq!(message.len(), 4096);
    let (_, rest) = chunk(&replies.error(1, Errno::Io, &format!("x{}", "é".repeat(4096))));
    let (_, message) = decode_error_chunk(&rest).expect("our own chunk");
    assert_eq!(message.len(), 4095);
}

#[test]
fn chunks_have_a_longest() {
    let mut wire = ReplyWriter::new(true).data(1, 0, 0).to_vec();
    wire.truncate(ReplyHeader::CHUNK_BYTES);
    wire[16..].copy_from_slice(&CHUNK_BYTES_MAX.to_be_bytes());
    assert!(ReplyHeader::decode(&wire).is_ok());
    wire[16..].copy_from_slice(&(CHUNK_BYTES_MAX + 1).to_be_bytes());
    assert_eq!(ReplyHeader::decode(&wire), Err(Violation::TooLong(CHUNK_BYTES_MAX + 1)));
}

#[test]
fn chunks_that_make_no_sense_are_refused() {
    assert!(decode_offset_data(Bytes::from_static(&[0; 8])).is_err());
    assert!(decode_offset_hole(&[0; 11]).is_err());
    assert!(decode_block_status(&[0; 4]).is_err(), "no extents");
    assert!(decode_block_status(&[0; 12]).is_err(), "an empty extent");
    let mut none = Vec::new();
    none.put_u32(0);
    none.put_u16(0);
    assert!(decode_error_chunk(&none).is_err(), "an error that is none");
    let mut beyond = Vec::new();
    beyond.put_u32(5);
    beyond.put_u16(9);
    assert!(decode_error_chunk(&beyond).is_err(), "a message beyond the chunk");
}

#[test]
fn random_chunks_never_panic() {
    let mut rng = Rng::new(seed("random_chunks_never_panic"));
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.below(48) as usize];
        rng.fill(&mut bytes);
        let _ = ReplyHeader::decode(&bytes);
        let _ = decode_block_status(&bytes);
        let _ = decode_error_chunk(&bytes);
        let _ = decode_offset_hole(&bytes);
        let _ = decode_offset_data(Bytes::from(bytes));
    }
}
