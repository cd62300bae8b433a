use crate::cover::KeyCheck;
use crate::format::codec::{Reader, Writer, is_blank};
use crate::format::{BLOCK_BYTES, BLOCK_CRC_AT, NotOurs, VERSION, plausible};
use landfall_types::{Chain, Epoch, LogId, Lsn, ReplicaId};

/// Name of the file that holds both copies.
pub(crate) const FILE_NAME: &str = "superblock";
/// Distance of the two copies: they never share a physical sector.
pub(crate) const COPY_STRIDE: u64 = 4096;
/// How many copies.
pub(crate) const COPIES: u64 = 2;

const MAGIC: &[u8; 8] = b"LFLOGSUP";

/// What a log is, where it begins now, and what is known to have been durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    /// Rises with each update.
    pub(crate) sequence: u64,
    pub(crate) sector_bytes: u32,
    pub(crate) log: LogId,
    pub(crate) replica: ReplicaId,
    pub(crate) segment_bytes: u64,
    /// Epoch that the log was created with.
    pub(crate) epoch: Epoch,
    /// Sequence number of the oldest kept segment: what is below may be overwritten.
    pub(crate) first_segment: u64,
    /// The position before the oldest kept record.
    pub(crate) base: Lsn,
    /// The chain there.
    pub(crate) base_chain: Chain,
    /// Every record up to here has been durable: where one is missing, the log is corrupt.
    pub(crate) floor: Lsn,
    /// Tells the key that the content is sealed with from others; zeroes: it is not sealed.
    pub(crate) key_check: KeyCheck,
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        Writer::new(&mut block)
            .bytes(MAGIC)
            .u16(VERSION)
            .u16(0)
            .u32(self.sector_bytes)
            .u64(self.sequence)
            .bytes(self.log.as_bytes())
            .bytes(self.replica.as_bytes())
            .u64(self.segment_bytes)
            .epoch(&self.epoch)
            .u64(self.first_segment)
            .lsn(self.base)
            .chain(&self.base_chain)
            .lsn(self.floor)
            .bytes(&self.key_check);
        let crc = crc32c::crc32c(&block[..BLOCK_CRC_AT]);
        block[BLOCK_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    pub(crate) fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, NotOurs> {
        check_block(block, MAGIC)?;
        let mut reader = Reader::new(&block[12..]);
        let superblock = Self {
            sector_bytes: reader.u32(),
            sequence: reader.u64(),
            log: LogId::from_bytes(reader.array()),
            replica: ReplicaId::from_bytes(reader.array()),
            segment_bytes: reader.u64(),
            epoch: reader.epoch(),
            first_segment: reader.u64(),
            base: reader.lsn(),
            base_chain: reader.chain(),
            floor: reader.lsn(),
            key_check: reader.array(),
        };
        let sane = matches!(superblock.sector_bytes, 512 | 4096)
            && plausible(superblock.base)
            && plausible(superblock.floor)
            && crate::limits::segment_bytes(superblock.segment_bytes, superblock.sector_bytes)
                .is_ok();
        if sane { Ok(superblock) } else { Err(NotOurs::Invalid) }
    }
}

/// Checks blankness, CRC, magic and version of a superblock or segment header.
pub(crate) fn check_block(block: &[u8; BLOCK_BYTES], magic: &[u8; 8]) -> Result<(), NotOurs> {
    if is_blank(block) {
        return Err(NotOurs::Blank);
    }
    let mut crc = [0; 4];
    crc.copy_from_slice(&block[BLOCK_CRC_AT..]);
    if &block[..8] != magic || crc32c::crc32c(&block[..BLOCK_CRC_AT]) != u32::from_le_bytes(crc) {
        return Err(NotOurs::Invalid);
    }
    match u16::from_le_bytes([block[8], block[9]]) {
        VERSION => Ok(()),
        other => Err(NotOurs::Version(other)),
    }
}
