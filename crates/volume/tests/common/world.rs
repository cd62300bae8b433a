//! Random producers.

use super::{DISKS, Producer, SECTOR};
use landfall_testkit::Rng;
use landfall_types::{DiskIndex, Record};

/// A stretch of sectors of a random disk.
pub fn range(rng: &mut Rng) -> (u16, u64, u64) {
    let disk = rng.below(DISKS.len() as u64);
    let sectors = DISKS[disk as usize] / SECTOR;
    let start = rng.below(sectors);
    let length = 1 + rng.below((sectors - start).min(4));
    (disk as u16, start * SECTOR, length * SECTOR)
}

pub fn bytes(rng: &mut Rng, length: u64) -> Vec<u8> {
    let mut data = vec![0; length as usize];
    rng.fill(&mut data);
    data
}

/// One random record: mostly writes, some zeroes, discards, markers and windows.
pub fn record(rng: &mut Rng, producer: &mut Producer) {
    let (disk, offset, length) = range(rng);
    match rng.below(16) {
        0 => drop(producer.push(|lsn| Record::zero(lsn, DiskIndex(disk), offset, length))),
        1 => drop(producer.push(|lsn| Record::discard(lsn, DiskIndex(disk), offset, length))),
        2 | 3 => {
            let time = producer.lsn().get() * 1_000;
            producer.marker(time, None);
        }
        4 => {
            let id = 100 + producer.lsn().get();
            producer.window_open(id, false);
        }
        5..=7 => {
            let windows = producer.open_windows();
            if windows.is_empty() {
                producer.marker(producer.lsn().get() * 1_000, None);
            } else {
                let id = windows[rng.below(windows.len() as u64) as usize];
                producer.window_close(id.0, !rng.one_in(8));
            }
        }
        _ => {
            let data = bytes(rng, length);
            producer.write(disk, offset, &data);
        }
    }
}

/// Closes what is open, exactly, and repairs what is fuzzy, so that the newest position is a
/// recovery point.
pub fn settle(producer: &mut Producer) {
    for id in producer.open_windows().into_iter().rev() {
        producer.window_close(id.0, true);
    }
    if !producer.legal_at(producer.lsn()) {
        let id = 10_000 + producer.lsn().get();
        producer.window_open(id, false);
        producer.window_close(id, true);
    }
    producer.marker(producer.lsn().get() * 1_000, None);
}
