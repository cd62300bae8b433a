//! A protected machine and its agent: the disk survives, the agent's memory does not.

use crate::hop::Source;
use crate::log::{SimLog, write};
use crate::truth::{BLOCKS, Blocks};
use crate::world::Bug;
use landfall_repl::{Batch, Durable, ReceiverPosition, Refusal, SourceIdentity};
use landfall_types::{
    Chain, Control, Incarnation, Lsn, Record, WindowClose, WindowId, WindowMode, WindowOpen,
    WindowReason,
};

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) identity: SourceIdentity,
    pub(crate) blocks: Blocks,
    /// Records that the next hop may not have yet.
    pub(crate) queue: SimLog,
    /// Its own records can't be continued: the next position leads to a window (trap T-1).
    pub(crate) rebase: bool,
    /// Blocks that the open window still has to send.
    catch_up: Option<Vec<usize>>,
    to_close: Vec<WindowId>,
    /// Which write each LSN outside a window covers.
    covers: Vec<(Lsn, u64)>,
    newest: u64,
    pub(crate) promised: u64,
    /// Ask the sender to try again after a refusal that is answered by a window.
    pub(crate) restart: bool,
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
        let queue = SimLog::new(at.0, at.1, identity.incarnation, vec![]);
        let next_id = identity.incarnation.get() << 16;
        Self {
            identity,
            blocks,
            queue,
            rebase: false,
            catch_up: None,
            to_close: vec![],
            covers: vec![],
            newest: 0,
            promised: 0,
            restart: false,
            next_id,
            bug,
        }
    }

    /// The machine writes; the agent captures it if it runs and has a position to number from.
    pub(crate) fn write(&mut self, block: usize, number: u64) {
        self.blocks[block] = number;
        self.newest = number;
        if !self.rebase {
            self.push(write(self.queue.tail().next(), block, number));
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
            for window in std::mem::take(&mut self.to_close) {
                let close = Control::WindowClose(WindowClose { window, exact: true });
                self.push(Record::control(self.queue.tail().next(), &close));
            }
            self.cover();
            return true;
        };
        let record = write(self.queue.tail().next(), block, self.blocks[block]);
        self.push(record.as_catch_up());
        self.catch_up = Some(blocks);
        true
    }

    fn push(&mut self, record: Record) {
        let (epoch, incarnation) = (self.identity.lineage.epoch(), self.identity.incarnation);
        self.queue.push(record, epoch, incarnation);
        self.queue.flush();
    }

    fn cover(&mut self) {
        if self.catch_up.is_none() && self.to_close.is_empty() {
            self.covers.push((self.queue.tail(), self.newest));
        }
    }

    /// Numbers from where the receiver is, and makes all blocks equal inside a window.
    fn begin_anew(&mut self, position: &ReceiverPosition) {
        self.rebase = false;
        self.next_id += 1;
        let window = WindowId(self.next_id);
        let open = WindowOpen {
            window,
            reason: WindowReason::NewIncarnation,
            mode: WindowMode::Compare,
            disks: vec![0],
            into_image: false,
        };
        let windows = position.open_windows.clone();
        let incarnation = self.identity.incarnation;
        self.queue = SimLog::new(position.durable, position.chain, incarnation, windows.clone());
        self.covers.clear();
        self.to_close = windows;
        self.to_close.push(window);
        self.push(Record::control(self.queue.tail().next(), &Control::WindowOpen(open)));
        self.catch_up = Some((0..BLOCKS).collect());
    }
}

impl Source for Agent {
    fn identity(&mut self) -> Option<SourceIdentity> {
        Some(self.identity.clone())
    }

    fn resume(&mut self, position: &ReceiverPosition) -> Result<(), Refusal> {
        if self.rebase {
            self.begin_anew(position);
        } else if self.bug == Bug::NaiveRenumbering {
            // T-1: goes on numbering from what it had recorded, whatever the receiver says.
            return Ok(());
        } else if self.queue.chain_at(position.durable) != Some(position.chain) {
            // The receiver is ahead of us, behind what we still have, or has another history.
            self.new_incarnation(position.chain);
            return Err(Refusal::ChainMismatch { lsn: position.durable });
        }
        self.queue.trim(position.durable);
        Ok(())
    }

    fn read(&mut self, from: Lsn, count: u64) -> Option<Result<Batch, Refusal>> {
        self.queue.batch(from, count, self.queue.tail()).map(Ok)
    }

    fn acknowledged(&mut self, durable: Durable) {
        self.queue.trim(durable.here);
        let covered = self.covers.iter().rev().find(|(lsn, _)| *lsn <= durable.at_target);
        self.promised = self.promised.max(covered.map_or(0, |(_, number)| *number));
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
