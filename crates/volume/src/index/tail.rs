use landfall_index::{ExtentMap, Holder, Item, MemoryRun};
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::collections::BTreeMap;

/// The records of a log that no run file has yet.
#[derive(Debug)]
pub(crate) struct Tail {
    /// From behind here …
    pub(crate) after: Lsn,
    /// … up to and including here.
    pub(crate) through: Lsn,
    /// In the order of the log; no control records.
    pub(crate) items: Vec<Item>,
    maps: BTreeMap<DiskIndex, ExtentMap<Holder>>,
    pub(crate) written_bytes: u64,
}

impl Tail {
    pub(crate) const fn new(after: Lsn) -> Self {
        Self { after, through: after, items: vec![], maps: BTreeMap::new(), written_bytes: 0 }
    }

    /// The next record.
    pub(crate) fn push(&mut self, item: &Item) {
        self.through = item.header.lsn;
        let (Some(range), Some(holder)) = (item.header.range(), item.holder()) else { return };
        self.maps.entry(item.header.disk).or_default().insert(range, holder);
        self.items.push(*item);
        self.written_bytes += written(item);
    }

    /// The range cut into pieces, in order and covering it whole: what of these records holds each.
    pub(crate) fn pieces(&self, disk: DiskIndex, range: ByteRange) -> Pieces {
        match self.maps.get(&disk) {
            Some(map) => map.pieces(range),
            None => vec![(range, None)],
        }
    }

    /// The records up to a position, sorted.
    pub(crate) fn up_to(&self, through: Lsn) -> MemoryRun {
        let count = self.items.partition_point(|item| item.header.lsn <= through);
        MemoryRun::new(&self.items[..count])
    }
}

/// A range in pieces, and what holds each.
pub(crate) type Pieces = Vec<(ByteRange, Option<Holder>)>;

/// Bytes that a record wrote; 0 for catch-up data, which is no write of the machine.
pub(crate) fn written(item: &Item) -> u64 {
    if item.header.catch_up { 0 } else { item.header.length }
}
