//! The entry points of `fuzz/`, over mutations of good bytes. `LANDFALL_NBD_MUTATIONS` makes them
//! more.

use crate::malformed::{mutate, session};
use bytes::BufMut;
use landfall_nbd::proto::constants::{OPT_GO, OPT_LIST, OPT_STARTTLS, REP_INFO};
use landfall_nbd::proto::{
    Errno, InfoRequest, MetaContextRequest, ReplyWriter, put_option, put_option_reply,
};
use landfall_nbd::testing::fuzz::TARGETS;
use landfall_nbd::{Extent, testing};
use landfall_testkit::{Rng, seed};

/// Bytes that the entry point takes to its end.
fn good(name: &str) -> Vec<Vec<u8>> {
    let mut replies = ReplyWriter::new(true);
    let extent = |length, hole| Extent { length, hole };
    let extents = [extent(4096, false), extent(65536, true)];
    // What follows the head of a chunk.
    let payload = |bytes: bytes::Bytes| bytes[20..].to_vec();
    match name {
        "negotiation" => {
            let mut tls = 3_u32.to_be_bytes().to_vec();
            put_option(&mut tls, OPT_LIST, b"");
            put_option(&mut tls, OPT_STARTTLS, b"");
            tls.extend(&session("m/0@latest", &[])[4..]);
            vec![session("m/0@latest", &[]), tls]
        }
        "option_data" => {
            let info = InfoRequest { name: "m/0@17".into(), wanted: vec![1, 3] };
            let queries = vec!["base:allocation".into(), "base:".into()];
            vec![info.encode(), MetaContextRequest { name: "m".into(), queries }.encode()]
        }
        "request" => (0..9).map(|kind| crate::malformed::request(kind, 0, 1, 512, 4096)).collect(),
        "option_reply" => {
            let mut bytes = Vec::new();
            put_option_reply(&mut bytes, OPT_GO, REP_INFO, b"");
            vec![bytes]
        }
        "reply_header" => vec![replies.done(1).to_vec(), ReplyWriter::new(false).done(1).to_vec()],
        "chunks" => vec![
            payload(replies.hole(1, 512, 4096)),
            [payload(replies.data(1, 512, 64)), vec![7; 64]].concat(),
            payload(replies.status(1, &extents)),
            payload(replies.error(1, Errno::Io, "the disk is gone")),
        ],
        "answer" => {
            let mut bytes = Vec::new();
            for (offset, data) in [(2560, vec![1; 2048]), (512, vec![2; 2048])] {
                bytes.put_u16(1);
                bytes.put_u16(8 + 2048);
                bytes.put_u64(offset);
                bytes.extend(data);
            }
            let mut hole = Vec::new();
            hole.put_u16(2);
            hole.put_u16(12);
            hole.put_u64(512);
            hole.put_u32(4096);
            vec![bytes, hole]
        }
        other => panic!("there are no good bytes for {other}"),
    }
}

#[test]
fn mutated_bytes_break_no_decoder() {
    let rounds = std::env::var("LANDFALL_NBD_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let mut rng = Rng::new(seed("mutated_bytes_break_no_decoder"));
    for testing::fuzz::Target { name, run } in TARGETS {
        for bytes in good(name) {
            run(&bytes);
            for _ in 0..rounds.unwrap_or(4000) {
                let mut bytes = bytes.clone();
                mutate(&mut bytes, &mut rng);
                run(&bytes);
            }
        }
        for _ in 0..rounds.unwrap_or(4000) {
            let mut bytes = vec![0; rng.below(200) as usize];
            rng.fill(&mut bytes);
            run(&bytes);
        }
    }
}
