//! The index of a sealed segment: its record table, its frames, and its control records. Those can
//! be read without the rest.

use crate::Position;
use crate::cover::{Cover, Covering as _, extra};
use crate::format::VERSION;
use crate::format::codec::{EPOCH_BYTES, Reader, Writer};
use crate::limits::CHECKPOINT_RECORDS;
use crate::table::{FrameSlot, Producer, Slot, Table, TableParts, index_u32};
use landfall_crypt::Batch;
use landfall_types::control::CONTROL_BYTES_MAX;
use landfall_types::{Chain, Control, HEADER_BYTES, LogId, Lsn, RecordHeader, RecordKind};

const MAGIC: &[u8; 8] = b"LFLOGIDX";
/// Bytes of the index's header.
pub(crate) const INDEX_HEADER_BYTES: usize = 128;
const CRC_AT: usize = INDEX_HEADER_BYTES - 4;

const SLOT_BYTES: usize = HEADER_BYTES + 4;
const FRAME_BYTES: usize = 24;
const PRODUCER_BYTES: usize = EPOCH_BYTES + 8;
const CHAIN_BYTES: usize = 16;
const CONTROL_HEAD_BYTES: usize = 8;
const BODY_CRC_AT: usize = 52;
const CONTROLS_CRC_AT: usize = 72;
/// The flag of an index whose body is sealed.
const SEALED: u16 = 1;
/// Names of the two parts of a body that is sealed.
const RECORDS_PART: &[u8] = b"records";
const CONTROLS_PART: &[u8] = b"controls";

/// How much an index holds: enough to know its size before it is made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct IndexSize {
    pub(crate) records: usize,
    pub(crate) frames: usize,
    pub(crate) producers: usize,
    pub(crate) controls: usize,
    pub(crate) control_bytes: usize,
    /// Both parts of the body are sealed.
    pub(crate) sealed: bool,
}

impl IndexSize {
    /// Of a segment that holds nothing.
    pub(crate) fn empty(sealed: bool) -> Self {
        Self { sealed, ..Self::default() }
    }

    /// Bytes of header and body.
    pub(crate) const fn bytes(&self) -> usize {
        INDEX_HEADER_BYTES
            + self.records * SLOT_BYTES
            + self.frames * FRAME_BYTES
            + self.producers * PRODUCER_BYTES
            + (self.records / CHECKPOINT_RECORDS + 1) * CHAIN_BYTES
            + extra(self.sealed)
            + self.controls_bytes()
    }

    /// Bytes of the control records, which stand last.
    const fn controls_bytes(&self) -> usize {
        self.controls * CONTROL_HEAD_BYTES + self.control_bytes + extra(self.sealed)
    }
}

/// Which segment an index belongs to and where it stands there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexPlace {
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) offset: u32,
}

/// Header and body.
pub(crate) fn encode(
    table: &Table,
    log: LogId,
    place: IndexPlace,
    mut batch: Option<Batch>,
) -> Vec<u8> {
    let controls: Vec<(u32, bytes::Bytes)> = table
        .controls()
        .iter()
        .map(|(lsn, control)| (record_number(table.base(), *lsn), control.encode()))
        .collect();
    let size = IndexSize {
        records: table.len(),
        frames: table.frames().len(),
        producers: table.producers().len(),
        controls: controls.len(),
        control_bytes: controls.iter().map(|(_, bytes)| bytes.len()).sum(),
        sealed: batch.is_some(),
    };
    let mut out = vec![0; size.bytes()];
    let (head, body) = out.split_at_mut(INDEX_HEADER_BYTES);
    let (records_part, controls_part) = body.split_at_mut(body.len() - size.controls_bytes());
    let within = |part: &[u8]| batch.head()..part.len() - (batch.extra() - batch.head());
    let (records_at, controls_at) = (within(records_part), within(controls_part));
    encode_records(table, &mut records_part[records_at]);
    encode_controls(&controls, &mut controls_part[controls_at]);
    encode_head(head, place, size, table.chain());
    let known = known_part(head);
    batch.cover_index((log, place), (RECORDS_PART, &known), records_part);
    batch.cover_index((log, place), (CONTROLS_PART, &known), controls_part);
    let (controls_crc, body_crc) = (crc32c::crc32c(controls_part), crc32c::crc32c(body));
    head[BODY_CRC_AT..BODY_CRC_AT + 4].copy_from_slice(&body_crc.to_le_bytes());
    head[CONTROLS_CRC_AT..CONTROLS_CRC_AT + 4].copy_from_slice(&controls_crc.to_le_bytes());
    let crc = crc32c::crc32c(&head[..CRC_AT]);
    head[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// All fields but the CRCs.
fn encode_head(head: &mut [u8], place: IndexPlace, size: IndexSize, chain: Chain) {
    Writer::new(head)
        .bytes(MAGIC)
        .u16(VERSION)
        .u16(u16::from(size.sealed))
        .u32(index_u32(size.records))
        .u64(place.salt)
        .u64(place.segment)
        .u32(place.offset)
        .u32(index_u32(size.frames))
        .u32(index_u32(size.producers))
        .u32(index_u32(size.controls))
        .u32(index_u32(size.control_bytes))
        .u32(0)
        .chain(&chain)
        .u32(0);
}

/// What of the header the seals of the parts vouch for: all but the CRCs.
fn known_part(head: &[u8]) -> [u8; CONTROLS_CRC_AT] {
    let mut known = *head.first_chunk().expect("the header is longer");
    let crc: &mut [u8] = &mut known[BODY_CRC_AT..BODY_CRC_AT + 4];
    crc.fill(0);
    known
}

fn encode_records(table: &Table, out: &mut [u8]) {
    let mut writer = Writer::new(out);
    for (number, slot) in table.slots().iter().enumerate() {
        let lsn = table.base().lsn.plus(number as u64 + 1);
        writer.bytes(&slot.header(lsn).encode()).u32(slot.payload_at);
    }
    for frame in table.frames() {
        writer.u32(frame.offset).u32(frame.first).u32(frame.stamp).u32(0);
        writer.u64(frame.source_position);
    }
    for producer in table.producers() {
        writer.epoch(&producer.epoch).u64(producer.incarnation.get());
    }
    for chain in table.checkpoints() {
        writer.chain(chain);
    }
    debug_assert_eq!(writer.at(), out.len());
}

fn encode_controls(controls: &[(u32, bytes::Bytes)], out: &mut [u8]) {
    let mut writer = Writer::new(out);
    for (number, bytes) in controls {
        writer.u32(*number).u32(index_u32(bytes.len())).bytes(bytes);
    }
    debug_assert_eq!(writer.at(), out.len());
}

/// What the head of an index says, and its control records.
#[derive(Debug)]
pub(crate) struct IndexHead {
    pub(crate) records: usize,
    /// The chain after its last record.
    pub(crate) chain: Chain,
    pub(crate) controls: Vec<(Lsn, Control)>,
}

/// The fields of an index's header.
struct Head {
    place: IndexPlace,
    size: IndexSize,
    body_crc: u32,
    chain: Chain,
    controls_crc: u32,
}

fn read_head(head: &[u8]) -> Option<Head> {
    let mut crc = [0; 4];
    crc.copy_from_slice(head.get(CRC_AT..INDEX_HEADER_BYTES)?);
    if &head[..8] != MAGIC || crc32c::crc32c(&head[..CRC_AT]) != u32::from_le_bytes(crc) {
        return None;
    }
    let mut reader = Reader::new(&head[8..]);
    let version = reader.u16();
    let flags = reader.u16();
    let records = reader.u32() as usize;
    let place = IndexPlace { salt: reader.u64(), segment: reader.u64(), offset: reader.u32() };
    let size = IndexSize {
        records,
        frames: reader.u32() as usize,
        producers: reader.u32() as usize,
        controls: reader.u32() as usize,
        control_bytes: reader.u32() as usize,
        sealed: flags == SEALED,
    };
    let (body_crc, chain, controls_crc) = (reader.u32(), reader.chain(), reader.u32());
    (version == VERSION && flags <= SEALED).then_some(Head {
        place,
        size,
        body_crc,
        chain,
        controls_crc,
    })
}

/// Bytes of the control records of an index of `length` bytes, which stand last in it; `None` for a
/// header that [`encode`] did not make for this place and length.
pub(crate) fn controls_size(head: &[u8], place: IndexPlace, length: usize) -> Option<usize> {
    let head = read_head(head)?;
    (head.place == place && head.size.bytes() == length).then(|| head.size.controls_bytes())
}

/// A header that [`controls_size`] has checked, and the control records of the segment that begins
/// behind `base`.
pub(crate) fn decode_head(
    head: &[u8],
    controls: &[u8],
    cover: &Cover,
    (log, base): (LogId, Lsn),
) -> Option<IndexHead> {
    let Head { place, size, chain, controls_crc, .. } = read_head(head)?;
    base.get().checked_add(size.records as u64)?;
    if crc32c::crc32c(controls) != controls_crc {
        return None;
    }
    let known = known_part(head);
    let controls =
        cover.index_part((log, place), (CONTROLS_PART, &known), size.sealed, controls)?;
    let controls = decode_controls(&controls, size, base)?;
    Some(IndexHead { records: size.records, chain, controls })
}

/// The table of the segment that begins at `base`; `None` for anything that [`encode`] did not make
/// for this place.
pub(crate) fn decode(
    bytes: &[u8],
    cover: &Cover,
    (log, place): (LogId, IndexPlace),
    base: Position,
) -> Option<Table> {
    let (head, body) = bytes.split_at_checked(INDEX_HEADER_BYTES)?;
    let Head { place: found, size, body_crc, chain, .. } = read_head(head)?;
    let intact = found == place && size.bytes() == bytes.len() && crc32c::crc32c(body) == body_crc;
    if !intact {
        return None;
    }
    let (records, controls) =
        body.split_at_checked(body.len().checked_sub(size.controls_bytes())?)?;
    let known = known_part(head);
    let open = |part, stored| cover.index_part((log, place), (part, &known), size.sealed, stored);
    let records = open(RECORDS_PART, records)?;
    let controls = open(CONTROLS_PART, controls)?;
    let parts = decode_body(&records, &controls, size, base, chain)?;
    Some(Table::from_parts(base, parts))
}

/// The CRC has shown that it is what was written; the checks here are against a defect of the
/// writer, and keep every later use of the table free of panics.
fn decode_body(
    records: &[u8],
    controls: &[u8],
    size: IndexSize,
    base: Position,
    chain: Chain,
) -> Option<TableParts> {
    let mut reader = Reader::new(records);
    base.lsn.get().checked_add(size.records as u64)?;
    let mut slots = Vec::with_capacity(size.records);
    let mut expected = base.lsn;
    for _ in 0..size.records {
        expected = expected.next();
        let header = RecordHeader::decode(&reader.array()).ok().filter(|h| h.lsn == expected)?;
        slots.push(Slot::new(&header, reader.u32()));
    }
    let mut frames: Vec<FrameSlot> = Vec::with_capacity(size.frames);
    for _ in 0..size.frames {
        let (offset, first, stamp, _) = (reader.u32(), reader.u32(), reader.u32(), reader.u32());
        let rises = frames.last().map_or(first == 0, |before| before.first < first);
        let inside = (first as usize) < size.records && (stamp as usize) < size.producers;
        if !rises || !inside {
            return None;
        }
        frames.push(FrameSlot { offset, first, stamp, source_position: reader.u64() });
    }
    if frames.is_empty() != slots.is_empty() {
        return None;
    }
    let producers = (0..size.producers)
        .map(|_| Producer { epoch: reader.epoch(), incarnation: reader.incarnation() })
        .collect();
    let checkpoints = (0..=size.records / CHECKPOINT_RECORDS).map(|_| reader.chain()).collect();
    let controls = decode_controls(controls, size, base.lsn)?;
    let is_control = |lsn: &Lsn| {
        let slot = &slots[index_of(base.lsn, *lsn)];
        slot.header(*lsn).kind == RecordKind::Control
    };
    if !controls.iter().all(|(lsn, _)| is_control(lsn)) {
        return None;
    }
    Some(TableParts { slots, frames, producers, checkpoints, controls, chain })
}

fn decode_controls(mut bytes: &[u8], size: IndexSize, base: Lsn) -> Option<Vec<(Lsn, Control)>> {
    let mut controls = Vec::with_capacity(size.controls.min(bytes.len()));
    for _ in 0..size.controls {
        let (head, rest) = bytes.split_at_checked(CONTROL_HEAD_BYTES)?;
        let mut reader = Reader::new(head);
        let (number, length) = (reader.u32(), reader.u32() as usize);
        let (payload, rest) = rest.split_at_checked(length.min(CONTROL_BYTES_MAX + 1))?;
        if number as usize >= size.records {
            return None;
        }
        controls.push((base.plus(u64::from(number) + 1), Control::decode(payload).ok()?));
        bytes = rest;
    }
    bytes.is_empty().then_some(controls)
}

/// How-manieth record of its segment, from 0: of one that is in it.
fn index_of(base: Lsn, lsn: Lsn) -> usize {
    usize::try_from(lsn.records_since(base) - 1).unwrap_or(usize::MAX)
}

/// How-manieth record of its segment, from 0.
fn record_number(base: &Position, lsn: Lsn) -> u32 {
    u32::try_from(lsn.records_since(base.lsn) - 1).expect("a segment has fewer than 2^32 records")
}
