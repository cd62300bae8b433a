//! A log with a durable and a volatile part, as simple as it can be.

use bytes::Bytes;
use landfall_repl::{Batch, ReceiverPosition, Refusal};
use landfall_testkit::Rng;
use landfall_types::{
    Chain, Control, DiskIndex, Epoch, Incarnation, Lsn, Record, RecordKind, WindowId,
};
use std::collections::VecDeque;

/// Who wrote a record, and how far its ring was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) ring: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    stamp: Stamp,
    chain: Chain,
}

#[derive(Clone, Debug)]
pub(crate) struct SimLog {
    base: Lsn,
    base_chain: Chain,
    base_incarnation: Incarnation,
    base_ring: u64,
    base_windows: Vec<WindowId>,
    pub(crate) entries: VecDeque<Entry>,
    durable: Lsn,
}

impl SimLog {
    /// An empty log behind this record.
    pub(crate) const fn after(base: Lsn, base_chain: Chain) -> Self {
        Self {
            base,
            base_chain,
            base_incarnation: Incarnation::NONE,
            base_ring: 0,
            base_windows: vec![],
            entries: VecDeque::new(),
            durable: base,
        }
    }

    /// An empty log where a receiver stands.
    pub(crate) fn at(position: &ReceiverPosition) -> Self {
        Self {
            base_incarnation: position.incarnation,
            base_ring: position.source_position,
            base_windows: position.open_windows.clone(),
            ..Self::after(position.durable, position.chain)
        }
    }

    pub(crate) fn base(&self) -> Lsn {
        self.base
    }
    pub(crate) fn tail(&self) -> Lsn {
        self.base.plus(self.entries.len() as u64)
    }
    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }
    pub(crate) fn chain_at(&self, lsn: Lsn) -> Option<Chain> {
        if lsn == self.base {
            return Some(self.base_chain);
        }
        self.entry(lsn).map(|entry| entry.chain)
    }
    pub(crate) fn tail_chain(&self) -> Chain {
        self.entries.back().map_or(self.base_chain, |entry| entry.chain)
    }
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.entries.back().map_or(self.base_incarnation, |entry| entry.stamp.incarnation)
    }
    /// The ring's position at the tail.
    pub(crate) fn ring(&self) -> u64 {
        self.entries.back().map_or(self.base_ring, |entry| entry.stamp.ring)
    }
    pub(crate) const fn base_ring(&self) -> u64 {
        self.base_ring
    }
    fn entry(&self, lsn: Lsn) -> Option<&Entry> {
        if lsn <= self.base {
            return None;
        }
        self.entries.get(usize::try_from(lsn.records_since(self.base) - 1).expect("small"))
    }

    /// Windows open at the tail, counted by hand.
    pub(crate) fn windows(&self) -> Vec<WindowId> {
        let mut open = self.base_windows.clone();
        self.entries.iter().for_each(|entry| follow(&mut open, &entry.record));
        open
    }

    /// What a sink does: the next record, or one that is there already, or no.
    pub(crate) fn append(&mut self, batch: &Batch) -> Result<(), Refusal> {
        for record in &batch.records {
            let lsn = record.header.lsn;
            record.verify().expect("nothing damages records here");
            if lsn > self.tail() {
                if lsn != self.tail().next() {
                    return Err(Refusal::Gap { expected: self.tail().next(), found: lsn });
                }
                self.push(record.clone(), stamp_of(batch));
            } else if self.entry(lsn).is_none_or(|entry| entry.record != *record) {
                return Err(Refusal::ChainMismatch { lsn });
            }
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, record: Record, stamp: Stamp) {
        let chain = record.chain(self.tail_chain());
        self.entries.push_back(Entry { record, stamp, chain });
    }

    pub(crate) fn flush(&mut self) {
        self.durable = self.tail();
    }

    /// A power cut: of what was not flushed any beginning may survive.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let unflushed = self.tail().records_since(self.durable);
        let kept = rng.below(unflushed + 1);
        self.entries.truncate(
            usize::try_from(self.durable.plus(kept).records_since(self.base)).expect("small"),
        );
        self.flush();
    }

    pub(crate) fn trim(&mut self, through: Lsn) {
        while self.base < through {
            let Some(entry) = self.entries.pop_front() else { break };
            follow(&mut self.base_windows, &entry.record);
            self.base = self.base.next();
            self.base_chain = entry.chain;
            self.base_incarnation = entry.stamp.incarnation;
            self.base_ring = entry.stamp.ring;
        }
        self.durable = self.durable.max(self.base);
    }

    /// At most `count` records of one epoch and incarnation, none beyond `through`.
    pub(crate) fn batch(&self, from: Lsn, count: u64, through: Lsn) -> Option<Batch> {
        let first = self.entry(from)?;
        let mut records = vec![];
        let Stamp { epoch, incarnation, ring: mut source_position } = first.stamp;
        for n in 0..count {
            let lsn = from.plus(n);
            let Some(entry) = self.entry(lsn).filter(|_| lsn <= through) else { break };
            if !entry.stamp.epoch.is(&epoch) || entry.stamp.incarnation != incarnation {
                break;
            }
            source_position = entry.stamp.ring;
            records.push(entry.record.clone());
        }
        let chain_before = self.chain_at(from.prev())?;
        let batch = Batch { epoch, incarnation, chain_before, source_position, records };
        (!batch.records.is_empty()).then_some(batch)
    }
}

/// What a receiver knows of a batch's records.
pub(crate) const fn stamp_of(batch: &Batch) -> Stamp {
    Stamp { epoch: batch.epoch, incarnation: batch.incarnation, ring: batch.source_position }
}

pub(crate) fn follow(open: &mut Vec<WindowId>, record: &Record) {
    match control(record) {
        Some(Control::WindowOpen(window)) => open.push(window.window),
        Some(Control::WindowClose(window)) => {
            if let Some(at) = open.iter().rposition(|id| *id == window.window) {
                open.remove(at);
            }
        }
        Some(Control::Marker(_) | Control::Geometry(_)) | None => {}
    }
}

pub(crate) fn control(record: &Record) -> Option<Control> {
    (record.header.kind == RecordKind::Control)
        .then(|| Control::decode(&record.payload).expect("written by this test"))
}

/// Block `block` now holds `value`.
pub(crate) fn write(lsn: Lsn, block: usize, value: u64) -> Record {
    let data = Bytes::copy_from_slice(&value.to_le_bytes());
    Record::write(lsn, DiskIndex(0), block as u64 * 4096, data)
}
