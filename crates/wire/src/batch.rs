//! The body of a batch: fixed fields, then the record headers, then the payloads; the last two may
//! be compressed, and the payloads against what the connection has carried before.

use crate::DecodeError;
use crate::encoder::{EncodeError, Encoder};
use crate::history::History;
use crate::squeeze::{Effort, against_history, expand_against};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use landfall_repl::Batch;
use landfall_repl::limits::BATCH_BYTES_MAX;
use landfall_types::{Chain, Epoch, EpochId, HEADER_BYTES, Incarnation, Record, RecordHeader};

/// Bytes of the fixed fields.
pub(crate) const PREFIX_BYTES: usize = 72;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const CODEC_HISTORY: u8 = 2;
/// Level for the table of headers, which is small and regular.
const TABLE_LEVEL: i32 = 3;
const KIND: &str = "batch";

pub(crate) fn encode(batch: &Batch, encoder: &mut Encoder) -> Result<Vec<Bytes>, EncodeError> {
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
    let squeezed = encoder.squeeze.effort(expanded).and_then(|effort| {
        let squeezed = squeeze(batch, &table, expanded, effort, &encoder.history);
        encoder.squeeze.judge(expanded, squeezed.1).map(|bytes| (squeezed.0, bytes))
    });
    let codec = squeezed.as_ref().map_or(CODEC_NONE, |(codec, _)| *codec);
    let mut parts = vec![prefix(batch, codec, expanded)];
    match squeezed {
        Some((_, squeezed)) => parts.push(squeezed),
        None => {
            parts.push(table);
            parts.extend(payloads(batch).cloned());
        }
    }
    encoder.history.learn(batch);
    Ok(parts)
}

fn payloads(batch: &Batch) -> impl Iterator<Item = &Bytes> {
    batch.records.iter().map(|record| &record.payload).filter(|payload| !payload.is_empty())
}

fn squeeze(
    batch: &Batch,
    table: &[u8],
    expanded: usize,
    effort: Effort,
    history: &History,
) -> (u8, Option<Bytes>) {
    let mut whole = BytesMut::with_capacity(expanded);
    if !(effort.history && history.is_on()) {
        whole.put_slice(table);
        payloads(batch).for_each(|payload| whole.put_slice(payload));
        // An error of the compressor costs bandwidth, nothing else: the frame goes out as it is.
        return (CODEC_ZSTD, zstd::bulk::compress(&whole, effort.level).ok().map(Bytes::from));
    }
    payloads(batch).for_each(|payload| whole.put_slice(payload));
    let headers: Vec<RecordHeader> = batch.records.iter().map(|record| record.header).collect();
    let squeezed = || {
        let table = zstd::bulk::compress(table, TABLE_LEVEL).ok()?;
        let payloads = against_history(history, &headers, &whole, effort.level)?;
        let mut out = BytesMut::with_capacity(4 + table.len() + payloads.len());
        out.put_u32_le(u32::try_from(table.len()).ok()?);
        out.put_slice(&table);
        out.put_slice(&payloads);
        Some(out.freeze())
    };
    (CODEC_HISTORY, squeezed())
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

pub(crate) fn decode(mut body: Bytes, history: &mut History) -> Result<Batch, DecodeError> {
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
    let records = if codec == CODEC_HISTORY {
        remembered(body, count, expanded, history)?
    } else {
        let mut whole = expand(KIND, codec, body, expanded)?;
        let headers = headers(&whole.split_to(count * HEADER_BYTES))?;
        records(&headers, whole)?
    };
    let batch = Batch {
        epoch: Epoch { number, id: EpochId::new(id), parent },
        incarnation,
        chain_before: Chain::from_bytes(chain),
        source_position,
        records,
    };
    history.learn(&batch);
    Ok(batch)
}

/// Length of the compressed table, the table, the payloads: the headers say which blocks the
/// payloads were compressed against.
fn remembered(
    mut body: Bytes,
    count: usize,
    expanded: usize,
    history: &History,
) -> Result<Vec<Record>, DecodeError> {
    if !history.is_on() {
        return Err(malformed("a history that was not agreed"));
    }
    if body.len() < 4 {
        return Err(malformed("shorter than its fixed fields"));
    }
    let table_bytes = body.get_u32_le() as usize;
    if table_bytes > body.len() {
        return Err(malformed("a table longer than the frame"));
    }
    let table = expand(KIND, CODEC_ZSTD, body.split_to(table_bytes), count * HEADER_BYTES)?;
    let headers = headers(&table)?;
    let announced = expanded - count * HEADER_BYTES;
    let claimed = headers.iter().map(RecordHeader::payload_len).fold(0, u64::saturating_add);
    if claimed != announced as u64 {
        return Err(malformed("payloads are not as long as the headers say"));
    }
    let whole = expand_against(history, &headers, &body, announced)
        .map_err(|what| DecodeError::History { announced, what })?;
    if whole.len() != announced {
        return Err(malformed("length is not the announced one"));
    }
    records(&headers, Bytes::from(whole))
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

fn headers(table: &[u8]) -> Result<Vec<RecordHeader>, DecodeError> {
    let rows = table.as_chunks::<HEADER_BYTES>().0;
    rows.iter().map(|row| RecordHeader::decode(row).map_err(DecodeError::Record)).collect()
}

/// The payloads in the order of the headers; each is a slice of the frame, not a copy.
fn records(headers: &[RecordHeader], mut payloads: Bytes) -> Result<Vec<Record>, DecodeError> {
    let mut records = Vec::with_capacity(headers.len());
    for header in headers {
        let length = usize::try_from(header.payload_len()).unwrap_or(usize::MAX);
        if length > payloads.len() {
            return Err(malformed("payloads are shorter than the headers say"));
        }
        records.push(Record { header: *header, payload: payloads.split_to(length) });
    }
    if !payloads.is_empty() {
        return Err(malformed("bytes after the last payload"));
    }
    Ok(records)
}

const fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Malformed { kind: KIND, what }
}
