use crate::cover::{Cover, extra, stored_len};
use crate::format::codec::{Reader, Writer};
use crate::format::{VERSION, plausible};
use crate::limits::FRAME_RECORDS_MAX;
use landfall_types::{Chain, Epoch, HEADER_BYTES, Incarnation, LogId, Lsn, RecordHeader};

const MAGIC: &[u8; 8] = b"LFLOGFRM";
/// Bytes of a frame's header; its payload follows at once.
pub(crate) const FRAME_HEADER_BYTES: usize = 160;
const CRC_AT: usize = FRAME_HEADER_BYTES - 4;
/// Where the CRC of the table stands: what is before is known when the table is sealed.
const TABLE_CRC_AT: usize = 136;
/// The flag of a frame that is sealed.
const SEALED: u16 = 1;

/// The fixed part of a frame: some records of one epoch and one incarnation, written at once.
///
/// Behind it: the payloads of all records without gaps (each sealed by itself, where the log is),
/// then the table of their headers, then zeroes to the next sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    /// Payloads and table are sealed.
    pub(crate) sealed: bool,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    /// Where it stands in the segment: a misdirected write is found out.
    pub(crate) offset: u32,
    pub(crate) records: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) table_crc: u32,
    pub(crate) first: Lsn,
    /// Every record up to here was durable when this frame was written: where one is missing, the
    /// log is corrupt.
    pub(crate) floor: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) source_position: u64,
    pub(crate) chain_before: Chain,
    pub(crate) chain_after: Chain,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut block = [0; FRAME_HEADER_BYTES];
        Writer::new(&mut block)
            .bytes(MAGIC)
            .u16(VERSION)
            .u16(u16::from(self.sealed))
            .u32(self.records)
            .u64(self.salt)
            .u64(self.segment)
            .u32(self.offset)
            .u32(self.payload_bytes)
            .lsn(self.first)
            .lsn(self.floor)
            .epoch(&self.epoch)
            .u64(self.incarnation.get())
            .u64(self.source_position)
            .chain(&self.chain_before)
            .chain(&self.chain_after)
            .u32(self.table_crc);
        let crc = crc32c::crc32c(&block[..CRC_AT]);
        block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// `None` for anything that is not an intact frame header at `offset` of the segment with this
    /// salt.
    pub(crate) fn decode(
        block: &[u8; FRAME_HEADER_BYTES],
        segment: u64,
        salt: u64,
        offset: u64,
    ) -> Option<Self> {
        let header = Self::decode_any(block)?;
        let ours =
            header.segment == segment && header.salt == salt && u64::from(header.offset) == offset;
        ours.then_some(header)
    }

    /// `None` for anything that is not an intact frame header of some segment.
    pub(crate) fn decode_any(block: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let mut crc = [0; 4];
        crc.copy_from_slice(&block[CRC_AT..]);
        if &block[..8] != MAGIC || crc32c::crc32c(&block[..CRC_AT]) != u32::from_le_bytes(crc) {
            return None;
        }
        let mut reader = Reader::new(&block[8..]);
        let version = reader.u16();
        let flags = reader.u16();
        let records = reader.u32();
        let (found_salt, found_segment) = (reader.u64(), reader.u64());
        let header = Self {
            sealed: flags == SEALED,
            segment: found_segment,
            salt: found_salt,
            offset: reader.u32(),
            records,
            payload_bytes: reader.u32(),
            first: reader.lsn(),
            floor: reader.lsn(),
            epoch: reader.epoch(),
            incarnation: reader.incarnation(),
            source_position: reader.u64(),
            chain_before: reader.chain(),
            chain_after: reader.chain(),
            table_crc: reader.u32(),
        };
        let sane = version == VERSION
            && flags <= SEALED
            && (1..=FRAME_RECORDS_MAX).contains(&(records as usize))
            && header.first > Lsn::ZERO
            && plausible(header.first)
            && plausible(header.floor);
        sane.then_some(header)
    }

    /// Where the table begins, bytes from the segment's start.
    pub(crate) fn table_offset(&self) -> u64 {
        self.payload_offset() + u64::from(self.payload_bytes)
    }

    /// Where the payload begins, bytes from the segment's start.
    pub(crate) fn payload_offset(&self) -> u64 {
        u64::from(self.offset) + FRAME_HEADER_BYTES as u64
    }

    /// Bytes of the table.
    pub(crate) const fn table_bytes(&self) -> usize {
        self.records as usize * HEADER_BYTES + extra(self.sealed)
    }

    /// What the seal of the table vouches for beside the table.
    pub(crate) fn sealed_part(&self) -> [u8; TABLE_CRC_AT] {
        *self.encode().first_chunk().expect("the header is longer")
    }

    /// Where the frame ends, before the padding.
    pub(crate) fn end(&self) -> u64 {
        self.table_offset() + self.table_bytes() as u64
    }

    /// LSN of its last record.
    pub(crate) const fn last(&self) -> Lsn {
        self.first.plus(self.records as u64 - 1)
    }

    /// The record headers from the bytes of the table, when checksum, positions, lengths and chain
    /// all fit.
    pub(crate) fn decode_table(
        &self,
        cover: &Cover,
        log: LogId,
        stored: &[u8],
    ) -> Option<Vec<RecordHeader>> {
        if stored.len() != self.table_bytes() || crc32c::crc32c(stored) != self.table_crc {
            return None;
        }
        let table = cover.table(log, self, stored)?;
        let mut chain = self.chain_before;
        let mut expected = self.first;
        let mut payload = 0;
        let mut headers = Vec::with_capacity(self.records as usize);
        for raw in table.as_chunks::<HEADER_BYTES>().0 {
            let header = RecordHeader::decode(raw).ok().filter(|header| header.lsn == expected)?;
            chain = chain.extend(raw);
            expected = expected.next();
            payload += stored_len(&header, self.sealed);
            headers.push(header);
        }
        let fits = chain == self.chain_after && payload == u64::from(self.payload_bytes);
        fits.then_some(headers)
    }
}
