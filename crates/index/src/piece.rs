//! Records cut into pieces that a lookup can find: within one chunk, or exactly one aligned block
//! of several chunks.

use landfall_types::{ByteRange, DiskIndex, Lsn, RecordHeader, RecordKind};

const CHUNK_SHIFT: u32 = 16;
/// The unit of lookups in bytes: no piece crosses a multiple of it without covering whole blocks.
pub const CHUNK_BYTES: u64 = 1 << CHUNK_SHIFT;
/// Pieces of the class 0 lie within a chunk; those of class `n` are blocks of 2ⁿ⁻¹ chunks, aligned
/// to their size. More than 2⁶³ bytes no block has.
pub(crate) const CLASSES: u8 = 48;

/// Where the chunk begins that a byte lies in.
#[must_use]
pub const fn chunk_of(byte: u64) -> u64 {
    byte & !(CHUNK_BYTES - 1)
}

/// Bytes of a block of a class; of class 0, of the chunk.
pub(crate) const fn class_bytes(class: u8) -> u64 {
    CHUNK_BYTES << class.saturating_sub(1)
}

/// Where the block of a class begins that a byte lies in.
pub(crate) const fn block_of(byte: u64, class: u8) -> u64 {
    byte & !(class_bytes(class) - 1)
}

/// Where a record's payload stands, and what it takes to check it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadAt {
    /// First byte of the record on the disk.
    pub record_start: u64,
    /// Bytes of the record, at most 256 KiB.
    pub record_length: u32,
    /// CRC-32C of its payload.
    pub crc: u32,
    /// Sequence number of its segment.
    pub segment: u64,
    /// Offset of its payload in the segment.
    pub at: u32,
    /// It is catch-up data.
    pub catch_up: bool,
}

/// What holds a stretch of a disk newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The record.
    pub lsn: Lsn,
    /// Where its bytes are; `None`: it says "reads as zeroes".
    pub payload: Option<PayloadAt>,
}

/// A record as the index takes it: its header, and where its payload stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// The record's header.
    pub header: RecordHeader,
    /// Sequence number of its segment.
    pub segment: u64,
    /// Offset of its payload in the segment.
    pub at: u32,
}

impl Item {
    /// What it is as a holder of bytes; `None` for control records.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        let RecordHeader { kind, catch_up, payload_crc, lsn, offset, length, .. } = self.header;
        let payload = match kind {
            RecordKind::Control => return None,
            RecordKind::Zero | RecordKind::Discard => None,
            RecordKind::Write => Some(PayloadAt {
                record_start: offset,
                record_length: u32::try_from(length).ok()?,
                crc: payload_crc,
                segment: self.segment,
                at: self.at,
                catch_up,
            }),
        };
        Some(Holder { lsn, payload })
    }

    /// Its pieces in the order of the disk; none for control records. At most five for a write, at
    /// most 100 for a discard of any length.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let (disk, holder) = (self.header.disk, self.holder());
        let range = self.header.range().filter(|_| holder.is_some());
        cut(range.unwrap_or(ByteRange { start: 0, end: 0 })).filter_map(move |(class, range)| {
            let ByteRange { start, end } = range;
            Some(Piece { disk, class, start, end, holder: holder?, longer: Piece::NONE })
        })
    }
}

/// Part of a record, at the place where lookups look for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Which disk.
    pub disk: DiskIndex,
    pub(crate) class: u8,
    /// First byte.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
    /// The record.
    pub holder: Holder,
    /// Number, within its run, of the newest older piece with the same start that ends behind this
    /// one: how a lookup gets past any number of versions of a block.
    pub(crate) longer: u32,
}

impl Piece {
    pub(crate) const NONE: u32 = u32::MAX;

    pub(crate) const fn key(&self) -> Key {
        Key { disk: self.disk, class: self.class, start: self.start, lsn: self.holder.lsn }
    }

    /// Whether both lie at the same place, as far as the order of a run says.
    pub(crate) fn same_place(&self, key: &Key) -> bool {
        (self.disk, self.class, self.start) == (key.disk, key.class, key.start)
    }
}

/// What runs are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub(crate) disk: DiskIndex,
    pub(crate) class: u8,
    pub(crate) start: u64,
    pub(crate) lsn: Lsn,
}

/// A range as class-0 pieces at its ends and aligned blocks between: few, whatever its length.
fn cut(range: ByteRange) -> impl Iterator<Item = (u8, ByteRange)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let (start, left) = (at, range.end - at);
        let class = if start == chunk_of(start) && left >= CHUNK_BYTES {
            // Zero is aligned to everything.
            let aligned = start.trailing_zeros().min(u64::BITS - 1);
            let shift = aligned.min(left.ilog2());
            u8::try_from(shift - CHUNK_SHIFT + 1).unwrap_or(CLASSES).min(CLASSES)
        } else {
            0
        };
        let next_chunk = chunk_of(start).saturating_add(CHUNK_BYTES);
        at = match class {
            0 => range.end.min(next_chunk),
            class => start + class_bytes(class),
        };
        Some((class, ByteRange { start, end: at }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_range_and_are_few(
            start in prop_oneof![0_u64..300_000, any::<u64>()],
            length in prop_oneof![0_u64..300_000, any::<u64>()],
        ) {
            let end = start.saturating_add(length);
            let pieces: Vec<_> = cut(ByteRange { start, end }).collect();
            let mut at = start;
            for (class, piece) in &pieces {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.start < piece.end);
                if *class == 0 {
                    prop_assert_eq!(chunk_of(piece.start), chunk_of(piece.end - 1));
                } else {
                    prop_assert_eq!(piece.start, block_of(piece.start, *class));
                    prop_assert_eq!(piece.len(), class_bytes(*class));
                }
                at = piece.end;
            }
            prop_assert_eq!(at, end);
            prop_assert!(pieces.len() <= 100);
            if length <= 256 << 10 {
                prop_assert!(pieces.len() <= 5);
            }
        }
    }
}
