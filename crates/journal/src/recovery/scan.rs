//! Reads the frames of a segment one after the other.

use crate::cover::{Cover, Use};
use crate::format::align_up;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::segment::SegmentHeader;
use crate::table::{Producer, Table, index_u32};
use landfall_blockdev::{ALIGN_BYTES, AlignedBuf, DeviceError, File};
use landfall_types::{Chain, Control, Lsn, RecordHeader, RecordKind};
use std::borrow::Cow;

/// How much is read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Reads a file through a window that moves forward: aligned, so that what is read is what the
/// medium holds and not what the kernel remembers of a write that failed (fault F3).
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    pub(crate) cover: Cover,
    length: u64,
    start: u64,
    buf: AlignedBuf,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn File, cover: &Cover) -> Result<Self, DeviceError> {
        Ok(Self {
            file,
            cover: cover.clone(),
            length: file.len()?,
            start: 0,
            buf: AlignedBuf::zeroed(0),
        })
    }

    pub(crate) const fn len(&self) -> u64 {
        self.length
    }

    /// The bytes at `offset`, fewer where the file ends.
    pub(crate) fn get(&mut self, offset: u64, count: usize) -> Result<&[u8], DeviceError> {
        if offset >= self.length {
            return Ok(&[]);
        }
        let end = offset.saturating_add(count as u64).min(self.length);
        let have = self.start..self.start + self.buf.len() as u64;
        if offset < have.start || end > have.end {
            let start = offset / ALIGN_BYTES as u64 * ALIGN_BYTES as u64;
            let stop = end.max((start + WINDOW_BYTES).min(self.length));
            let length = usize::try_from(stop - start).unwrap_or(0);
            self.buf.set_len(0);
            self.buf.set_len(length);
            self.start = start;
            self.file.read_at(start, &mut self.buf)?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(0);
        let to = usize::try_from(end - self.start).unwrap_or(0);
        Ok(&self.buf[from..to])
    }
}

impl Window<'_> {
    /// The payload at `offset`; `None` where it is not what was written.
    pub(crate) fn payload(
        &mut self,
        segment: &SegmentHeader,
        record: &RecordHeader,
        offset: u64,
    ) -> Result<Option<Cow<'_, [u8]>>, DeviceError> {
        let cover = self.cover.clone();
        let length = usize::try_from(cover.stored_len(record)).unwrap_or(usize::MAX);
        let stored = self.get(offset, length)?;
        Ok(cover.content(&Use::of(segment), record, stored))
    }
}

/// A frame whose header and table are intact and in place.
pub(crate) struct FrameFound {
    pub(crate) header: FrameHeader,
    pub(crate) records: Vec<RecordHeader>,
}

/// What the frames of a segment say.
pub(crate) struct Scan {
    /// In order, from the segment's begin.
    pub(crate) frames: Vec<FrameFound>,
    /// Where the first frame would stand that is not intact or not in place.
    pub(crate) end: u64,
}

impl Scan {
    /// The last record of the intact frames.
    pub(crate) fn tail(&self, header: &SegmentHeader) -> (Lsn, Chain) {
        let base = (header.base.lsn, header.base.chain);
        self.frames.last().map_or(base, |f| (f.header.last(), f.header.chain_after))
    }
}

/// Goes from frame to frame until one is not intact, does not continue the one before, or lies
/// behind `stop`. Payloads are not looked at.
pub(crate) fn frames(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    stop: Lsn,
) -> Result<Scan, DeviceError> {
    let mut scan = Scan { frames: Vec::new(), end: u64::from(segment.sector_bytes) };
    loop {
        let (tail, chain) = scan.tail(segment);
        if tail >= stop {
            return Ok(scan);
        }
        let Some(header) = frame_at(window, segment, scan.end)? else { return Ok(scan) };
        let continues = header.first == tail.next()
            && header.chain_before == chain
            && header.floor < header.first
            && header.end() <= window.len();
        if !continues {
            return Ok(scan);
        }
        let cover = window.cover.clone();
        let table = window.get(header.table_offset(), header.table_bytes())?;
        let records = header.decode_table(&cover, segment.log, table);
        let Some(records) = records else { return Ok(scan) };
        scan.end = align_up(header.end(), segment.sector_bytes);
        scan.frames.push(FrameFound { header, records });
    }
}

/// Whether the segment has a first frame, by its header alone: the key may be another one.
pub(crate) fn begins(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
) -> Result<bool, DeviceError> {
    Ok(frame_at(window, segment, segment.sector_bytes.into())?.is_some())
}

fn frame_at(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    offset: u64,
) -> Result<Option<FrameHeader>, DeviceError> {
    let bytes = window.get(offset, FRAME_HEADER_BYTES)?;
    let block = bytes.first_chunk::<FRAME_HEADER_BYTES>();
    Ok(block.and_then(|b| FrameHeader::decode(b, segment.sequence, segment.salt, offset)))
}

/// What lies behind the last good frame.
pub(crate) struct Beyond {
    /// There is an intact frame header of this use of the file.
    pub(crate) leftovers: bool,
    /// The highest floor that such a frame proves.
    pub(crate) floor: Lsn,
}

/// Looks at every sector from `from` to the end of the file for frames of this use of it.
pub(crate) fn beyond(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    from: u64,
) -> Result<Beyond, DeviceError> {
    let mut found = Beyond { leftovers: false, floor: Lsn::ZERO };
    let mut offset = from;
    while offset < window.len() {
        if let Some(header) = frame_at(window, segment, offset)? {
            found.leftovers = true;
            found.floor = found.floor.max(header.floor);
        }
        offset += u64::from(segment.sector_bytes);
    }
    Ok(found)
}

/// Drops the first frame with a payload that is not what its records say, and all behind it. Only
/// frames behind `floor` are looked at: the others are known to have been durable, and rot in them
/// is found when they are read.
pub(crate) fn drop_torn(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    scan: &mut Scan,
    floor: Lsn,
) -> Result<(), DeviceError> {
    for number in 0..scan.frames.len() {
        let frame = &scan.frames[number];
        if frame.header.last() > floor && !payload_intact(window, segment, frame)? {
            scan.end = u64::from(frame.header.offset);
            scan.frames.truncate(number);
            return Ok(());
        }
    }
    Ok(())
}

/// Checks every payload of a frame.
pub(crate) fn payload_intact(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    frame: &FrameFound,
) -> Result<bool, DeviceError> {
    let mut at = frame.header.payload_offset();
    for record in &frame.records {
        if window.payload(segment, record, at)?.is_none() {
            return Ok(false);
        }
        at += window.cover.stored_len(record);
    }
    Ok(true)
}

/// Checks one payload; of a control record also that it can be decoded.
pub(crate) fn record_intact(record: &RecordHeader, payload: &[u8]) -> bool {
    let crc = if payload.is_empty() { 0 } else { crc32c::crc32c(payload) };
    payload.len() as u64 == record.payload_len() && crc == record.payload_crc
}

/// The table of the frames; `None` when a control record among them can't be read.
pub(crate) fn table(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    scan: &Scan,
) -> Result<Result<Table, Lsn>, DeviceError> {
    let mut table = Table::new(segment.base);
    for frame in &scan.frames {
        let FrameHeader { offset, epoch, incarnation, source_position, .. } = frame.header;
        table.begin_frame(offset, Producer { epoch, incarnation }, source_position);
        let mut at = frame.header.payload_offset();
        for record in &frame.records {
            table.push(record, index_u32(usize::try_from(at).unwrap_or(usize::MAX)));
            if record.kind == RecordKind::Control {
                let payload = window.payload(segment, record, at)?;
                match payload.map(|payload| Control::decode(&payload)) {
                    Some(Ok(control)) => table.push_control(record.lsn, control),
                    _ => return Ok(Err(record.lsn)),
                }
            }
            at += window.cover.stored_len(record);
        }
    }
    Ok(Ok(table))
}
