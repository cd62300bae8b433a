//! The oracle: what the disk of the machine really held, write by write. It knows nothing of LSNs,
//! epochs or chains.

use crate::log::{SimLog, control};
use landfall_types::{Control, Record, RecordKind};
use std::collections::HashMap;

/// Blocks of the simulated disk.
pub(crate) const BLOCKS: usize = 6;
pub(crate) type Blocks = [u64; BLOCKS];

#[derive(Debug)]
pub(crate) struct Truth {
    /// Every content that the disk had, with the number of the write that made it.
    states: HashMap<Blocks, u64>,
    /// Write that the newest acknowledgement *at the target* covers.
    promised: u64,
}

impl Truth {
    pub(crate) fn new() -> Self {
        Self { states: HashMap::from([([0; BLOCKS], 0)]), promised: 0 }
    }

    /// The machine that has authority wrote.
    pub(crate) fn wrote(&mut self, number: u64, blocks: Blocks) {
        self.states.insert(blocks, number);
    }

    pub(crate) fn number_of(&self, blocks: &Blocks) -> Option<u64> {
        self.states.get(blocks).copied()
    }

    /// The source was told that this write is safe.
    pub(crate) fn promise(&mut self, number: u64) {
        self.promised = self.promised.max(number);
    }

    /// Authority went to a branch at this content: what the old side had beyond it never happened.
    pub(crate) fn failed_over(&mut self, blocks: &Blocks) {
        let fork = self.number_of(blocks).expect("a legal point");
        self.states.retain(|_, number| *number <= fork);
    }

    /// What the target holds must be what the disk held after writes 1 … k, for some k, and no
    /// promise may be broken.
    pub(crate) fn check(&self, log: &SimLog) -> Result<(), String> {
        let (blocks, legal) = image(log);
        if !legal {
            return Ok(());
        }
        match self.number_of(&blocks) {
            None => Err(format!("the target holds {blocks:?}, which the disk never did")),
            Some(number) if number < self.promised => {
                Err(format!("write {} was promised, the target holds {number}", self.promised))
            }
            Some(_) => Ok(()),
        }
    }

    /// Promise P3 for every position of the log where no window is open, not only for its end.
    pub(crate) fn check_prefixes(&self, log: &SimLog) -> Result<(), String> {
        let mut image = Image::default();
        for entry in &log.entries {
            image.apply(&entry.record);
            if image.legal() && self.number_of(&image.blocks).is_none() {
                let lsn = entry.record.header.lsn;
                return Err(format!("at {lsn} the log shows {:?}: never there", image.blocks));
            }
        }
        Ok(())
    }

    /// After everything has healed the target holds what the machine's disk holds.
    pub(crate) fn check_all_arrived(&self, log: &SimLog, disk: &Blocks) -> Result<(), String> {
        let (blocks, legal) = image(log);
        if legal && blocks == *disk {
            return Ok(());
        }
        Err(format!("the target holds {blocks:?} (legal: {legal}), the disk {disk:?}"))
    }
}

/// The content after all durable records, and whether no window is open there.
pub(crate) fn image(log: &SimLog) -> (Blocks, bool) {
    let mut image = Image::default();
    let durable = usize::try_from(log.durable().records_since(log.base())).expect("small");
    log.entries.iter().take(durable).for_each(|entry| image.apply(&entry.record));
    (image.blocks, image.legal())
}

/// Records applied one after the other; windows counted by hand.
#[derive(Default)]
struct Image {
    blocks: Blocks,
    open: i64,
}

impl Image {
    fn apply(&mut self, record: &Record) {
        match control(record) {
            Some(Control::WindowOpen(_)) => self.open += 1,
            Some(Control::WindowClose(_)) => self.open -= 1,
            Some(Control::Marker(_) | Control::Geometry(_)) | None => {}
        }
        if record.header.kind == RecordKind::Write {
            let block = usize::try_from(record.header.offset / 4096).expect("small");
            self.blocks[block] = u64::from_le_bytes(record.payload[..].try_into().expect("8"));
        }
    }

    fn legal(&self) -> bool {
        self.open == 0
    }
}
