//! The agent's part of the log: gives records their LSNs, and keeps them until the next hop has
//! them durable.
//!
//! Pure: no clock, no input or output. A record gets its LSN when it is taken from the ring, in the
//! ring's order (design section 14.1).

use crate::ranges::RangeSet;
use bytes::Bytes;
use landfall_capture::{Captured, CapturedKind};
use landfall_repl::{
    Batch, Durable, Mismatch, ProducerResume, ProducerView, ReceiverPosition, follow_receiver,
};
use landfall_types::{
    ByteRange, Chain, Control, DiskIndex, Epoch, HEADER_BYTES, Incarnation, Lsn, Marker,
    PAYLOAD_BYTES_MAX, Record, WindowClose, WindowId, WindowMode, WindowOpen, WindowReason,
    Windows,
};
use std::collections::{BTreeMap, VecDeque};

/// A position and the running hash there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tip {
    /// Where.
    pub lsn: Lsn,
    /// The chain there.
    pub chain: Chain,
}

struct Queued {
    record: Record,
    chain_after: Chain,
    incarnation: Incarnation,
    source_position: u64,
}

/// How a window has to do with a first copy, whose pieces go straight into the image and name a
/// window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyWindow {
    /// Not at all.
    None,
    /// It is that window.
    This,
    /// The copy of an earlier one goes on: that one stays open beside this.
    GoesOn(WindowId),
}

/// What a window that is being caught up still has to send.
struct CatchUpWindow {
    id: WindowId,
    pending: BTreeMap<DiskIndex, RangeSet>,
}

/// Records with their LSNs, from the last one that the next hop has durable to the newest.
pub struct SourceLog {
    epoch: Epoch,
    incarnation: Incarnation,
    base: Tip,
    tail: Tip,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    ring_position: u64,
    acknowledged_ring: u64,
    windows: Windows,
    catch_up: Option<CatchUpWindow>,
    unknown: BTreeMap<DiskIndex, RangeSet>,
    durable: Durable,
}

impl SourceLog {
    /// Continues a log at `base`, of which the receiver says that these windows are open.
    #[must_use]
    pub fn new(epoch: Epoch, base: Tip, open_windows: &[WindowId]) -> Self {
        Self {
            epoch,
            incarnation: Incarnation::NONE,
            base,
            tail: base,
            queue: VecDeque::new(),
            queued_bytes: 0,
            ring_position: 0,
            acknowledged_ring: 0,
            windows: Windows::from_open(open_windows),
            catch_up: None,
            unknown: BTreeMap::new(),
            durable: Durable { here: base.lsn, at_target: Lsn::ZERO },
        }
    }

    /// A load of the capture continues the log: what follows is of this incarnation, from this
    /// position of its ring on. What was pending stays open as a window without a catch-up, until
    /// [`SourceLog::open_window`] covers it.
    pub fn begin_incarnation(&mut self, incarnation: Incarnation, ring_position: u64) {
        self.incarnation = incarnation;
        self.ring_position = ring_position;
        self.acknowledged_ring = ring_position;
        self.catch_up = None;
    }

    /// Takes a record of the ring.
    pub fn captured(&mut self, captured: Captured) {
        let Captured { disk, kind, offset, length, ring_position, .. } = captured;
        let range = ByteRange { start: offset, end: offset + length };
        self.ring_position = ring_position;
        match kind {
            CapturedKind::Write(data) => {
                self.settle_logged(disk, range);
                self.append(|lsn| Record::write(lsn, disk, offset, data));
            }
            CapturedKind::Zero => {
                self.settle_logged(disk, range);
                self.append(|lsn| Record::zero(lsn, disk, offset, length));
            }
            CapturedKind::Discard => {
                self.settle_logged(disk, range);
                self.append(|lsn| Record::discard(lsn, disk, offset, length));
            }
            // The write that failed has its record already; what the disk holds there has to be
            // read again.
            CapturedKind::Failed => self.unknown.entry(disk).or_default().insert(range),
        }
    }

    /// Puts a marker into the log; `None` where the position is no recovery point: a window is
    /// open, or the last one closed inexactly (trap T-5).
    pub fn mark(&mut self, marker: Marker) -> Option<Lsn> {
        if !self.windows.legal() {
            return None;
        }
        Some(self.control(&Control::Marker(marker)))
    }

    /// Appends a control record that opens or closes nothing.
    pub fn control(&mut self, control: &Control) -> Lsn {
        self.windows
            .apply(control)
            .expect("only windows that are open are closed, and few are opened");
        self.append(|lsn| Record::control(lsn, control))
    }

    /// Opens a window over `ranges`, which names every disk of the machine, also those without a
    /// range. Its ID is the LSN of its record, so that no two windows of a log share one.
    ///
    /// Windows that are open are given up first, as inexact: whoever did their work is gone, and
    /// what it sent last may be torn. This one repairs them only if it opens behind their closing
    /// (trap T-5). The window of a first copy that goes on (`copy`) stays: its pieces name it.
    pub fn open_window(
        &mut self,
        reason: WindowReason,
        mode: WindowMode,
        copy: CopyWindow,
        ranges: BTreeMap<DiskIndex, RangeSet>,
    ) -> WindowId {
        self.catch_up = None;
        for window in self.windows.open_ids() {
            if copy != CopyWindow::GoesOn(window) {
                self.control(&Control::WindowClose(WindowClose { window, exact: false }));
            }
        }
        let id = WindowId(self.tail.lsn.next().get());
        let disks = ranges.keys().map(|disk| disk.0).collect();
        let into_image = copy == CopyWindow::This;
        let open = WindowOpen { window: id, reason, mode, disks, into_image };
        self.control(&Control::WindowOpen(open));
        self.catch_up = Some(CatchUpWindow { id, pending: ranges });
        id
    }

    /// More is to be sent for `window`: what the bitmap says is dirty.
    pub fn extend_window(&mut self, window: WindowId, disk: DiskIndex, ranges: &[ByteRange]) {
        if let Some(running) = self.catch_up.as_mut().filter(|running| running.id == window) {
            let pending = running.pending.entry(disk).or_default();
            ranges.iter().for_each(|range| pending.insert(*range));
        }
    }

    /// Moves the ranges of failed writes into what is to be sent for `window`: whoever asks reads
    /// them again. Empty when there are none, or the window is not being caught up.
    pub fn take_unknown(&mut self, window: WindowId) -> BTreeMap<DiskIndex, RangeSet> {
        if self.catch_up_window() != Some(window) {
            return BTreeMap::new();
        }
        let unknown = std::mem::take(&mut self.unknown);
        for (disk, set) in &unknown {
            self.extend_window(window, *disk, &set.iter().collect::<Vec<_>>());
        }
        unknown
    }

    /// Closes the window that is being caught up, and that of the first copy which it finished;
    /// `exact` as in [`WindowClose`]. `None` when it is not `window` (trap T-4): a later one has
    /// taken its place, and the work for the former is void. `None` also while ranges of failed
    /// writes are unknown: a producer that died right behind the closing would forget them.
    pub fn close_window(&mut self, window: WindowId, exact: bool) -> Option<Lsn> {
        if !self.unknown.is_empty() {
            return None;
        }
        self.catch_up.take_if(|running| running.id == window)?;
        let mut last = Lsn::ZERO;
        for window in self.windows.open_ids() {
            last = self.control(&Control::WindowClose(WindowClose { window, exact }));
        }
        Some(last)
    }

    /// Appends what was read at `offset` for `window`, where it is still pending (trap T-2); gives
    /// the bytes appended: none for a window that is not being caught up any more.
    ///
    /// The caller has drained the ring up to its head at the end of the read: a write that was
    /// logged meanwhile has taken its sectors out, so that older content never lands behind newer.
    pub fn append_read(
        &mut self,
        window: WindowId,
        disk: DiskIndex,
        offset: u64,
        data: &Bytes,
    ) -> u64 {
        let range = ByteRange { start: offset, end: offset + data.len() as u64 };
        let still = self.pending(window, disk, range);
        for part in &still {
            let mut at = part.start;
            while at < part.end {
                let end = part.end.min(at + PAYLOAD_BYTES_MAX as u64);
                let (from, to) = (index(at - offset), index(end - offset));
                let piece = data.slice(from..to);
                if is_zero(&piece) {
                    self.append(|lsn| Record::zero(lsn, disk, at, end - at).as_catch_up());
                } else {
                    self.append(|lsn| Record::write(lsn, disk, at, piece).as_catch_up());
                }
                at = end;
            }
        }
        self.settle(window, disk, range);
        still.iter().map(ByteRange::len).sum()
    }

    /// The parts of a range that are still to be sent for `window`.
    #[must_use]
    pub fn pending(&self, window: WindowId, disk: DiskIndex, range: ByteRange) -> Vec<ByteRange> {
        let running = self.catch_up.as_ref().filter(|running| running.id == window);
        let set = running.and_then(|running| running.pending.get(&disk));
        set.map_or_else(Vec::new, |set| set.within(range))
    }

    /// A range needs no sending for `window` any more: it was sent or found equal.
    pub fn settle(&mut self, window: WindowId, disk: DiskIndex, range: ByteRange) {
        if let Some(running) = &mut self.catch_up
            && running.id == window
            && let Some(set) = running.pending.get_mut(&disk)
        {
            set.remove(range);
        }
    }

    /// A range was logged: whatever is being caught up, it needs no sending any more.
    fn settle_logged(&mut self, disk: DiskIndex, range: ByteRange) {
        if let Some(CatchUpWindow { id, .. }) = self.catch_up {
            self.settle(id, disk, range);
        }
    }

    /// Ranges whose content on the disk is unknown since a write to them failed; a window stays
    /// open until they were read again.
    #[must_use]
    pub const fn unknown(&self) -> &BTreeMap<DiskIndex, RangeSet> {
        &self.unknown
    }

    /// The window that is being caught up.
    #[must_use]
    pub fn catch_up_window(&self) -> Option<WindowId> {
        self.catch_up.as_ref().map(|window| window.id)
    }

    /// True when the newest position is a recovery point.
    #[must_use]
    pub fn legal(&self) -> bool {
        self.windows.legal()
    }

    /// How the log goes on at a receiver's position (trap T-1); `bits_since`: what the target had
    /// durable when dirty bits were dropped last.
    #[must_use]
    pub fn follow(&self, position: &ReceiverPosition, bits_since: Lsn) -> ProducerResume {
        let view = ProducerView {
            incarnation: self.incarnation,
            base: self.base.lsn,
            tail: self.tail.lsn,
            base_source_position: self.acknowledged_ring,
            known_at_target: bits_since.max(self.durable.at_target),
            chain_there: self.chain_at(position.durable),
        };
        follow_receiver(&view, position)
    }

    fn chain_at(&self, lsn: Lsn) -> Option<Chain> {
        match lsn.get().checked_sub(self.base.lsn.get())? {
            0 => Some(self.base.chain),
            count => self.queue.get(index(count - 1)).map(|queued| queued.chain_after),
        }
    }

    /// Records from `from` on, of one incarnation, of about `bytes_max` bytes; `Ok(None)` when
    /// there is none yet.
    ///
    /// # Errors
    /// [`Mismatch`] when records from there on are not here.
    pub fn read(&self, from: Lsn, bytes_max: usize) -> Result<Option<Batch>, Mismatch> {
        let before = from.prev();
        if before < self.base.lsn {
            return Err(Mismatch::Behind { durable: before, base: self.base.lsn });
        }
        let Some(chain_before) = self.chain_at(before) else {
            return Err(Mismatch::Ahead { durable: before, tail: self.tail.lsn });
        };
        let first = index(before.records_since(self.base.lsn));
        let Some(incarnation) = self.queue.get(first).map(|queued| queued.incarnation) else {
            return Ok(None);
        };
        let mut bytes = 0;
        let mut source_position = 0;
        let mut records = Vec::new();
        for queued in self.queue.range(first..) {
            let cost = HEADER_BYTES + queued.record.payload.len();
            if queued.incarnation != incarnation
                || (!records.is_empty() && bytes + cost > bytes_max)
            {
                break;
            }
            bytes += cost;
            source_position = queued.source_position;
            records.push(queued.record.clone());
        }
        Ok(Some(Batch { epoch: self.epoch, incarnation, chain_before, source_position, records }))
    }

    /// Forgets what the next hop has durable.
    pub fn acknowledged(&mut self, durable: Durable) {
        self.durable.at_target = self.durable.at_target.max(durable.at_target);
        self.durable.here = self.durable.here.max(durable.here);
        while let Some(queued) = self.queue.pop_front_if(|q| q.record.header.lsn <= durable.here) {
            self.queued_bytes -= HEADER_BYTES + queued.record.payload.len();
            self.base = Tip { lsn: queued.record.header.lsn, chain: queued.chain_after };
            if queued.incarnation == self.incarnation {
                self.acknowledged_ring = queued.source_position;
            }
        }
    }

    /// The ring's position of the newest record that was put into the log.
    #[must_use]
    pub const fn ring_position(&self) -> u64 {
        self.ring_position
    }

    /// The ring's position up to which the next hop has everything durable.
    #[must_use]
    pub const fn acknowledged_ring(&self) -> u64 {
        self.acknowledged_ring
    }

    /// The newest record.
    #[must_use]
    pub const fn tail(&self) -> Tip {
        self.tail
    }

    /// What is durable where.
    #[must_use]
    pub const fn durable(&self) -> Durable {
        self.durable
    }

    /// Bytes kept in memory.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn append(&mut self, make: impl FnOnce(Lsn) -> Record) -> Lsn {
        let lsn = self.tail.lsn.next();
        let record = make(lsn);
        assert_eq!(record.header.lsn, lsn, "a record gets the next LSN");
        let chain_after = record.chain(self.tail.chain);
        self.tail = Tip { lsn, chain: chain_after };
        self.queued_bytes += HEADER_BYTES + record.payload.len();
        let (incarnation, source_position) = (self.incarnation, self.ring_position);
        self.queue.push_back(Queued { record, chain_after, incarnation, source_position });
        lsn
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("fits into memory, so it fits into usize")
}

/// True when every byte is 0.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    let chunks = data.chunks_exact(16);
    chunks.remainder().iter().all(|byte| *byte == 0) && chunks.into_iter().all(|c| c == [0; 16])
}

#[cfg(test)]
mod tests;
