//! The log record: a 32-byte header and at most [`PAYLOAD_BYTES_MAX`] bytes of payload. Normative:
//! `docs/formats/records.md`.

use crate::{ByteRange, Chain, DiskIndex, Lsn};
use bytes::Bytes;

/// Size of an encoded [`RecordHeader`] in bytes.
pub const HEADER_BYTES: usize = 32;
/// Most bytes that one record carries; a larger write becomes several records.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// What a record does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// Bytes written to a disk.
    Write = 1,
    /// A range that reads as zeroes from here on.
    Zero = 2,
    /// A range given up; reads as zeroes in the replica, and is never compared by bytes (trap
    /// T-23).
    Discard = 3,
    /// A [`crate::Control`]: marker, window, geometry.
    Control = 4,
}

/// The fixed part of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// What it does.
    pub kind: RecordKind,
    /// The record is catch-up data: content that the source already had, not a new write (design
    /// section 4).
    pub catch_up: bool,
    /// Which disk; 0 for control records.
    pub disk: DiskIndex,
    /// CRC-32C of the payload; 0 where there is none.
    pub payload_crc: u32,
    /// Position in the log.
    pub lsn: Lsn,
    /// First byte on the disk; 0 for control records.
    pub offset: u64,
    /// Bytes covered on the disk; for control records the payload's length.
    pub length: u64,
}

/// Why bytes are not a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The kind byte is none of ours.
    #[error("record kind {0} is unknown")]
    Kind(u8),
    /// A flag bit is set that this version does not know.
    #[error("record flags {0:#04x} are unknown")]
    Flags(u8),
    /// A payload of more than [`PAYLOAD_BYTES_MAX`] bytes.
    #[error("record at {lsn:?} claims {length} bytes of payload, more than {PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// Where.
        lsn: Lsn,
        /// What it claims.
        length: u64,
    },
    /// The range does not fit into 64 bits.
    #[error("record at {lsn:?} covers {length} bytes from {offset}: past the end of any disk")]
    Range {
        /// Where.
        lsn: Lsn,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// LSN 0 is no record's.
    #[error("a record without a position")]
    NoLsn,
    /// The payload is not what the header says.
    #[error(
        "payload of the record at {lsn:?}: {found_len} bytes with checksum {found:#010x}, expected {expected_len} with {expected:#010x}"
    )]
    Payload {
        /// Where.
        lsn: Lsn,
        /// Checksum in the header.
        expected: u32,
        /// Checksum of what is there.
        found: u32,
        /// Length in the header.
        expected_len: u64,
        /// Length of what is there.
        found_len: u64,
    },
}

const FLAG_CATCH_UP: u8 = 1;

impl RecordHeader {
    /// Payload bytes that follow: 0 for zeroes and discards.
    #[must_use]
    pub const fn payload_len(&self) -> u64 {
        match self.kind {
            RecordKind::Write | RecordKind::Control => self.length,
            RecordKind::Zero | RecordKind::Discard => 0,
        }
    }

    /// The bytes of the disk that it changes; `None` for control records.
    #[must_use]
    pub fn range(&self) -> Option<ByteRange> {
        match self.kind {
            RecordKind::Control => None,
            RecordKind::Write | RecordKind::Zero | RecordKind::Discard => {
                ByteRange::at(self.offset, self.length)
            }
        }
    }

    /// Little-endian, 32 bytes: kind, flags, disk (2), payload CRC (4), LSN (8), offset (8), length
    /// (8).
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = self.kind as u8;
        out[1] = if self.catch_up { FLAG_CATCH_UP } else { 0 };
        out[2..4].copy_from_slice(&self.disk.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[8..16].copy_from_slice(&self.lsn.get().to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..32].copy_from_slice(&self.length.to_le_bytes());
        out
    }

    /// The inverse of [`RecordHeader::encode`].
    ///
    /// # Errors
    /// [`RecordError`] for anything that [`RecordHeader::encode`] can't have made.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, RecordError> {
        let kind = match bytes[0] {
            1 => RecordKind::Write,
            2 => RecordKind::Zero,
            3 => RecordKind::Discard,
            4 => RecordKind::Control,
            other => return Err(RecordError::Kind(other)),
        };
        if bytes[1] & !FLAG_CATCH_UP != 0 {
            return Err(RecordError::Flags(bytes[1]));
        }
        let header = Self {
            kind,
            catch_up: bytes[1] & FLAG_CATCH_UP != 0,
            disk: DiskIndex(u16::from_le_bytes([bytes[2], bytes[3]])),
            payload_crc: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            lsn: Lsn::new(u64_at(bytes, 8)),
            offset: u64_at(bytes, 16),
            length: u64_at(bytes, 24),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.lsn == Lsn::ZERO {
            return Err(RecordError::NoLsn);
        }
        if self.payload_len() > PAYLOAD_BYTES_MAX as u64 {
            return Err(RecordError::TooLong { lsn: self.lsn, length: self.length });
        }
        if ByteRange::at(self.offset, self.length).is_none() {
            return Err(RecordError::Range {
                lsn: self.lsn,
                offset: self.offset,
                length: self.length,
            });
        }
        Ok(())
    }
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// A header with its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The fixed part.
    pub header: RecordHeader,
    /// [`RecordHeader::payload_len`] bytes.
    pub payload: Bytes,
}

impl Record {
    /// Bytes written to a disk.
    ///
    /// # Panics
    /// If `data` is empty or longer than [`PAYLOAD_BYTES_MAX`]: callers split before.
    #[must_use]
    pub fn write(lsn: Lsn, disk: DiskIndex, offset: u64, data: Bytes) -> Self {
        assert!(
            !data.is_empty() && data.len() <= PAYLOAD_BYTES_MAX,
            "a write record carries 1 byte to 256 KiB"
        );
        let header = RecordHeader {
            kind: RecordKind::Write,
            catch_up: false,
            disk,
            payload_crc: crc32c::crc32c(&data),
            lsn,
            offset,
            length: data.len() as u64,
        };
        Self { header, payload: data }
    }

    /// A range that reads as zeroes.
    #[must_use]
    pub const fn zero(lsn: Lsn, disk: DiskIndex, offset: u64, length: u64) -> Self {
        Self::without_payload(RecordKind::Zero, lsn, disk, offset, length)
    }

    /// A range given up.
    #[must_use]
    pub const fn discard(lsn: Lsn, disk: DiskIndex, offset: u64, length: u64) -> Self {
        Self::without_payload(RecordKind::Discard, lsn, disk, offset, length)
    }

    const fn without_payload(
        kind: RecordKind,
        lsn: Lsn,
        disk: DiskIndex,
        offset: u64,
        length: u64,
    ) -> Self {
        let header =
            RecordHeader { kind, catch_up: false, disk, payload_crc: 0, lsn, offset, length };
        Self { header, payload: Bytes::new() }
    }

    /// A marker, window or geometry.
    #[must_use]
    pub fn control(lsn: Lsn, control: &crate::Control) -> Self {
        let payload = control.encode();
        let header = RecordHeader {
            kind: RecordKind::Control,
            catch_up: false,
            disk: DiskIndex(0),
            payload_crc: crc32c::crc32c(&payload),
            lsn,
            offset: 0,
            length: payload.len() as u64,
        };
        Self { header, payload }
    }

    /// Marks it as catch-up data.
    #[must_use]
    pub const fn as_catch_up(mut self) -> Self {
        self.header.catch_up = true;
        self
    }

    /// Checks length and checksum of the payload.
    ///
    /// # Errors
    /// [`RecordError::Payload`] with what was expected and found.
    pub fn verify(&self) -> Result<(), RecordError> {
        let found = if self.payload.is_empty() { 0 } else { crc32c::crc32c(&self.payload) };
        if found != self.header.payload_crc
            || self.payload.len() as u64 != self.header.payload_len()
        {
            return Err(RecordError::Payload {
                lsn: self.header.lsn,
                expected: self.header.payload_crc,
                found,
                expected_len: self.header.payload_len(),
                found_len: self.payload.len() as u64,
            });
        }
        Ok(())
    }

    /// The chain after this record.
    #[must_use]
    pub fn chain(&self, before: Chain) -> Chain {
        before.extend(&self.header.encode())
    }
}
