//! The record table of one segment, in memory: 32 bytes a record, 24 a frame. Only that of the
//! segment that is being written stays there.

use crate::limits::CHECKPOINT_RECORDS;
use crate::{Entry, Location, Position};
use landfall_types::{
    Chain, Control, DiskIndex, Epoch, Incarnation, Lsn, RecordHeader, RecordKind,
};

/// A record header without what its place in the table says, and where its payload stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    offset: u64,
    length: u64,
    payload_crc: u32,
    /// Bytes from the segment's start.
    pub(crate) payload_at: u32,
    disk: DiskIndex,
    kind: RecordKind,
    catch_up: bool,
}

const _: () = assert!(size_of::<Slot>() == 32, "memory per retained record (measure B9)");

impl Slot {
    pub(crate) const fn new(header: &RecordHeader, payload_at: u32) -> Self {
        Self {
            offset: header.offset,
            length: header.length,
            payload_crc: header.payload_crc,
            payload_at,
            disk: header.disk,
            kind: header.kind,
            catch_up: header.catch_up,
        }
    }

    pub(crate) const fn header(&self, lsn: Lsn) -> RecordHeader {
        RecordHeader {
            kind: self.kind,
            catch_up: self.catch_up,
            disk: self.disk,
            payload_crc: self.payload_crc,
            lsn,
            offset: self.offset,
            length: self.length,
        }
    }
}

/// A frame of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameSlot {
    /// Bytes from the segment's start.
    pub(crate) offset: u32,
    /// Its first record: how-manieth of the segment, from 0.
    pub(crate) first: u32,
    /// Its producer: how-manieth of the segment's stamps, from 0.
    pub(crate) stamp: u32,
    pub(crate) source_position: u64,
}

/// Who produced the records of some frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Producer {
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
}

/// All records of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    base: Position,
    slots: Vec<Slot>,
    frames: Vec<FrameSlot>,
    producers: Vec<Producer>,
    /// The chain after every [`CHECKPOINT_RECORDS`] records, beginning with none.
    checkpoints: Vec<Chain>,
    controls: Vec<(Lsn, Control)>,
    chain: Chain,
}

/// What a sealed index keeps of a [`Table`].
pub(crate) struct TableParts {
    pub(crate) slots: Vec<Slot>,
    pub(crate) frames: Vec<FrameSlot>,
    pub(crate) producers: Vec<Producer>,
    pub(crate) checkpoints: Vec<Chain>,
    pub(crate) controls: Vec<(Lsn, Control)>,
    pub(crate) chain: Chain,
}

impl Table {
    pub(crate) fn new(base: Position) -> Self {
        let parts = TableParts {
            slots: Vec::new(),
            frames: Vec::new(),
            producers: Vec::new(),
            checkpoints: vec![base.chain],
            controls: Vec::new(),
            chain: base.chain,
        };
        Self::from_parts(base, parts)
    }

    /// The caller has checked that the parts fit together.
    pub(crate) fn from_parts(base: Position, parts: TableParts) -> Self {
        let TableParts { slots, frames, producers, checkpoints, controls, chain } = parts;
        Self { base, slots, frames, producers, checkpoints, controls, chain }
    }

    /// A frame begins; its records follow by [`Table::push`].
    pub(crate) fn begin_frame(&mut self, offset: u32, producer: Producer, source_position: u64) {
        if self.producers.last() != Some(&producer) {
            self.producers.push(producer);
        }
        let stamp = index_u32(self.producers.len() - 1);
        let first = index_u32(self.slots.len());
        self.frames.push(FrameSlot { offset, first, stamp, source_position });
    }

    /// The producer's position after the newest frame has moved on.
    pub(crate) fn set_source_position(&mut self, source_position: u64) {
        if let Some(frame) = self.frames.last_mut() {
            frame.source_position = source_position;
        }
    }

    /// The next record of the newest frame.
    pub(crate) fn push(&mut self, header: &RecordHeader, payload_at: u32) {
        debug_assert_eq!(header.lsn, self.tail_lsn().next());
        self.slots.push(Slot::new(header, payload_at));
        self.chain = self.chain.extend(&header.encode());
        if self.slots.len().is_multiple_of(CHECKPOINT_RECORDS) {
            self.checkpoints.push(self.chain);
        }
    }

    /// The control record that was pushed last.
    pub(crate) fn push_control(&mut self, lsn: Lsn, control: Control) {
        self.controls.push((lsn, control));
    }

    /// About what it takes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
            + size_of_val(&*self.frames)
            + size_of_val(&*self.checkpoints)
            + self.controls.len() * 128
    }

    pub(crate) const fn base(&self) -> &Position {
        &self.base
    }
    pub(crate) const fn len(&self) -> usize {
        self.slots.len()
    }
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
    pub(crate) fn frames(&self) -> &[FrameSlot] {
        &self.frames
    }
    pub(crate) fn producers(&self) -> &[Producer] {
        &self.producers
    }
    pub(crate) fn checkpoints(&self) -> &[Chain] {
        &self.checkpoints
    }
    pub(crate) fn controls(&self) -> &[(Lsn, Control)] {
        &self.controls
    }

    pub(crate) fn tail_lsn(&self) -> Lsn {
        self.base.lsn.plus(self.slots.len() as u64)
    }

    pub(crate) fn chain(&self) -> Chain {
        self.chain
    }

    pub(crate) fn tail(&self) -> Position {
        let Some(frame) = self.frames.last() else { return self.base };
        self.position(self.slots.len(), self.chain, frame, frame.source_position)
    }

    /// The position after `lsn`; `None` when that is not in this segment.
    pub(crate) fn position_at(&self, lsn: Lsn) -> Option<Position> {
        let count = self.count_through(lsn)?;
        if count == 0 {
            return Some(self.base);
        }
        let index = self.frame_of(count - 1);
        let frame = &self.frames[index];
        // The frame's source position holds after its last record only; before, the one of the
        // frame before.
        let source_position = if self.frame_end(index) == count {
            frame.source_position
        } else {
            let before = index.checked_sub(1).map(|index| &self.frames[index]);
            before.filter(|b| b.stamp == frame.stamp).map_or(0, |b| b.source_position)
        };
        Some(self.position(count, self.chain_after(count), frame, source_position))
    }

    fn position(
        &self,
        count: usize,
        chain: Chain,
        frame: &FrameSlot,
        source_position: u64,
    ) -> Position {
        let producer = self.producers[frame.stamp as usize];
        Position {
            lsn: self.base.lsn.plus(count as u64),
            chain,
            epoch: producer.epoch,
            incarnation: producer.incarnation,
            source_position,
        }
    }

    /// How many records of the segment lie up to `lsn`; `None` when it is not in the segment.
    fn count_through(&self, lsn: Lsn) -> Option<usize> {
        let count = usize::try_from(lsn.get().checked_sub(self.base.lsn.get())?).ok()?;
        (count <= self.slots.len()).then_some(count)
    }

    fn chain_after(&self, count: usize) -> Chain {
        let checkpoint = count / CHECKPOINT_RECORDS;
        let start = checkpoint * CHECKPOINT_RECORDS;
        let known = self.checkpoints[checkpoint];
        (start..count).fold(known, |chain, index| chain.extend(&self.header(index).encode()))
    }

    /// The frame that holds the record with this number.
    pub(crate) fn frame_of(&self, record: usize) -> usize {
        self.frames.partition_point(|frame| frame.first as usize <= record) - 1
    }

    /// One past the last record of a frame.
    pub(crate) fn frame_end(&self, frame: usize) -> usize {
        self.frames.get(frame + 1).map_or(self.slots.len(), |next| next.first as usize)
    }

    fn header(&self, record: usize) -> RecordHeader {
        self.slots[record].header(self.base.lsn.plus(record as u64 + 1))
    }

    /// The record with this number.
    pub(crate) fn entry(&self, segment: u64, record: usize) -> Entry {
        let offset = self.slots[record].payload_at;
        Entry { header: self.header(record), location: Location { segment, offset } }
    }
}

/// A number of records or frames: far below 2^32, because a segment has at most 2^30 bytes.
pub(crate) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a segment has fewer than 2^32 records")
}
