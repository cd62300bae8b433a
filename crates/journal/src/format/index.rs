//! The index of a sealed segment: its record table in two orders, its frames, and its control
//! records.

use crate::Position;
use crate::format::VERSION;
use crate::format::codec::{EPOCH_BYTES, Reader, Writer};
use crate::limits::CHECKPOINT_RECORDS;
use crate::table::{FrameSlot, Producer, Slot, Table, TableParts, index_u32};
use landfall_types::control::CONTROL_BYTES_MAX;
use landfall_types::{Control, HEADER_BYTES, Lsn, RecordHeader, RecordKind};

const MAGIC: &[u8; 8] = b"LFLOGIDX";
/// Bytes of the index's header.
pub(crate) const INDEX_HEADER_BYTES: usize = 128;
const CRC_AT: usize = INDEX_HEADER_BYTES - 4;

const SLOT_BYTES: usize = HEADER_BYTES + 4;
const FRAME_BYTES: usize = 24;
const PRODUCER_BYTES: usize = EPOCH_BYTES + 8;
const CHAIN_BYTES: usize = 16;
const ORDER_BYTES: usize = 4;
const CONTROL_HEAD_BYTES: usize = 8;

/// How much an index holds: enough to know its size before it is made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct IndexSize {
    pub(crate) records: usize,
    pub(crate) frames: usize,
    pub(crate) producers: usize,
    pub(crate) controls: usize,
    pub(crate) control_bytes: usize,
}

impl IndexSize {
    /// Bytes of header and body.
    pub(crate) const fn bytes(&self) -> usize {
        INDEX_HEADER_BYTES
            + self.records * (SLOT_BYTES + ORDER_BYTES)
            + self.frames * FRAME_BYTES
            + self.producers * PRODUCER_BYTES
            + (self.records / CHECKPOINT_RECORDS + 1) * CHAIN_BYTES
            + self.controls * CONTROL_HEAD_BYTES
            + self.control_bytes
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
pub(crate) fn encode(table: &Table, place: IndexPlace) -> Vec<u8> {
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
    };
    let mut out = vec![0; size.bytes()];
    let (head, body) = out.split_at_mut(INDEX_HEADER_BYTES);
    encode_body(table, &controls, body);
    Writer::new(head)
        .bytes(MAGIC)
        .u16(VERSION)
        .u16(0)
        .u32(index_u32(size.records))
        .u64(place.salt)
        .u64(place.segment)
        .u32(place.offset)
        .u32(index_u32(size.frames))
        .u32(index_u32(size.producers))
        .u32(index_u32(size.controls))
        .u32(index_u32(size.control_bytes))
        .u32(crc32c::crc32c(body))
        .chain(&table.chain());
    let crc = crc32c::crc32c(&head[..CRC_AT]);
    head[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn encode_body(table: &Table, controls: &[(u32, bytes::Bytes)], body: &mut [u8]) {
    let mut writer = Writer::new(body);
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
    let mut order: Vec<u32> = (0..index_u32(table.len())).collect();
    order.sort_unstable_by_key(|number| (table.slots()[*number as usize].place(), *number));
    for number in order {
        writer.u32(number);
    }
    for (number, bytes) in controls {
        writer.u32(*number).u32(index_u32(bytes.len())).bytes(bytes);
    }
    debug_assert_eq!(writer.at(), body.len());
}

/// The table of the segment that begins at `base`; `None` for anything that [`encode`] did not make
/// for this place.
pub(crate) fn decode(bytes: &[u8], place: IndexPlace, base: Position) -> Option<Table> {
    let (head, body) = bytes.split_at_checked(INDEX_HEADER_BYTES)?;
    let mut crc = [0; 4];
    crc.copy_from_slice(&head[CRC_AT..]);
    if &head[..8] != MAGIC || crc32c::crc32c(&head[..CRC_AT]) != u32::from_le_bytes(crc) {
        return None;
    }
    let mut reader = Reader::new(&head[8..]);
    let version = reader.u16();
    let _reserved = reader.u16();
    let records = reader.u32() as usize;
    let found = IndexPlace { salt: reader.u64(), segment: reader.u64(), offset: reader.u32() };
    let size = IndexSize {
        records,
        frames: reader.u32() as usize,
        producers: reader.u32() as usize,
        controls: reader.u32() as usize,
        control_bytes: reader.u32() as usize,
    };
    let body_crc = reader.u32();
    let chain = reader.chain();
    let intact = version == VERSION
        && found == place
        && size.bytes() == bytes.len()
        && crc32c::crc32c(body) == body_crc;
    if !intact {
        return None;
    }
    let parts = decode_body(body, size, base, chain)?;
    Some(Table::from_parts(base, parts))
}

/// The CRC has shown that it is what was written; the checks here are against a defect of the
/// writer, and keep every later use of the table free of panics.
fn decode_body(
    body: &[u8],
    size: IndexSize,
    base: Position,
    chain: landfall_types::Chain,
) -> Option<TableParts> {
    let mut reader = Reader::new(body);
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
    check_order(&mut reader, &slots)?;
    let rest = size.controls * CONTROL_HEAD_BYTES + size.control_bytes;
    let controls = decode_controls(&body[body.len() - rest..], size, base.lsn, &slots)?;
    Some(TableParts { slots, frames, producers, checkpoints, controls, chain })
}

/// Every record exactly once, sorted by place: strictly rising keys leave no other possibility.
fn check_order(reader: &mut Reader<'_>, slots: &[Slot]) -> Option<()> {
    let mut before = None;
    for _ in slots {
        let number = reader.u32();
        let key = Some((slots.get(number as usize)?.place(), number));
        if key <= before {
            return None;
        }
        before = key;
    }
    Some(())
}

fn decode_controls(
    mut bytes: &[u8],
    size: IndexSize,
    base: Lsn,
    slots: &[Slot],
) -> Option<Vec<(Lsn, Control)>> {
    let mut controls = Vec::with_capacity(size.controls);
    for _ in 0..size.controls {
        let (head, rest) = bytes.split_at_checked(CONTROL_HEAD_BYTES)?;
        let mut reader = Reader::new(head);
        let (number, length) = (reader.u32(), reader.u32() as usize);
        let (payload, rest) = rest.split_at_checked(length.min(CONTROL_BYTES_MAX + 1))?;
        let lsn = base.plus(u64::from(number) + 1);
        let header = slots.get(number as usize)?.header(lsn);
        if header.kind != RecordKind::Control {
            return None;
        }
        controls.push((lsn, Control::decode(payload).ok()?));
        bytes = rest;
    }
    bytes.is_empty().then_some(controls)
}

/// How-manieth record of its segment, from 0.
fn record_number(base: &Position, lsn: Lsn) -> u32 {
    u32::try_from(lsn.records_since(base.lsn) - 1).expect("a segment has fewer than 2^32 records")
}
