//! A small agent with its target: an image in a file, and the ring position up to which it is
//! complete in another. Both outlive the process, as a target outlives an agent.

use crate::rig::{BARRIER_MAX, MIB, direct};
use landfall_capture::{AlignedBuffer, Capture, Captured, CapturedKind, Dirty, Origin};
use landfall_types::{ByteRange, DiskIndex};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const DISK: DiskIndex = DiskIndex(0);
const SECTOR: u64 = 512;

pub(crate) struct Replica {
    image: File,
    position: File,
    disk: PathBuf,
    /// Sectors that a catch-up has still to send.
    pending: Vec<bool>,
    /// Bytes read from the disk.
    pub(crate) read: u64,
}

impl Replica {
    pub(crate) fn open(directory: &Path, disk: &Path, bytes: u64) -> Self {
        let open = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(directory.join(name)).unwrap()
        };
        let (image, position) = (open("image"), open("position"));
        image.set_len(bytes).unwrap();
        let pending = vec![false; (bytes / SECTOR) as usize];
        Self { image, position, disk: disk.to_owned(), pending, read: 0 }
    }

    /// What an agent does when it starts.
    pub(crate) fn take_up(&mut self, capture: &Capture) {
        let go_on = capture.origin() == Origin::Resumed && capture.has_baseline(DISK);
        if go_on {
            capture.seek(self.position()).expect("what was not released is in the ring");
        }
        while !capture.is_in_step(DISK) {
            self.catch_up(capture);
        }
    }

    /// One round of the ring.
    pub(crate) fn pump(&mut self, capture: &Capture) -> usize {
        let records = capture.drain(MIB as usize);
        for record in &records {
            self.apply(record);
        }
        let drained = capture.drained();
        // Applied, then noted, then released: killed in between, it is applied again.
        self.position.write_all_at(&drained.to_le_bytes(), 0).unwrap();
        capture.release(drained);
        capture.durable(drained);
        records.len()
    }

    /// Everything up to the head, and a catch-up if data mode ended on the way.
    pub(crate) fn follow(&mut self, capture: &Capture) {
        self.pump_to(capture, capture.head());
        while !capture.is_in_step(DISK) {
            self.catch_up(capture);
        }
    }

    fn pump_to(&mut self, capture: &Capture, head: u64) {
        while capture.drained() < head {
            self.pump(capture);
            if capture.take_loss().is_some() {
                return;
            }
        }
        let _there_may_be_one = capture.take_loss();
    }

    fn position(&self) -> u64 {
        let mut bytes = [0; 8];
        match self.position.read_exact_at(&mut bytes, 0) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => 0,
        }
    }

    /// The order of the crate's documentation; a loss in between begins it anew.
    fn catch_up(&mut self, capture: &Capture) {
        self.pump_to(capture, capture.head());
        if capture.return_to_data(DISK, BARRIER_MAX).is_err() {
            return;
        }
        let Ok(dirty) = capture.collect(DISK, BARRIER_MAX) else { return };
        let whole = ByteRange { start: 0, end: self.pending.len() as u64 * SECTOR };
        let (ranges, all) = match dirty {
            Dirty::Ranges(ranges) if capture.has_baseline(DISK) => (ranges, false),
            Dirty::Ranges(_) | Dirty::Everything(_) => (vec![whole], true),
        };
        self.pending.fill(false);
        for range in &ranges {
            self.pending[sectors(*range)].fill(true);
        }
        let disk = direct(&self.disk);
        for range in &ranges {
            for start in (range.start..range.end).step_by(MIB as usize) {
                let end = range.end.min(start + MIB);
                let mut data = AlignedBuffer::zeroed((end - start) as usize).unwrap();
                disk.read_exact_at(&mut data, start).unwrap();
                self.read += end - start;
                self.pump_to(capture, capture.head());
                self.append(ByteRange { start, end }, &data);
            }
        }
        if all {
            capture.settled_all(DISK);
        } else {
            capture.settled(DISK, &ranges);
        }
    }

    /// What was read, where it is still pending (trap T-2).
    fn append(&mut self, range: ByteRange, data: &[u8]) {
        for (n, sector) in sectors(range).enumerate() {
            if self.pending[sector] {
                let part = &data[n * SECTOR as usize..(n + 1) * SECTOR as usize];
                self.image.write_all_at(part, sector as u64 * SECTOR).unwrap();
                self.pending[sector] = false;
            }
        }
    }

    fn apply(&mut self, record: &Captured) {
        let range = ByteRange { start: record.offset, end: record.offset + record.length };
        match &record.kind {
            CapturedKind::Write(data) => self.image.write_all_at(data, record.offset).unwrap(),
            // A loop device over memory reads zeroes after a discard; others may not (trap T-23).
            CapturedKind::Zero | CapturedKind::Discard => {
                let zeroes = vec![0; record.length as usize];
                self.image.write_all_at(&zeroes, record.offset).unwrap();
            }
            // The capture keeps it pending; follow() reads it again.
            CapturedKind::Failed => return,
        }
        self.pending[sectors(range)].fill(false);
    }

    /// Byte for byte what the disk holds.
    pub(crate) fn assert_equal(&self) {
        let bytes = self.pending.len() * SECTOR as usize;
        let disk = crate::rig::read_disk(&self.disk, bytes);
        let mut image = vec![0; bytes];
        self.image.read_exact_at(&mut image, 0).unwrap();
        let differs = disk.iter().zip(&image).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the replica differs from the disk");
    }

    /// Goes on until it is killed.
    pub(crate) fn run(&mut self, capture: &Capture) -> ! {
        loop {
            self.follow(capture);
            let _more = capture.wait_readable(Duration::from_millis(20));
        }
    }
}

fn sectors(range: ByteRange) -> std::ops::Range<usize> {
    (range.start / SECTOR) as usize..range.end.div_ceil(SECTOR) as usize
}
