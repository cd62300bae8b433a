//! Decoders take any bytes: random ones, and good ones with a few bytes changed whose checksums fit
//! again.

use crate::Position;
use crate::cover::Cover;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::index::{self, INDEX_HEADER_BYTES, IndexPlace};
use crate::format::segment::{SegmentHeader, Trailer};
use crate::format::superblock::Superblock;
use crate::format::{BLOCK_BYTES, BLOCK_CRC_AT, NotOurs, VERSION};
use crate::table::{Producer, Table};
use landfall_testkit::{Rng, seed};
use landfall_types::{
    Chain, Control, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Record, ReplicaId,
    WindowClose, WindowId,
};

const ROUNDS: u64 = 3000;

fn position(rng: &mut Rng) -> Position {
    let mut chain = [0; 16];
    rng.fill(&mut chain);
    Position {
        lsn: Lsn::new(rng.below(1 << 50)),
        chain: Chain::from_bytes(chain),
        epoch: epoch(rng),
        incarnation: Incarnation::new(rng.next_u64()),
        source_position: rng.next_u64(),
    }
}

/// Plain logs don't look at it.
const NO_LOG: LogId = LogId::from_bytes([0; 16]);

fn plain() -> Cover {
    Cover::default()
}

fn epoch(rng: &mut Rng) -> Epoch {
    let parent = rng.one_in(2).then(|| EpochId::new(rng.next_u64()));
    Epoch { number: rng.next_u64(), id: EpochId::new(rng.next_u64()), parent }
}

fn superblock(rng: &mut Rng) -> Superblock {
    let base = position(rng);
    Superblock {
        sequence: rng.next_u64(),
        sector_bytes: if rng.one_in(2) { 512 } else { 4096 },
        log: LogId::generate(),
        replica: ReplicaId::generate(),
        segment_bytes: 4096 * (8 + rng.below(1000)),
        epoch: base.epoch,
        first_segment: rng.next_u64(),
        base: base.lsn,
        base_chain: base.chain,
        floor: Lsn::new(rng.next_u64() >> 1),
        key_check: if rng.one_in(2) { [0; 16] } else { [7; 16] },
    }
}

fn segment_header(rng: &mut Rng) -> SegmentHeader {
    SegmentHeader {
        sector_bytes: 512,
        log: LogId::generate(),
        sequence: rng.next_u64(),
        salt: rng.next_u64(),
        base: position(rng),
    }
}

fn record(rng: &mut Rng, lsn: Lsn) -> Record {
    let (disk, offset) = (DiskIndex(rng.below(4) as u16), rng.below(1 << 40));
    match rng.below(6) {
        0 => Record::zero(lsn, disk, offset, rng.below(1 << 40)),
        1 => Record::discard(lsn, disk, offset, rng.below(1 << 40)),
        2 => {
            let (window, exact) = (WindowId(rng.next_u64()), rng.one_in(2));
            Record::control(lsn, &Control::WindowClose(WindowClose { window, exact }))
        }
        _ => {
            let mut data = vec![0; 1 + rng.below(100) as usize];
            rng.fill(&mut data);
            Record::write(lsn, disk, offset, data.into())
        }
    }
}

fn table(rng: &mut Rng) -> Table {
    let mut table = Table::new(position(rng));
    let mut at = 512;
    for _ in 0..rng.below(6) {
        let incarnation = Incarnation::new(rng.below(2));
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        table.begin_frame(at, Producer { epoch, incarnation }, rng.next_u64());
        for _ in 0..=rng.below(60) {
            let record = record(rng, table.tail_lsn().next());
            table.push(&record.header, at);
            if let Ok(control) = Control::decode(&record.payload) {
                table.push_control(record.header.lsn, control);
            }
            at += record.payload.len() as u32;
        }
    }
    table
}

/// Changes a few bytes below `limit`.
fn mutate(rng: &mut Rng, bytes: &mut [u8], limit: usize) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(limit as u64) as usize;
        bytes[at] =
            if rng.one_in(2) { bytes[at] ^ (1 << rng.below(8)) } else { rng.next_u64() as u8 };
    }
}

fn fix_block(block: &mut [u8; BLOCK_BYTES]) {
    let crc = crc32c::crc32c(&block[..BLOCK_CRC_AT]);
    block[BLOCK_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn blocks_round_trip_and_take_any_bytes() {
    let mut rng = Rng::new(seed("blocks"));
    for _ in 0..ROUNDS {
        let (superblock, segment) = (superblock(&mut rng), segment_header(&mut rng));
        let trailer = Trailer {
            sequence: rng.next_u64(),
            salt: rng.next_u64(),
            index_offset: rng.next_u64() as u32,
            index_bytes: rng.next_u64() as u32,
        };
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock.clone()));
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        assert_eq!(Superblock::decode(&segment.encode()), Err(NotOurs::Invalid));
        for mut block in [superblock.encode(), segment.encode(), trailer.encode()] {
            mutate(&mut rng, &mut block, BLOCK_BYTES);
            for _ in 0..2 {
                let _ = Superblock::decode(&block);
                let _ = SegmentHeader::decode(&block);
                let _ = Trailer::decode(&block);
                fix_block(&mut block);
            }
        }
    }
    assert_eq!(Superblock::decode(&[0; BLOCK_BYTES]), Err(NotOurs::Blank));
    let mut later = superblock(&mut rng).encode();
    later[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    fix_block(&mut later);
    assert_eq!(Superblock::decode(&later), Err(NotOurs::Version(VERSION + 1)));
}

/// A flipped bit is found wherever it is.
#[test]
fn every_bit_of_a_block_is_covered() {
    let mut rng = Rng::new(1);
    let good = segment_header(&mut rng).encode();
    for bit in 0..BLOCK_BYTES * 8 {
        let mut block = good;
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&block).is_err(), "bit {bit}");
    }
}

fn frame(rng: &mut Rng) -> (FrameHeader, Vec<u8>) {
    let before = position(rng);
    let count = 1 + rng.below(5);
    let records: Vec<Record> =
        (1..=count).map(|number| record(rng, before.lsn.plus(number))).collect();
    let table: Vec<u8> = records.iter().flat_map(|record| record.header.encode()).collect();
    let header = FrameHeader {
        sealed: false,
        segment: rng.next_u64(),
        salt: rng.next_u64(),
        offset: 512 * rng.below(1000) as u32,
        records: count as u32,
        payload_bytes: records.iter().map(|record| record.payload.len() as u32).sum(),
        table_crc: crc32c::crc32c(&table),
        first: before.lsn.next(),
        floor: before.lsn,
        epoch: before.epoch,
        incarnation: before.incarnation,
        source_position: before.source_position,
        chain_before: before.chain,
        chain_after: records.iter().fold(before.chain, |chain, record| record.chain(chain)),
    };
    (header, table)
}

/// Salt, segment and offset are part of what a frame is: one from elsewhere is none.
#[test]
fn frames_round_trip_and_belong_to_one_place() {
    let mut rng = Rng::new(seed("frames"));
    for _ in 0..ROUNDS {
        let (header, table) = frame(&mut rng);
        let block = header.encode();
        let (segment, salt, offset) = (header.segment, header.salt, u64::from(header.offset));
        assert_eq!(FrameHeader::decode(&block, segment, salt, offset), Some(header));
        assert_eq!(
            header.decode_table(&plain(), NO_LOG, &table).map(|records| records.len()),
            Some(header.records as usize)
        );
        assert_eq!(FrameHeader::decode(&block, segment ^ 1, salt, offset), None);
        assert_eq!(FrameHeader::decode(&block, segment, salt ^ 1, offset), None);
        assert_eq!(FrameHeader::decode(&block, segment, salt, offset + 512), None);
        let mut bad = table.clone();
        mutate(&mut rng, &mut bad, table.len());
        assert!(bad == table || header.decode_table(&plain(), NO_LOG, &bad).is_none());
        // Even with a checksum that fits, the chain finds it.
        let forged = FrameHeader { table_crc: crc32c::crc32c(&bad), ..header };
        assert!(bad == table || forged.decode_table(&plain(), NO_LOG, &bad).is_none());
        let mut block = header.encode();
        mutate(&mut rng, &mut block, FRAME_HEADER_BYTES - 4);
        let crc = crc32c::crc32c(&block[..FRAME_HEADER_BYTES - 4]);
        block[FRAME_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        if let Some(header) = FrameHeader::decode_any(&block) {
            let _ = (header.last(), header.end(), header.decode_table(&plain(), NO_LOG, &table));
        }
    }
}

/// What a mutated index decodes to may be wrong, if its checksums fit, but using it never panics.
#[test]
fn indexes_round_trip_and_take_any_bytes() {
    let mut rng = Rng::new(seed("indexes"));
    for _ in 0..ROUNDS / 10 {
        let table = table(&mut rng);
        let place = IndexPlace { segment: rng.next_u64(), salt: rng.next_u64(), offset: 4096 };
        let base = *table.base();
        let good = index::encode(&table, NO_LOG, place, None);
        assert_eq!(index::decode(&good, &plain(), (NO_LOG, place), base).as_ref(), Some(&table));
        assert_eq!(
            index::decode(
                &good,
                &plain(),
                (NO_LOG, IndexPlace { salt: place.salt ^ 1, ..place }),
                base
            ),
            None
        );
        assert_eq!(index::decode(&good[..good.len() - 1], &plain(), (NO_LOG, place), base), None);
        for _ in 0..30 {
            let mut bad = good.clone();
            let limit = if rng.one_in(3) { INDEX_HEADER_BYTES } else { bad.len() };
            mutate(&mut rng, &mut bad, limit);
            let body_crc = crc32c::crc32c(&bad[INDEX_HEADER_BYTES..]);
            bad[52..56].copy_from_slice(&body_crc.to_le_bytes());
            let head_crc = crc32c::crc32c(&bad[..INDEX_HEADER_BYTES - 4]);
            bad[INDEX_HEADER_BYTES - 4..INDEX_HEADER_BYTES]
                .copy_from_slice(&head_crc.to_le_bytes());
            if let Some(table) = index::decode(&bad, &plain(), (NO_LOG, place), base) {
                use_all(&table);
            }
        }
    }
    for length in 0..300 {
        let mut bytes = vec![0; length];
        rng.fill(&mut bytes);
        let place = IndexPlace { segment: 1, salt: 1, offset: 1 };
        assert_eq!(index::decode(&bytes, &plain(), (NO_LOG, place), position(&mut rng)), None);
    }
}

fn use_all(table: &Table) {
    let base = table.base().lsn;
    for number in 0..table.len() {
        let _ = table.entry(1, number);
        let _ = table.position_at(base.plus(number as u64 + 1));
        let _ = table.frame_end(table.frame_of(number));
    }
    let _ = table.tail();
}
