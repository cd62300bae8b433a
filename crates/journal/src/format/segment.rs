use crate::Position;
use crate::format::codec::{Reader, Writer};
use crate::format::superblock::check_block;
use crate::format::{BLOCK_BYTES, BLOCK_CRC_AT, NotOurs, VERSION, plausible};
use landfall_types::LogId;

const MAGIC: &[u8; 8] = b"LFLOGSEG";
const TRAILER_MAGIC: &[u8; 8] = b"LFLOGEND";

/// The first sector of a segment file. Written and synced only when everything up to `base` is
/// durable: its existence proves that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) sector_bytes: u32,
    pub(crate) log: LogId,
    /// Rises by one with each segment of the log.
    pub(crate) sequence: u64,
    /// Random for each use of the file: frames of an earlier use are not ours.
    pub(crate) salt: u64,
    /// The position before its first record.
    pub(crate) base: Position,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        Writer::new(&mut block)
            .bytes(MAGIC)
            .u16(VERSION)
            .u16(0)
            .u32(self.sector_bytes)
            .bytes(self.log.as_bytes())
            .u64(self.sequence)
            .u64(self.salt)
            .lsn(self.base.lsn)
            .chain(&self.base.chain)
            .epoch(&self.base.epoch)
            .u64(self.base.incarnation.get())
            .u64(self.base.source_position);
        let crc = crc32c::crc32c(&block[..BLOCK_CRC_AT]);
        block[BLOCK_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, NotOurs> {
        check_block(block, MAGIC)?;
        let mut reader = Reader::new(&block[12..]);
        let header = Self {
            sector_bytes: reader.u32(),
            log: LogId::from_bytes(reader.array()),
            sequence: reader.u64(),
            salt: reader.u64(),
            base: Position {
                lsn: reader.lsn(),
                chain: reader.chain(),
                epoch: reader.epoch(),
                incarnation: reader.incarnation(),
                source_position: reader.u64(),
            },
        };
        let sane = matches!(header.sector_bytes, 512 | 4096) && plausible(header.base.lsn);
        if sane { Ok(header) } else { Err(NotOurs::Invalid) }
    }
}

/// The last sector of a sealed segment file: where its index is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    pub(crate) index_offset: u32,
    pub(crate) index_bytes: u32,
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        Writer::new(&mut block)
            .bytes(TRAILER_MAGIC)
            .u16(VERSION)
            .u16(0)
            .u32(0)
            .u64(self.sequence)
            .u64(self.salt)
            .u32(self.index_offset)
            .u32(self.index_bytes);
        let crc = crc32c::crc32c(&block[..BLOCK_CRC_AT]);
        block[BLOCK_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, NotOurs> {
        check_block(block, TRAILER_MAGIC)?;
        let mut reader = Reader::new(&block[16..]);
        Ok(Self {
            sequence: reader.u64(),
            salt: reader.u64(),
            index_offset: reader.u32(),
            index_bytes: reader.u32(),
        })
    }
}
