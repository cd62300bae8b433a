use crate::JournalError;
use crate::cover::Cover;
use crate::format::index::{self, IndexPlace, IndexSize};
use crate::format::segment::{SegmentHeader, Trailer};
use crate::format::{BLOCK_BYTES, align_up};
use crate::table::{Table, index_u32};
use landfall_blockdev::{AlignedBuf, File};
use std::sync::Arc;

const NAME_PREFIX: &str = "segment-";

/// Name of a segment file: numbers of files, not of segments, because files are used again.
pub(crate) fn slot_name(number: u32) -> String {
    format!("{NAME_PREFIX}{number:08x}")
}

/// The number in the name of a segment file; `None` for other names.
pub(crate) fn slot_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NAME_PREFIX)?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    (slot_name(number) == name).then_some(number)
}

/// What can be done with a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentState {
    /// Takes records.
    Open,
    /// Ends with something that was cut off: takes no records, and its index only when its
    /// successor's header is durable (the index may lie where the cut-off part was).
    Torn,
    /// Has its index, or does without.
    Sealed,
}

/// A kept segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    pub(crate) table: Table,
    /// Where the next frame goes, bytes from the segment's start.
    pub(crate) end: u64,
    pub(crate) state: SegmentState,
}

impl Segment {
    pub(crate) const fn new(
        header: SegmentHeader,
        name: String,
        file: Arc<dyn File>,
        table: Table,
        end: u64,
        state: SegmentState,
    ) -> Self {
        Self { header, name, file, table, end, state }
    }

    /// What its index would hold now.
    pub(crate) fn index_size(&self, sealed: bool) -> IndexSize {
        IndexSize {
            records: self.table.len(),
            frames: self.table.frames().len(),
            producers: self.table.producers().len(),
            controls: self.table.controls().len(),
            control_bytes: self.table.controls().iter().map(|(_, c)| c.encode().len()).sum(),
            sealed,
        }
    }
}

/// Writes and syncs the header of a new segment; from then on it is part of the log.
pub(crate) fn write_header(file: &dyn File, header: &SegmentHeader) -> Result<(), JournalError> {
    let mut sector = AlignedBuf::zeroed(header.sector_bytes as usize);
    sector[..BLOCK_BYTES].copy_from_slice(&header.encode());
    file.write_at(0, &sector).map_err(JournalError::device("write a segment header"))?;
    file.sync_data().map_err(JournalError::device("sync a segment header"))
}

/// What [`write_index`] needs of a segment, taken under the lock so that the writing can be done
/// without it.
pub(crate) struct Sealing {
    file: Arc<dyn File>,
    header: SegmentHeader,
    bytes: Vec<u8>,
    offset: u64,
}

impl Sealing {
    pub(crate) fn of(segment: &Segment, cover: &Cover) -> Result<Self, JournalError> {
        let place = IndexPlace {
            segment: segment.header.sequence,
            salt: segment.header.salt,
            offset: index_u32(usize::try_from(segment.end).unwrap_or(usize::MAX)),
        };
        Ok(Self {
            file: Arc::clone(&segment.file),
            header: segment.header,
            bytes: index::encode(&segment.table, segment.header.log, place, cover.batch()?),
            offset: segment.end,
        })
    }
}

/// Writes the index behind the last frame, and the trailer that points to it. The frames are
/// durable before.
///
/// Not synced: nothing depends on it. Where a power cut takes it, the frames are read instead.
pub(crate) fn write_index(sealing: &Sealing, file_bytes: u64) -> Result<(), JournalError> {
    const DOING: &str = "write a segment's index";
    let sector_bytes = sealing.header.sector_bytes;
    let length = align_up(sealing.bytes.len() as u64, sector_bytes);
    let trailer_at = file_bytes - u64::from(sector_bytes);
    if sealing.offset + length > trailer_at {
        // Every append leaves room for the index; a log without one is only slower to open.
        tracing::warn!(segment = sealing.header.sequence, "no room for the index of a segment");
        return Ok(());
    }
    let mut buf = AlignedBuf::zeroed(usize::try_from(length).unwrap_or(0));
    buf[..sealing.bytes.len()].copy_from_slice(&sealing.bytes);
    sealing.file.write_at(sealing.offset, &buf).map_err(JournalError::device(DOING))?;
    let trailer = Trailer {
        sequence: sealing.header.sequence,
        salt: sealing.header.salt,
        index_offset: index_u32(usize::try_from(sealing.offset).unwrap_or(usize::MAX)),
        index_bytes: index_u32(sealing.bytes.len()),
    };
    let mut sector = AlignedBuf::zeroed(sector_bytes as usize);
    sector[..BLOCK_BYTES].copy_from_slice(&trailer.encode());
    sealing.file.write_at(trailer_at, &sector).map_err(JournalError::device(DOING))
}
