//! What both ends of a connection remember of the records that crossed it, so that a batch is
//! compressed against what its blocks held before.
//!
//! Databases write the same blocks again and again with few bytes changed. The previous content of
//! the blocks that a batch writes is a dictionary that the receiver has too, because it was in an
//! earlier batch of this connection. Nothing is read from a disk for it, and both histories begin
//! empty with the connection, so no crash can make them differ.
//!
//! Everything here is a function of the batches alone: sender and receiver call [`History::learn`]
//! with the same batches in the same order, and then agree on each [`History::prefix`].

use landfall_repl::Batch;
use landfall_types::{ByteRange, Record, RecordHeader, RecordKind};
use std::collections::{BTreeMap, HashMap};

/// Blocks are remembered whole and aligned: the page of most databases and file systems is a
/// multiple.
const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = BLOCK_BYTES as usize;
/// Bytes of the newest payloads that serve small batches as a window into the stream before them.
const RECENT_BYTES_MAX: usize = 256 * 1024;
/// The window into the stream is at most this many times as long as the batch: building its index
/// costs processor time, which a small batch must not pay.
const RECENT_PER_BATCH: usize = 8;

/// Most bytes of a dictionary, however many blocks the records touch.
const PREFIX_BYTES_MAX: usize = 8 * 1024 * 1024;

type Key = (u16, u64);

/// Bounded memory of one direction of one connection.
#[derive(Debug, Default)]
pub(crate) struct History {
    blocks_max: usize,
    blocks: HashMap<Key, Block>,
    /// Last use → block, oldest first; uses are numbered, so both ends forget the same block.
    order: BTreeMap<u64, Key>,
    uses: u64,
    /// The end of the stream, and up to as much again that lies before it and is cut off in one go.
    recent: Vec<u8>,
}

#[derive(Debug)]
struct Block {
    used: u64,
    content: Box<[u8]>,
}

impl History {
    /// `bytes`: memory for blocks; 0 remembers nothing. The window into the stream comes on top.
    pub(crate) fn new(bytes: u64) -> Self {
        let blocks_max = usize::try_from(bytes / BLOCK_BYTES).unwrap_or(usize::MAX);
        Self { blocks_max, ..Self::default() }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.blocks_max > 0
    }

    /// The dictionary for records with these headers and `expanded` bytes of payload: the end of
    /// the stream before them, then what their blocks held, in the order of the records. Empty
    /// where nothing is known. At most [`PREFIX_BYTES_MAX`].
    pub(crate) fn prefix(&self, headers: &[RecordHeader], expanded: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.is_on() {
            return out;
        }
        let wanted = expanded.saturating_mul(RECENT_PER_BATCH).min(RECENT_BYTES_MAX);
        out.extend_from_slice(&self.recent[self.recent.len().saturating_sub(wanted)..]);
        for header in headers.iter().filter(|header| header.kind == RecordKind::Write) {
            let Some(range) = header.range() else { continue };
            for number in touched(range) {
                if let Some(block) = self.blocks.get(&(header.disk.0, number)) {
                    if out.len() + BLOCK > PREFIX_BYTES_MAX {
                        return out;
                    }
                    out.extend_from_slice(&block.content);
                }
            }
        }
        out
    }

    /// Remembers what the batch has written.
    pub(crate) fn learn(&mut self, batch: &Batch) {
        if !self.is_on() {
            return;
        }
        for record in &batch.records {
            match record.header.kind {
                RecordKind::Write => self.written(record),
                RecordKind::Zero | RecordKind::Discard => self.cleared(record),
                RecordKind::Control => {}
            }
        }
    }

    fn written(&mut self, record: &Record) {
        let Some(range) = record.header.range() else { return };
        for number in touched(range) {
            let start = number * BLOCK_BYTES;
            let block = ByteRange { start, end: start + BLOCK_BYTES };
            let Some(part) = range.intersect(&block) else { continue };
            let slice = |at: u64| usize::try_from(at - range.start).unwrap_or(usize::MAX);
            // A payload shorter than its header says never gets here: the record was checked.
            let Some(bytes) = record.payload.get(slice(part.start)..slice(part.end)) else {
                return;
            };
            self.put((record.header.disk.0, number), (part.start - start) as usize, bytes);
        }
        self.recent.extend_from_slice(&record.payload);
        if self.recent.len() > 2 * RECENT_BYTES_MAX {
            self.recent.drain(..self.recent.len() - RECENT_BYTES_MAX);
        }
    }

    /// A part of a block that is not known leaves it unknown.
    fn put(&mut self, key: Key, at: usize, bytes: &[u8]) {
        self.uses += 1;
        match self.blocks.get_mut(&key) {
            Some(block) => {
                self.order.remove(&block.used);
                block.used = self.uses;
                block.content[at..at + bytes.len()].copy_from_slice(bytes);
            }
            None if bytes.len() == BLOCK => {
                if self.blocks.len() >= self.blocks_max
                    && let Some((_, oldest)) = self.order.pop_first()
                {
                    self.blocks.remove(&oldest);
                }
                self.blocks.insert(key, Block { used: self.uses, content: bytes.into() });
            }
            None => return,
        }
        self.order.insert(self.uses, key);
    }

    fn cleared(&mut self, record: &Record) {
        let Some(range) = record.header.range() else { return };
        let disk = record.header.disk.0;
        let numbers = touched(range);
        // A discard may cover a whole disk: then the shorter way is through what is remembered.
        let gone: Vec<Key> = if numbers.end - numbers.start <= self.blocks.len() as u64 {
            numbers.map(|number| (disk, number)).collect()
        } else {
            let inside = |key: &&Key| key.0 == disk && numbers.contains(&key.1);
            self.blocks.keys().filter(inside).copied().collect()
        };
        for key in gone {
            if let Some(block) = self.blocks.remove(&key) {
                self.order.remove(&block.used);
            }
        }
    }
}

/// Numbers of the blocks that a range touches.
const fn touched(range: ByteRange) -> std::ops::Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}
