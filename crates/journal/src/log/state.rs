//! What the lock of a log protects, and the changes that need no I/O.

use crate::bugs::{Bugs, SeededBug};
use crate::cover::{Cover, Covering as _, Use};
use crate::format::align_up;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::segment::SegmentHeader;
use crate::limits::{FRAME_PAYLOAD_MAX, FRAME_RECORDS_MAX};
use crate::log::backlog::Frame;
use crate::log::cursor::{Cursor, Place, Producers};
use crate::log::sealed::{Sealed, Tables};
use crate::log::segment::{Segment, SegmentState};
use crate::table::{Producer, index_u32};
use crate::{JournalError, Position, Stamp};
use landfall_blockdev::{ALIGN_BYTES, AlignedBuf, File};
use landfall_crypt::Batch;
use landfall_types::{Chain, Control, HEADER_BYTES, Lsn, Record};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of buffers that are kept for later frames: fresh memory costs a page fault each 4 KiB.
const POOL_BYTES_MAX: usize = 3 << 20;
/// Least size of a new buffer.
const BUFFER_BYTES_MIN: usize = 16 << 10;

/// A frame in memory that still takes records.
#[derive(Debug)]
pub(crate) struct OpenFrame {
    offset: u64,
    /// Room for the header, then the payloads.
    bytes: AlignedBuf,
    /// Its first record: how-manieth of the segment.
    first_record: usize,
    chain_before: Chain,
    producer: Producer,
    /// What seals it, where the log is sealed.
    batch: Option<Batch>,
}

/// All that changes in a log.
#[derive(Debug)]
pub(crate) struct State {
    /// Full segments, oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    /// The segment that takes records.
    pub(crate) last: Segment,
    /// Tables of full segments that were needed last.
    pub(crate) tables: Tables,
    pub(crate) cursor: Cursor,
    open: Option<OpenFrame>,
    /// Complete frames of the last segment that are not written, oldest first.
    pub(crate) pending: VecDeque<Arc<Frame>>,
    /// Bytes in `pending`, and about what `open` takes.
    pub(crate) pending_bytes: u64,
    /// What is written, though perhaps not durable.
    pub(crate) written: Position,
    pub(crate) durable: Position,
    /// A thread is writing frames, and perhaps syncing.
    pub(crate) flushing: bool,
    pub(crate) poisoned: bool,
    /// Threads that wait for a flush to end.
    pub(crate) waiters: usize,
    /// Syncs since the last segment began.
    pub(crate) syncs: u64,
    /// Segment files that hold nothing.
    pub(crate) spares: Vec<String>,
    pub(crate) next_slot: u32,
    pool: Vec<AlignedBuf>,
    pool_bytes: usize,
    cover: Cover,
    bugs: Bugs,
}

impl State {
    pub(crate) fn new(
        sealed: VecDeque<Sealed>,
        last: Segment,
        spares: Vec<String>,
        next_slot: u32,
        (cover, bugs): (Cover, Bugs),
    ) -> Self {
        let durable = last.table.tail();
        let cursor = cursor_for(&last, &cover);
        Self {
            sealed,
            last,
            tables: Tables::default(),
            cursor,
            open: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            written: durable,
            durable,
            flushing: false,
            poisoned: false,
            waiters: 0,
            syncs: 0,
            spares,
            next_slot,
            pool: Vec::new(),
            pool_bytes: 0,
            cover,
            bugs,
        }
    }

    pub(crate) const fn last(&self) -> &Segment {
        &self.last
    }

    pub(crate) const fn last_mut(&mut self) -> &mut Segment {
        &mut self.last
    }

    pub(crate) fn tail(&self) -> Position {
        self.last().table.tail()
    }

    pub(crate) fn base(&self) -> Position {
        self.sealed.front().map_or(*self.last.table.base(), |segment| *segment.base())
    }

    pub(crate) fn check_poison(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned) } else { Ok(()) }
    }

    /// The file of a kept segment.
    pub(crate) fn file(&self, sequence: u64) -> Option<&Arc<dyn File>> {
        self.segment(sequence).map(|(file, _)| file)
    }

    /// File and header of a kept segment.
    pub(crate) fn segment(&self, sequence: u64) -> Option<(&Arc<dyn File>, &SegmentHeader)> {
        if sequence == self.last.header.sequence {
            return Some((&self.last.file, &self.last.header));
        }
        let first = self.sealed.front()?.header.sequence;
        let number = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.sealed.get(number).map(|segment| (&segment.file, &segment.header))
    }

    /// How many of the records fit into the last segment, from the first on.
    pub(crate) fn fitting(&self, records: &[Record], stamp: &Stamp, segment_bytes: u64) -> usize {
        if self.last().state != SegmentState::Open {
            return 0;
        }
        count_fitting(self.cursor, records, self.producers(stamp), segment_bytes)
    }

    fn producers(&self, stamp: &Stamp) -> Producers {
        let producer = Producer { epoch: stamp.epoch, incarnation: stamp.incarnation };
        match self.last().table.producers().last() {
            Some(last) if *last == producer => Producers::Same,
            _ => Producers::Other,
        }
    }

    /// Takes records that were checked and fit. After an error the log can't go on: some of them
    /// may have been taken.
    pub(crate) fn push(
        &mut self,
        stamp: &Stamp,
        records: &[Record],
        controls: &mut Vec<Control>,
    ) -> Result<(), JournalError> {
        controls.reverse();
        for (number, record) in records.iter().enumerate() {
            let producers = self.producers(stamp);
            match self.cursor.add(&record.header, producers) {
                Place::Same => {}
                Place::NewFrame(offset) => {
                    self.complete_frame();
                    self.begin_frame(offset, stamp, &records[number..])?;
                }
            }
            self.push_one(record, controls);
        }
        controls.reverse();
        Ok(())
    }

    /// All records of an append are in: the producer's new position holds.
    pub(crate) fn set_source_position(&mut self, source_position: u64) {
        self.last_mut().table.set_source_position(source_position);
    }

    fn begin_frame(
        &mut self,
        offset: u64,
        stamp: &Stamp,
        records: &[Record],
    ) -> Result<(), JournalError> {
        let batch = self.cover.batch()?;
        let mut bytes = match self.pool.pop() {
            Some(bytes) => {
                self.pool_bytes -= bytes.capacity();
                bytes
            }
            None => AlignedBuf::zeroed(buffer_bytes(records)),
        };
        bytes.set_len(FRAME_HEADER_BYTES);
        let producer = Producer { epoch: stamp.epoch, incarnation: stamp.incarnation };
        let table = &mut self.last_mut().table;
        let (first_record, chain_before) = (table.len(), table.chain());
        // The producer's new position holds after the last record of this append, which may be in a
        // later frame: were it noted here and the later frame lost, the producer would go on behind
        // records that are nowhere (trap T-1).
        let before = table.tail();
        let same = before.epoch.is(&stamp.epoch) && before.incarnation == stamp.incarnation;
        let source_position = if same { before.source_position } else { 0 };
        table.begin_frame(offset_u32(offset), producer, source_position);
        self.open = Some(OpenFrame { offset, bytes, first_record, chain_before, producer, batch });
        self.pending_bytes += FRAME_HEADER_BYTES as u64;
        Ok(())
    }

    fn push_one(&mut self, record: &Record, controls: &mut Vec<Control>) {
        let frame = self.open.as_mut().expect("the cursor began a frame");
        let at = frame.bytes.len();
        let stored = usize::try_from(self.cover.stored_len(&record.header)).unwrap_or(usize::MAX);
        frame.bytes.set_len(at + stored);
        let place = Use::of(&self.last.header);
        frame.batch.put_record(&place, &record.header, &record.payload, &mut frame.bytes[at..]);
        let payload_at = offset_u32(frame.offset + at as u64);
        self.pending_bytes += (stored + HEADER_BYTES) as u64;
        let table = &mut self.last_mut().table;
        table.push(&record.header, payload_at);
        if record.header.kind == landfall_types::RecordKind::Control {
            let control = controls.pop().expect("every control record was decoded before");
            table.push_control(record.header.lsn, control);
        }
    }

    /// The open frame gets its table and header, and waits for the next flush.
    pub(crate) fn complete_frame(&mut self) {
        let Some(open) = self.open.take() else { return };
        let OpenFrame { offset, mut bytes, first_record, chain_before, producer, mut batch } = open;
        let proven = !self.bugs.has(SeededBug::NoFloor);
        let floor = if proven { self.durable.lsn } else { Lsn::ZERO };
        let segment = self.last();
        let position = segment.table.tail();
        let (count, payload) =
            (segment.table.len() - first_record, bytes.len() - FRAME_HEADER_BYTES);
        let table_at = bytes.len();
        let end = table_at + count * HEADER_BYTES + batch.extra();
        let plain = table_at + batch.head()..end - (batch.extra() - batch.head());
        let padded = align_up(end as u64, segment.header.sector_bytes);
        bytes.set_len(usize::try_from(padded).expect("a frame fits into memory"));
        let first = segment.table.base().lsn.plus(first_record as u64 + 1);
        let slots = segment.table.slots()[first_record..].iter().enumerate();
        for (chunk, (number, slot)) in bytes[plain].chunks_mut(HEADER_BYTES).zip(slots) {
            chunk.copy_from_slice(&slot.header(first.plus(number as u64)).encode());
        }
        bytes[end..].fill(0);
        let mut header = FrameHeader {
            sealed: batch.is_some(),
            segment: segment.header.sequence,
            salt: segment.header.salt,
            offset: offset_u32(offset),
            records: index_u32(count),
            payload_bytes: index_u32(payload),
            table_crc: 0,
            first,
            floor,
            epoch: producer.epoch,
            incarnation: producer.incarnation,
            source_position: position.source_position,
            chain_before,
            chain_after: position.chain,
        };
        batch.cover_table(segment.header.log, &header, &mut bytes[table_at..end]);
        header.table_crc = crc32c::crc32c(&bytes[table_at..end]);
        bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        self.cursor.close_frame();
        // What was counted record by record had no padding, and the table was not covered.
        self.pending_bytes += padded - end as u64 + batch.extra() as u64;
        self.last_mut().end = offset + padded;
        self.pending.push_back(Arc::new(Frame::new(offset, bytes, position)));
    }

    /// A payload that is still in memory only.
    pub(crate) fn unwritten(&self, segment: u64, offset: u64, length: usize) -> Option<&[u8]> {
        if self.last().header.sequence != segment {
            return None;
        }
        let within = |start: u64, bytes: &'_ AlignedBuf| {
            offset.checked_sub(start).is_some_and(|at| at < bytes.len() as u64)
        };
        let pending = self.pending.iter().find(|frame| within(frame.offset, &frame.bytes));
        let (start, bytes) = pending.map(|frame| (frame.offset, &frame.bytes)).or_else(|| {
            let open = self.open.as_ref().filter(|open| within(open.offset, &open.bytes))?;
            Some((open.offset, &open.bytes))
        })?;
        let at = usize::try_from(offset - start).ok()?;
        bytes.get(at..at + length)
    }

    /// Forgets the frames that are written, up to the first one that is not.
    pub(crate) fn reap(&mut self) {
        while self.pending.front().is_some_and(|frame| frame.is_written()) {
            let Some(frame) = self.pending.pop_front() else { return };
            self.written = frame.position;
            self.pending_bytes -= frame.bytes.len() as u64;
            if let Some(Frame { bytes, .. }) = Arc::into_inner(frame)
                && self.pool_bytes + bytes.capacity() <= POOL_BYTES_MAX
            {
                self.pool_bytes += bytes.capacity();
                self.pool.push(bytes);
            }
        }
    }

    /// Complete frames that nobody writes, and their bytes.
    pub(crate) fn waiting(&self) -> (Vec<Arc<Frame>>, u64) {
        let waiting: Vec<_> = self.pending.iter().filter(|f| f.waits()).cloned().collect();
        let bytes = waiting.iter().map(|frame| frame.bytes.len() as u64).sum();
        (waiting, bytes)
    }

    /// A new last segment, empty.
    pub(crate) fn push_segment(&mut self, segment: Segment) {
        debug_assert!(self.open.is_none() && self.pending.is_empty());
        self.syncs = 0;
        self.cursor = cursor_for(&segment, &self.cover);
        let (sealed, table) = Sealed::of(std::mem::replace(&mut self.last, segment));
        // Senders and followers are about here.
        let sequence = sealed.header.sequence;
        self.tables.put(sequence, Arc::new(table), crate::limits::TABLES_BYTES_MAX);
        self.sealed.push_back(sealed);
    }
}

/// Room for the frame that begins with these records, so that it need not grow while it fills.
fn buffer_bytes(records: &[Record]) -> usize {
    let mut bytes = FRAME_HEADER_BYTES;
    for record in records.iter().take(FRAME_RECORDS_MAX) {
        let more = bytes + HEADER_BYTES + record.payload.len();
        if more > FRAME_PAYLOAD_MAX + FRAME_HEADER_BYTES + FRAME_RECORDS_MAX * HEADER_BYTES {
            break;
        }
        bytes = more;
    }
    // With the padding to a sector.
    bytes.next_multiple_of(ALIGN_BYTES).max(BUFFER_BYTES_MIN)
}

/// How many records fit, from the first on, with the cursor in this place.
pub(crate) fn count_fitting(
    mut cursor: Cursor,
    records: &[Record],
    mut producers: Producers,
    segment_bytes: u64,
) -> usize {
    for (count, record) in records.iter().enumerate() {
        cursor.add(&record.header, producers);
        producers = Producers::Same;
        if cursor.needed() > segment_bytes {
            return count;
        }
    }
    records.len()
}

fn cursor_for(segment: &Segment, cover: &Cover) -> Cursor {
    let index = segment.index_size(cover.is_sealed());
    Cursor::new(segment.header.sector_bytes, segment.end, index)
}

/// An offset within a segment: at most 2^30.
fn offset_u32(offset: u64) -> u32 {
    u32::try_from(offset).expect("a segment has at most 2^30 bytes")
}
