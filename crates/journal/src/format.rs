//! The bytes on disk. Normative: `docs/formats/journal.md`; a change here is a change there and of
//! the golden files.
//!
//! All integers are little-endian. Every decoder takes any bytes and answers with a value or "not
//! one of ours".

pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod segment;
pub(crate) mod superblock;
#[cfg(test)]
mod tests;

/// Format version of all structures; readers refuse higher ones.
pub(crate) const VERSION: u16 = 1;

/// Bytes of superblocks and segment headers: they fit into the smallest sector, so that a torn
/// write can't mix two.
pub(crate) const BLOCK_BYTES: usize = 512;
/// Where the CRC of a block stands.
pub(crate) const BLOCK_CRC_AT: usize = BLOCK_BYTES - 4;

/// Why bytes are not the structure that was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotOurs {
    /// All zeroes: never written.
    Blank,
    /// Anything else.
    Invalid,
    /// Intact, but of a later version of the format.
    Version(u16),
}

/// Whether an LSN can be one: at a record each nanosecond a log gets here after 292 years. Behind
/// it the next LSN would overflow, and only a damaged or forged structure says so.
pub(crate) const fn plausible(lsn: landfall_types::Lsn) -> bool {
    lsn.get() < 1 << 63
}

/// `length` rounded up to whole sectors.
pub(crate) const fn align_up(length: u64, sector_bytes: u32) -> u64 {
    length.next_multiple_of(sector_bytes as u64)
}
