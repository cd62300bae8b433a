//! The body of a batch: fixed fields, then the record headers, then the payloads; the last two may
//! be compressed.

use crate::DecodeError;
use crate::encoder::{EncodeError, Squeeze};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use landfall_repl::Batch;
use landfall_repl::limits::BATCH_BYTES_MAX;
use landfall_types::{Chain, Epoch, EpochId, HEADER_BYTES, Incarnation, Record, RecordHeader};

/// Bytes of the fixed fields.
pub(crate) const PREFIX_BYTES: usize = 72;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const KIND: &str = "batch";

pub(crate) fn encode(batch: &Batch, squeeze: &mut Squeeze) -> Result<Vec<Bytes>, EncodeError> {
    let expanded = batch.bytes();
    if expanded > BATCH_BYTES_MAX {
        let (length, max) = (expanded, BATCH_BYTES_MAX);
        return Err(EncodeError::TooLong { kind: KIND, length, max });
    }
    let mut table = BytesMut::with_capacity(batch.records.len() * HEADER_BYTES);
    for record in &batch.records {
        table.put_slice(&record.header.encode());
    }
    let table = table.freeze();
    let payloads = || batch.records.iter().map(|record| &record.payload).filter(|p| !p.is_empty());
    let squeezed = squeeze.try_squeeze(expanded, || {
        let mut whole = BytesMut::with_capacity(expanded);
        whole.put_slice(&table);
        payloads().for_each(|payload| whole.put_slice(payload));
        whole
    });
    let codec = if squeezed.is_some() { CODEC_ZSTD } else { CODEC_NONE };
    let mut parts = vec![prefix(batch, codec, expanded)];
    match squeezed {
        Some(squeezed) => parts.push(squeezed),
        None => {
            parts.push(table);
            parts.extend(payloads().cloned());
        }
    }
    Ok(parts)
}

fn prefix(batch: &Batch, codec: u8, expanded: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES);
    out.put_u8(codec);
    out.put_u8(batch.epoch.parent.is_some().into());
    out.put_u16_le(0);
    out.put_u32_le(u32::try_from(batch.records.len()).expect("bounded by the batch's bytes"));
    out.put_u64_le(batch.epoch.number);
    out.put_u64_le(batch.epoch.id.get());
    out.put_u64_le(batch.epoch.parent.map_or(0, EpochId::get));
    out.put_u64_le(batch.incarnation.get());
    out.put_slice(batch.chain_before.as_bytes());
    out.put_u64_le(batch.source_position);
    out.put_u32_le(u32::try_from(expanded).expect("batches are bounded far below 4 GiB"));
    out.put_u32_le(0);
    debug_assert_eq!(out.len(), PREFIX_BYTES);
    out.freeze()
}

pub(crate) fn decode(mut body: Bytes) -> Result<Batch, DecodeError> {
    if body.len() < PREFIX_BYTES {
        return Err(malformed("shorter than its fixed fields"));
    }
    let codec = body.get_u8();
    let has_parent = body.get_u8();
    let reserved = body.get_u16_le();
    let count = body.get_u32_le() as usize;
    let (number, id, parent) = (body.get_u64_le(), body.get_u64_le(), body.get_u64_le());
    let incarnation = Incarnation::new(body.get_u64_le());
    let mut chain = [0; 16];
    body.copy_to_slice(&mut chain);
    let source_position = body.get_u64_le();
    let expanded = body.get_u32_le() as usize;
    if has_parent > 1 || (has_parent == 0 && parent != 0) || reserved != 0 || body.get_u32_le() != 0
    {
        return Err(malformed("reserved bytes"));
    }
    if count == 0 || expanded > BATCH_BYTES_MAX || count > expanded / HEADER_BYTES {
        return Err(malformed("number of records or length out of bounds"));
    }
    let parent = (has_parent == 1).then_some(EpochId::new(parent));
    Ok(Batch {
        epoch: Epoch { number, id: EpochId::new(id), parent },
        incarnation,
        chain_before: Chain::from_bytes(chain),
        source_position,
        records: records(expand(KIND, codec, body, expanded)?, count)?,
    })
}

/// `expanded` is bounded by the caller, so a small frame can't ask for much memory.
pub(crate) fn expand(
    kind: &'static str,
    codec: u8,
    body: Bytes,
    expanded: usize,
) -> Result<Bytes, DecodeError> {
    let malformed = |what| DecodeError::Malformed { kind, what };
    match codec {
        CODEC_NONE if body.len() == expanded => Ok(body),
        CODEC_NONE => Err(malformed("length is not the announced one")),
        CODEC_ZSTD => {
            let failed = |source| DecodeError::Expand { announced: expanded, source };
            let whole = zstd::bulk::decompress(&body, expanded).map_err(|e| failed(Some(e)))?;
            if whole.len() != expanded {
                return Err(failed(None));
            }
            Ok(Bytes::from(whole))
        }
        _ => Err(malformed("unknown codec")),
    }
}

/// The table of headers, then the payloads in the same order; each payload is a slice of the frame,
/// not a copy.
fn records(mut whole: Bytes, count: usize) -> Result<Vec<Record>, DecodeError> {
    let table = whole.split_to(count * HEADER_BYTES);
    let mut records = Vec::with_capacity(count);
    for raw in table.as_chunks::<HEADER_BYTES>().0 {
        let header = RecordHeader::decode(raw).map_err(DecodeError::Record)?;
        let length = usize::try_from(header.payload_len()).unwrap_or(usize::MAX);
        if length > whole.len() {
            return Err(malformed("payloads are shorter than the headers say"));
        }
        records.push(Record { header, payload: whole.split_to(length) });
    }
    if !whole.is_empty() {
        return Err(malformed("bytes after the last payload"));
    }
    Ok(records)
}

const fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Malformed { kind: KIND, what }
}
