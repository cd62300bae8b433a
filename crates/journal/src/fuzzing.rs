//! Entry points for fuzzing: each takes any bytes and panics where a decoder does what it must not.
//! The same ones run under `cargo fuzz` (folder `fuzz/`) and, over the committed corpus and seeded
//! mutations of it, in the tests.
//!
//! Checksums are made right before decoding where that is said: what lies behind them would never
//! be reached otherwise.

use crate::cover::Cover;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::index::{self, IndexPlace};
use crate::format::segment::{SegmentHeader, Trailer};
use crate::format::superblock::Superblock;
use crate::format::{BLOCK_BYTES, BLOCK_CRC_AT};
use crate::{JournalError, Log, Position};
use landfall_blockdev::sim::SimMedium;
use landfall_types::{Chain, Epoch, EpochId, Incarnation, LogId, Lsn};

/// Plain logs don't look at it.
const NO_LOG: LogId = LogId::from_bytes([0; 16]);
/// Bytes of the superblock file that [`log`] takes from the front.
const SUPERBLOCK_BYTES: usize = 8192;

/// The CRC of the first `at` bytes is put behind them.
fn with_crc(bytes: &mut [u8], at: usize) {
    if let Some((covered, rest)) = bytes.split_at_mut_checked(at)
        && let Some(crc) = rest.first_chunk_mut::<4>()
    {
        *crc = crc32c::crc32c(covered).to_le_bytes();
    }
}

/// Superblock, segment header, trailer: what is decoded encodes to something that decodes to the
/// same, with its checksum as it is and made right.
pub fn block(data: &[u8]) {
    let Some(block) = data.first_chunk::<BLOCK_BYTES>() else { return };
    let mut right = *block;
    with_crc(&mut right, BLOCK_CRC_AT);
    for block in [*block, right] {
        if let Ok(found) = Superblock::decode(&block) {
            assert_eq!(Superblock::decode(&found.encode()), Ok(found));
        }
        if let Ok(found) = SegmentHeader::decode(&block) {
            assert_eq!(SegmentHeader::decode(&found.encode()), Ok(found));
        }
        if let Ok(found) = Trailer::decode(&block) {
            assert_eq!(Trailer::decode(&found.encode()), Ok(found));
        }
    }
}

/// A frame's header and its table, which stands where the header says.
pub fn frame(data: &[u8]) {
    let mut data = data.to_vec();
    frame_as_is(&data);
    with_crc(&mut data, FRAME_HEADER_BYTES - 4);
    frame_as_is(&data);
}

fn frame_as_is(data: &[u8]) {
    let Some(found) = data.first_chunk().and_then(FrameHeader::decode_any) else { return };
    assert_eq!(FrameHeader::decode_any(&found.encode()), Some(found));
    let at = FRAME_HEADER_BYTES.saturating_add(found.payload_bytes as usize);
    let table = data.get(at..).unwrap_or_default();
    let table = &table[..table.len().min(found.table_bytes())];
    if let Some(records) = found.decode_table(&Cover::default(), NO_LOG, table) {
        assert_eq!(records.len(), found.records as usize);
        assert!(records.iter().all(|record| (found.first..=found.last()).contains(&record.lsn)));
    }
}

/// A segment's index with the checksums of head and body made right.
pub fn index(data: &[u8]) {
    /// Where CRCs and the place stand (docs/formats/journal.md, *Index*).
    const HEAD_BYTES: usize = 128;
    let mut data = data.to_vec();
    if data.len() < HEAD_BYTES {
        return;
    }
    let body = crc32c::crc32c(&data[HEAD_BYTES..]).to_le_bytes();
    data[52..56].copy_from_slice(&body);
    with_crc(&mut data, HEAD_BYTES - 4);
    let u64_at = |at: usize| data[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
    let offset = data[32..].first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw));
    let place = IndexPlace { segment: u64_at(24), salt: u64_at(16), offset };
    // The corpus' indexes begin after one of these.
    for base in [0, 100, u64::MAX - 1] {
        let base = Position {
            lsn: Lsn::new(base),
            chain: Chain::from_bytes([5; 16]),
            epoch: Epoch { number: 1, id: EpochId::new(1), parent: None },
            incarnation: Incarnation::NONE,
            source_position: 0,
        };
        if let Some(table) = index::decode(&data, &Cover::default(), (NO_LOG, place), base) {
            assert!(table.tail_lsn() >= base.lsn);
            assert_eq!(table.position_at(base.lsn).map(|found| found.lsn), Some(base.lsn));
        }
    }
}

/// A whole log: the first 8192 bytes are its superblock, the rest is its segment. It is opened,
/// listed, salvaged, read, written and opened again; the headers' checksums are made right.
pub fn log(data: &[u8]) {
    let Some((superblock, segment)) = data.split_at_checked(SUPERBLOCK_BYTES) else { return };
    let (mut superblock, mut segment) = (superblock.to_vec(), segment.to_vec());
    with_crc(&mut superblock[..BLOCK_BYTES], BLOCK_CRC_AT);
    with_crc(&mut superblock[4096..4096 + BLOCK_BYTES], BLOCK_CRC_AT);
    with_crc(&mut segment, BLOCK_CRC_AT);
    let medium = SimMedium::new(512);
    for (name, bytes) in [("superblock", &superblock), ("segment-00000000", &segment)] {
        let file = medium.root().create(name).expect("nothing is there");
        file.write_at(0, bytes).expect("no fault is planned");
    }
    let _ = crate::inspect::inspect(&*medium.root(), crate::inspect::Depth::Payloads)
        .map(|found| (found.problems(), found.listing().to_string()));
    if let Ok(mut salvaged) = crate::salvage::salvage(&*medium.root()) {
        salvaged.verify(|_| {}).expect("no fault is planned");
    }
    let Ok((log, _)) = Log::open(medium.root()) else { return };
    let (base, _) = log.base();
    let tail = log.tail();
    for entry in log.entries(base, tail.lsn).expect("all that is kept") {
        match log.read(&entry) {
            Ok(bytes) => assert_eq!(bytes.len() as u64, entry.header.payload_len()),
            Err(JournalError::Corrupt { lsn, .. }) => assert_eq!(lsn, entry.header.lsn),
            Err(error) => panic!("{error}"),
        }
    }
    // Whatever it was: once opened it is a log, and stays one.
    let closed = log.close();
    drop(log);
    if closed.is_ok() {
        let (again, _) = Log::open(medium.root()).expect("it could be opened before");
        assert_eq!(again.tail(), tail);
    }
}
