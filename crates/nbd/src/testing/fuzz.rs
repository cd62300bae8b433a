//! One entry point for each decoder that sees a peer's bytes. None of them may panic, take memory
//! for what a peer merely claims, or accept what it can't express again.
//!
//! They are called with random bytes by the programs in `fuzz/`, and with mutations of good bytes
//! by the tests of this crate.

use crate::Access;
use crate::client::reply::fuzz_answer;
use crate::handshake::fuzz_negotiation;
use crate::proto::{
    Facts, InfoRequest, MetaContextRequest, OptionHeader, OptionReply, ReplyHeader, Request,
    Verdict, decode_block_status, decode_error_chunk, decode_offset_data, decode_offset_hole,
    judge,
};
use bytes::Bytes;

/// An entry point.
pub struct Target {
    /// As `cargo fuzz run nbd NAME` and the tests call it.
    pub name: &'static str,
    /// Looks at the bytes; panics when the decoder is wrong.
    pub run: fn(&[u8]),
}

/// All entry points.
// tidy: table
pub const TARGETS: &[Target] = &[
    Target { name: "negotiation", run: fuzz_negotiation },
    Target { name: "option_data", run: option_data },
    Target { name: "request", run: request },
    Target { name: "option_reply", run: option_reply },
    Target { name: "reply_header", run: reply_header },
    Target { name: "chunks", run: chunks },
    Target { name: "answer", run: fuzz_answer },
];

/// The data of a client's options.
fn option_data(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk() {
        let _refused = OptionHeader::decode(header);
    }
    if let Ok(info) = InfoRequest::decode(bytes) {
        assert_eq!(info.encode(), bytes, "one encoding for each request");
    }
    if let Ok(meta) = MetaContextRequest::decode(bytes) {
        assert_eq!(meta.encode(), bytes, "one encoding for each request");
    }
}

/// A request's fixed part, and what is made of it for a view and a branch.
fn request(bytes: &[u8]) {
    let Some(Ok(request)) = bytes.first_chunk().map(Request::decode) else { return };
    let mut again = Vec::new();
    request.encode(&mut again);
    assert_eq!(again, bytes[..Request::BYTES]);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let facts = Facts { size: 1 << 40, block_bytes: 512, access, multi_conn: true };
        for (structured, allocation) in [(false, false), (true, false), (true, true)] {
            let verdict = judge(&request, &facts, structured, allocation);
            if let Verdict::Run(operation) = verdict {
                let inside = operation.range().is_none_or(|(offset, length)| {
                    offset.checked_add(length).is_some_and(|end| end <= facts.size)
                });
                assert!(inside, "{operation:?} leaves the disk");
                let writes = operation.changes();
                assert!(!writes || access == Access::ReadWrite, "{operation:?} on a view");
            }
        }
    }
}

/// The fixed part of a server's reply to an option.
fn option_reply(bytes: &[u8]) {
    let Some(header) = bytes.first_chunk() else { return };
    for option in [crate::proto::constants::OPT_LIST, crate::proto::constants::OPT_GO] {
        let _refused = OptionReply::decode(header, option);
    }
}

/// The fixed part of a server's answer.
fn reply_header(bytes: &[u8]) {
    if let Ok(ReplyHeader::Chunk { length, .. }) = ReplyHeader::decode(bytes) {
        assert!(length <= crate::proto::limits::CHUNK_BYTES_MAX);
    }
}

/// The payloads of a server's chunks.
fn chunks(bytes: &[u8]) {
    let _hole = decode_offset_hole(bytes);
    if let Ok((_, data)) = decode_offset_data(Bytes::copy_from_slice(bytes)) {
        assert_eq!(data.len() + 8, bytes.len());
    }
    if let Ok((_, message)) = decode_error_chunk(bytes) {
        // Each byte that is no UTF-8 becomes a sign of three.
        assert!(message.len() <= 3 * crate::proto::limits::STRING_BYTES_MAX);
    }
    if let Ok(status) = decode_block_status(bytes) {
        assert_eq!(4 + 8 * status.extents.len(), bytes.len());
        assert!(status.extents.iter().all(|(length, _)| *length > 0));
    }
}
