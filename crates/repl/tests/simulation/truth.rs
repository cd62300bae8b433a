//! The oracle: what the disk of the machine really held, write by write. It knows nothing of LSNs,
//! epochs or chains.

use crate::log::control;
use crate::target::Target;
use landfall_types::{Control, Record, RecordKind};
use std::collections::HashMap;

/// Blocks of the simulated disk.
pub(crate) const BLOCKS: usize = 12;
pub(crate) type Blocks = [u64; BLOCKS];

#[derive(Debug)]
pub(crate) struct Truth {
    /// Every content that the disk had, with the number of the write that made it.
    states: HashMap<Blocks, u64>,
    /// Write that the newest acknowledgement *at the target* covers.
    promised: u64,
    /// The same for the first relay: kept unless a disk with it is lost (trap T-14).
    promised_here: u64,
    /// Promises about these writes are void: the target's disk went back in time, or a spool is
    /// lost.
    excused: u64,
    excused_here: u64,
}

impl Truth {
    pub(crate) fn new() -> Self {
        let states = HashMap::from([([0; BLOCKS], 0)]);
        Self { states, promised: 0, promised_here: 0, excused: 0, excused_here: 0 }
    }

    /// The machine that has authority wrote.
    pub(crate) fn wrote(&mut self, number: u64, blocks: Blocks) {
        self.states.insert(blocks, number);
    }

    pub(crate) fn number_of(&self, blocks: &Blocks) -> Option<u64> {
        self.states.get(blocks).copied()
    }

    /// The source was told that these writes are safe: at the target, at the first relay.
    pub(crate) fn promise(&mut self, at_target: u64, here: u64) {
        if at_target > self.excused {
            self.promised = self.promised.max(at_target);
        }
        // Until the target is past the loss nobody behind it can be reached without a hole.
        if at_target > self.excused_here || self.excused_here == 0 {
            self.excused_here = 0;
            self.promised_here = self.promised_here.max(here);
        }
    }

    /// The target's disk is an older one: whatever was promised of writes up to `newest` can't be
    /// kept.
    pub(crate) const fn target_went_back(&mut self, newest: u64) {
        (self.excused, self.promised) = (newest, 0);
        self.spool_lost(newest);
    }

    /// Nobody has what only a relay had of writes up to `newest`.
    pub(crate) const fn spool_lost(&mut self, newest: u64) {
        (self.excused_here, self.promised_here) = (newest, 0);
    }

    /// Authority went to a branch at this content: what the old side had beyond it never happened.
    pub(crate) fn failed_over(&mut self, blocks: &Blocks) {
        let fork = self.number_of(blocks).expect("a legal point");
        self.states.retain(|_, number| *number <= fork);
        self.promised_here = 0;
    }

    /// What the target holds must be what the disk held after writes 1 … k, for some k, and no
    /// promise may be broken.
    pub(crate) fn check(&self, target: &Target) -> Result<(), String> {
        let (blocks, legal) = image(target);
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

    /// T-14: everything that a relay had acknowledged has been drained into the target.
    pub(crate) fn check_drained(&self, target: &Target) -> Result<(), String> {
        let (blocks, legal) = image(target);
        match self.number_of(&blocks) {
            Some(number) if legal && number < self.promised_here => Err(format!(
                "a relay acknowledged write {}, the drained target holds {number}",
                self.promised_here
            )),
            _ => Ok(()),
        }
    }

    /// Promise P3 for every position of the log where no window is open, not only for its end.
    pub(crate) fn check_prefixes(&self, target: &Target) -> Result<(), String> {
        let mut image = Image::of(target);
        for entry in &target.log.entries {
            image.apply(&entry.record);
            if image.legal() && self.number_of(&image.blocks).is_none() {
                let lsn = entry.record.header.lsn;
                return Err(format!("at {lsn} the log shows {:?}: never there", image.blocks));
            }
        }
        Ok(())
    }

    /// After everything has healed the target holds what the machine's disk holds.
    pub(crate) fn check_all_arrived(&self, target: &Target, disk: &Blocks) -> Result<(), String> {
        let (blocks, legal) = image(target);
        if legal && blocks == *disk {
            return Ok(());
        }
        Err(format!("the target holds {blocks:?} (legal: {legal}), the disk {disk:?}"))
    }
}

/// The content after all durable records, and whether that is a recovery point.
pub(crate) fn image(target: &Target) -> (Blocks, bool) {
    let mut image = Image::of(target);
    let log = &target.log;
    let durable = usize::try_from(log.durable().records_since(log.base())).expect("small");
    log.entries.iter().take(durable).for_each(|entry| image.apply(&entry.record));
    (image.blocks, image.legal())
}

/// Records applied one after the other; windows counted by hand.
struct Image {
    blocks: Blocks,
    open: i64,
    /// No window has closed yet over disks of unknown content.
    unknown: bool,
}

impl Image {
    const fn of(target: &Target) -> Self {
        Self { blocks: target.image, open: 0, unknown: target.unknown }
    }

    fn apply(&mut self, record: &Record) {
        match control(record) {
            Some(Control::WindowOpen(_)) => self.open += 1,
            Some(Control::WindowClose(_)) => {
                self.open -= 1;
                self.unknown = false;
            }
            Some(Control::Marker(_) | Control::Geometry(_)) | None => {}
        }
        if record.header.kind == RecordKind::Write {
            let block = usize::try_from(record.header.offset / 4096).expect("small");
            self.blocks[block] = u64::from_le_bytes(record.payload[..].try_into().expect("8"));
        }
    }

    const fn legal(&self) -> bool {
        self.open == 0 && !self.unknown
    }
}
