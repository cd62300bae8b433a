//! Every maximum of a log, in one place.

use crate::JournalError;

/// Least sectors of a segment: header, one small frame, index, trailer, and some room.
pub(crate) const SEGMENT_SECTORS_MIN: u64 = 8;
/// Most bytes of a segment: offsets within are 32 bits, and its index must fit into memory.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Payload bytes after which a frame is full: two records of the largest size, so that one lost
/// sector costs little and a sender's message holds a frame.
pub(crate) const FRAME_PAYLOAD_MAX: usize = 512 << 10;
/// Most records of a frame: its table stays below 64 KiB.
pub(crate) const FRAME_RECORDS_MAX: usize = 2000;
/// Appended bytes that may wait for a flush; beyond, an append flushes first.
pub(crate) const PENDING_BYTES_MAX: u64 = 32 << 20;
/// Bytes of complete frames from which on a thread of the pool writes them while the append copies
/// the next ones: one full frame.
pub(crate) const HAND_OVER_BYTES: u64 = 512 << 10;
/// Bytes of frames, waiting or being written, from which on an append writes them itself: memory
/// that is used again while it is in the processor's cache. (A quarter of a segment where that is
/// less.)
pub(crate) const WRITE_BEHIND_BYTES: u64 = 4 << 20;
/// Bytes that a flush writes already while another one is under way. Below, more is gained by
/// waiting for others and sharing a frame with them.
pub(crate) const OVERLAP_BYTES: u64 = 256 << 10;
/// Emptied segment files that are kept to be written again: writing over them needs no new space
/// and, after a trim, no work of the file system.
pub(crate) const SPARE_FILES_MAX: usize = 4;
/// Records between two chains held in memory: the chain in between is hashed again from there.
pub(crate) const CHECKPOINT_RECORDS: usize = 64;

/// Bytes of record tables of sealed segments that a log keeps in memory; at least one is kept.
pub(crate) const TABLES_BYTES_MAX: usize = 4 << 20;
/// Most records of a segment: bounds the memory of the one that is being written, and the time to
/// read one table.
pub(crate) const SEGMENT_RECORDS_MAX: usize = 128 << 10;

/// Checks a segment size.
pub(crate) fn segment_bytes(bytes: u64, sector_bytes: u32) -> Result<(), JournalError> {
    let sector_bytes = u64::from(sector_bytes);
    let (min, max) = (SEGMENT_SECTORS_MIN * sector_bytes, SEGMENT_BYTES_MAX);
    if bytes < min || bytes > max || !bytes.is_multiple_of(sector_bytes) {
        return Err(JournalError::SegmentBytes { segment_bytes: bytes, sector_bytes, min, max });
    }
    Ok(())
}
