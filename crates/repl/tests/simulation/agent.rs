//! A protected machine and its agent: the disk survives, the agent's memory does not.

use crate::bug::Bug;
use crate::hop::Source;
use crate::log::{SimLog, Stamp, write};
use crate::truth::{BLOCKS, Blocks};
use landfall_repl::{
    Batch, Durable, ProducerResume, ProducerView, ReceiverPosition, Refusal, SourceIdentity,
    follow_receiver,
};
use landfall_types::{
    Chain, Control, Incarnation, Lsn, Record, WindowClose, WindowId, WindowMode, WindowOpen,
    WindowReason,
};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) identity: SourceIdentity,
    pub(crate) blocks: Blocks,
    /// Records that the next hop may not have yet.
    pub(crate) queue: SimLog,
    /// Its own records can't be continued: the next position leads to a window (trap T-1).
    pub(crate) rebase: bool,
    /// How many writes the capture has seen.
    ring: u64,
    /// Blocks that the open window still has to send.
    catch_up: Option<Vec<usize>>,
    to_close: Vec<WindowId>,
    /// Which write each LSN outside a window covers.
    covers: Vec<(Lsn, u64)>,
    /// The bitmap: blocks that the target may lack, with the newest record that has them;
    /// `Lsn::MAX`: the open window will.
    dirty: BTreeMap<usize, Lsn>,
    known_at_target: Lsn,
    newest: u64,
    pub(crate) promised: u64,
    /// The same for what the first relay has acknowledged.
    pub(crate) promised_here: u64,
    /// Ask the sender to try again after a refusal that is answered by a window.
    pub(crate) restart: bool,
    /// Catch-ups of everything, and of dirty blocks only.
    pub(crate) catch_ups: (u64, u64),
    next_id: u64,
    bug: Bug,
}

impl Agent {
    pub(crate) fn new(
        identity: SourceIdentity,
        blocks: Blocks,
        at: (Lsn, Chain),
        bug: Bug,
    ) -> Self {
        let next_id = identity.incarnation.get() << 16;
        Self {
            identity,
            blocks,
            queue: SimLog::after(at.0, at.1),
            rebase: false,
            ring: 0,
            catch_up: None,
            to_close: vec![],
            covers: vec![],
            dirty: BTreeMap::new(),
            known_at_target: at.0,
            newest: 0,
            promised: 0,
            promised_here: 0,
            restart: false,
            catch_ups: (0, 0),
            next_id,
            bug,
        }
    }

    /// The machine writes; the agent captures it if it runs and has a position to number from.
    pub(crate) fn write(&mut self, block: usize, number: u64) {
        self.blocks[block] = number;
        self.newest = number;
        if !self.rebase {
            self.ring += 1;
            let lsn = self.queue.tail().next();
            self.push(write(lsn, block, number));
            let at = self.dirty.entry(block).or_insert(lsn);
            // A block that the window has to send stays its business until the window closes.
            *at = (*at).max(lsn);
            self.cover();
        }
    }

    /// The agent dies and comes back: a new incarnation without memory. What was written meanwhile
    /// is not captured.
    pub(crate) fn restarted(&mut self, incarnation: u64) {
        self.identity.incarnation = Incarnation::new(incarnation);
        self.next_id = incarnation << 16;
        self.rebase = true;
        self.catch_up = None;
    }

    /// Its own records can't follow on what the receiver has: a window will, at the next attempt.
    /// The number is as good as random, because the chain is.
    fn new_incarnation(&mut self, chain: Chain) {
        let bytes = chain.as_bytes().first_chunk().expect("16 bytes");
        let random = u64::from_le_bytes(*bytes) ^ self.identity.incarnation.get().rotate_left(7);
        self.restarted(random >> 17);
        self.restart = true;
    }

    /// The newest write that an acknowledgement can cover.
    pub(crate) fn newest_covered(&self) -> u64 {
        self.covers.last().map_or(0, |(_, number)| *number).max(self.promised)
    }

    pub(crate) fn quiet(&self) -> bool {
        !self.rebase && self.catch_up.is_none()
    }

    /// One more block of the open window. Reading and appending are one step here (trap T-2 is the
    /// capture's).
    pub(crate) fn work(&mut self) -> bool {
        let Some(mut blocks) = self.catch_up.take() else { return false };
        let Some(block) = blocks.pop() else {
            self.close_windows();
            return true;
        };
        let record = write(self.queue.tail().next(), block, self.blocks[block]);
        self.push(record.as_catch_up());
        self.catch_up = Some(blocks);
        true
    }

    fn close_windows(&mut self) {
        for window in std::mem::take(&mut self.to_close) {
            let close = Control::WindowClose(WindowClose { window, exact: true });
            self.push(Record::control(self.queue.tail().next(), &close));
        }
        let closed = self.queue.tail();
        self.dirty.values_mut().for_each(|at| *at = closed.min(*at));
        self.cover();
    }

    fn push(&mut self, record: Record) {
        let (epoch, incarnation) = (self.identity.lineage.epoch(), self.identity.incarnation);
        self.queue.push(record, Stamp { epoch, incarnation, ring: self.ring });
        self.queue.flush();
    }

    fn cover(&mut self) {
        if self.catch_up.is_none() && self.to_close.is_empty() {
            self.covers.push((self.queue.tail(), self.newest));
        }
    }

    /// A new incarnation: numbers from where the receiver is, and makes all blocks equal.
    fn compare_all(&mut self, position: &ReceiverPosition) {
        self.rebase = false;
        self.ring = 0;
        self.catch_ups.0 += 1;
        self.dirty = (0..BLOCKS).map(|block| (block, Lsn::MAX)).collect();
        self.known_at_target = Lsn::ZERO;
        self.begin_window(position, WindowReason::NewIncarnation, WindowMode::Compare);
    }

    /// The same incarnation behind an older position: makes the dirty blocks equal.
    fn send_dirty(&mut self, position: &ReceiverPosition) {
        self.catch_ups.1 += 1;
        self.dirty.values_mut().for_each(|at| *at = Lsn::MAX);
        self.begin_window(position, WindowReason::PositionLost, WindowMode::Copy);
    }

    /// Sends what is dirty inside a window behind the receiver's position.
    fn begin_window(
        &mut self,
        position: &ReceiverPosition,
        reason: WindowReason,
        mode: WindowMode,
    ) {
        self.next_id += 1;
        let window = WindowId(self.next_id);
        let open = WindowOpen { window, reason, mode, disks: vec![0], into_image: false };
        self.queue = SimLog::at(position);
        self.covers.clear();
        self.to_close = position.open_windows.clone();
        self.to_close.push(window);
        self.push(Record::control(self.queue.tail().next(), &Control::WindowOpen(open)));
        self.catch_up = Some(self.dirty.keys().copied().collect());
        if self.bug == Bug::WindowClosedEarly {
            let blocks = self.catch_up.take();
            self.close_windows();
            self.catch_up = blocks;
        }
    }

    fn follow(&self, position: &ReceiverPosition) -> ProducerResume {
        let mut view = ProducerView {
            incarnation: self.identity.incarnation,
            base: self.queue.base(),
            tail: self.queue.tail(),
            base_source_position: self.queue.base_ring(),
            known_at_target: self.known_at_target,
            chain_there: self.queue.chain_at(position.durable),
        };
        if self.bug == Bug::BitsTrustedTooFar {
            view.known_at_target = Lsn::ZERO;
        }
        follow_receiver(&view, position)
    }

    /// Drops the bits of what is durable at the newest recovery point up to `durable`.
    fn drop_bits(&mut self, durable: Durable) {
        let point = |through| self.covers.iter().rev().map(|one| one.0).find(|lsn| *lsn <= through);
        self.known_at_target = self.known_at_target.max(durable.at_target);
        let known = match self.bug {
            Bug::BitsDroppedAtRelay => durable.here,
            _ => durable.at_target,
        };
        if let Some(point) = point(known) {
            self.dirty.retain(|_, at| *at > point);
        }
    }
}

impl Source for Agent {
    fn identity(&mut self) -> Option<SourceIdentity> {
        Some(self.identity.clone())
    }

    fn resume(&mut self, position: &ReceiverPosition) -> Result<(), Refusal> {
        if self.rebase {
            self.compare_all(position);
        } else if self.bug == Bug::NaiveRenumbering {
            // T-1: goes on numbering from what it had recorded, whatever the receiver says.
            return Ok(());
        } else {
            match self.follow(position) {
                ProducerResume::Continue => {}
                ProducerResume::SendDirty => self.send_dirty(position),
                ProducerResume::Compare(_) => {
                    self.new_incarnation(position.chain);
                    return Err(Refusal::ChainMismatch { lsn: position.durable });
                }
            }
        }
        self.queue.trim(position.durable);
        Ok(())
    }

    fn read(&mut self, from: Lsn, count: u64) -> Option<Result<Batch, Refusal>> {
        self.queue.batch(from, count, self.queue.tail()).map(Ok)
    }

    fn acknowledged(&mut self, durable: Durable) {
        self.queue.trim(durable.here);
        self.drop_bits(durable);
        let covered = |through| {
            let covered = self.covers.iter().rev().find(|(lsn, _)| *lsn <= through);
            covered.map_or(0, |(_, number)| *number)
        };
        self.promised = self.promised.max(covered(durable.at_target));
        self.promised_here = self.promised_here.max(covered(durable.here));
    }

    fn refused(&mut self, refusal: &Refusal) {
        if matches!(refusal, Refusal::ChainMismatch { .. } | Refusal::Diverged { .. })
            && !self.rebase
            && self.bug != Bug::NaiveRenumbering
        {
            self.new_incarnation(self.queue.tail_chain());
        }
    }
}
