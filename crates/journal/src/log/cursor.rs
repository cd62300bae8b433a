//! How records are laid out in frames and whether they fit: the same arithmetic for planning and
//! for doing.

use crate::cover::{extra, stored_len};
use crate::format::align_up;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::index::IndexSize;
use crate::limits::{FRAME_PAYLOAD_MAX, FRAME_RECORDS_MAX, SEGMENT_RECORDS_MAX};
use landfall_types::{HEADER_BYTES, RecordHeader, RecordKind};

/// A frame that still takes records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Filling {
    offset: u64,
    payload: usize,
    /// Bytes that payloads and table are stored in beyond their own.
    covering: usize,
    records: usize,
}

impl Filling {
    const fn end(&self) -> u64 {
        self.offset
            + (FRAME_HEADER_BYTES + self.payload + self.covering + self.records * HEADER_BYTES)
                as u64
    }
}

/// Where in the segment the next record goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    sector_bytes: u32,
    /// Where the next frame begins, while none is filling.
    end: u64,
    filling: Option<Filling>,
    index: IndexSize,
}

/// What [`Cursor::add`] says about a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// It goes into the frame that is filling.
    Same,
    /// It begins a frame at this offset.
    NewFrame(u64),
}

/// Whether a record may join the frame that is filling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Producers {
    /// Of the same epoch and incarnation as the record before.
    Same,
    /// Of another one.
    Other,
}

impl Cursor {
    pub(crate) const fn new(sector_bytes: u32, end: u64, index: IndexSize) -> Self {
        Self { sector_bytes, end, filling: None, index }
    }

    /// Takes the next record.
    pub(crate) fn add(&mut self, header: &RecordHeader, producers: Producers) -> Place {
        let length = usize::try_from(header.payload_len()).unwrap_or(usize::MAX);
        self.index.records += 1;
        if header.kind == RecordKind::Control {
            self.index.controls += 1;
            self.index.control_bytes += length;
        }
        let joins = self.filling.is_some_and(|frame| {
            producers == Producers::Same
                && frame.records < FRAME_RECORDS_MAX
                && frame.payload + length <= FRAME_PAYLOAD_MAX
        });
        if !joins {
            self.close_frame();
            self.index.frames += 1;
            self.index.producers += usize::from(producers == Producers::Other);
            self.filling = Some(Filling {
                offset: self.end,
                payload: 0,
                covering: extra(self.index.sealed),
                records: 0,
            });
        }
        let frame = self.filling.as_mut().expect("one was just made");
        frame.payload += length;
        frame.covering +=
            usize::try_from(stored_len(header, self.index.sealed)).unwrap_or(usize::MAX) - length;
        frame.records += 1;
        if joins { Place::Same } else { Place::NewFrame(frame.offset) }
    }

    /// The frame takes no more records; the next one begins at the next sector.
    pub(crate) fn close_frame(&mut self) {
        if let Some(frame) = self.filling.take() {
            self.end = align_up(frame.end(), self.sector_bytes);
        }
    }

    /// Where the frames end.
    pub(crate) fn end(&self) -> u64 {
        self.filling.map_or(self.end, |frame| align_up(frame.end(), self.sector_bytes))
    }

    /// Bytes that the segment needs with its index and trailer; more than there can be when it has
    /// too many records.
    pub(crate) fn needed(&self) -> u64 {
        if self.index.records > SEGMENT_RECORDS_MAX {
            return u64::MAX;
        }
        let index = align_up(self.index.bytes() as u64, self.sector_bytes);
        self.end() + index + u64::from(self.sector_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::{DiskIndex, Lsn};

    fn write(length: u64) -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Write,
            catch_up: false,
            disk: DiskIndex(0),
            payload_crc: 0,
            lsn: Lsn::new(1),
            offset: 0,
            length,
        }
    }

    #[test]
    fn frames_begin_at_sectors_and_end_at_their_limits() {
        let mut cursor = Cursor::new(512, 512, IndexSize::default());
        assert_eq!(cursor.add(&write(100), Producers::Other), Place::NewFrame(512));
        assert_eq!(cursor.add(&write(100), Producers::Same), Place::Same);
        assert_eq!(cursor.end(), 1024, "160 + 200 + 2 * 32 = 424 bytes: one sector");
        assert_eq!(cursor.add(&write(100), Producers::Other), Place::NewFrame(1024));
        cursor.close_frame();
        assert_eq!(
            cursor.add(&write(FRAME_PAYLOAD_MAX as u64), Producers::Same),
            Place::NewFrame(1536)
        );
        assert_eq!(cursor.add(&write(1), Producers::Same), Place::NewFrame(cursor.end() - 512));
        cursor.close_frame();
        for _ in 0..FRAME_RECORDS_MAX {
            cursor.add(&write(1), Producers::Same);
        }
        assert!(matches!(cursor.add(&write(1), Producers::Same), Place::NewFrame(_)));
    }
}
