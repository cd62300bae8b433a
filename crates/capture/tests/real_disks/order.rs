//! Promise: one order over all disks; a write that had completed before another was submitted comes
//! before it.

use crate::rig::{MIB, Rig, direct, filled, small_ring};
use landfall_capture::CapturedKind;
use landfall_testkit::require;
use std::os::unix::fs::FileExt;
use std::time::Duration;

#[test]
fn two_disks_one_order() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    const ENTRIES: u64 = 400;
    let rig = Rig::new(&[4 * MIB, 4 * MIB], small_ring(16));
    std::thread::scope(|scope| {
        // Two writers, each with its own half of both disks: entry n on disk 1, durably, then on
        // disk 2.
        for writer in 0..2_u64 {
            let (first, second) = (direct(rig.path(0)), direct(rig.path(1)));
            scope.spawn(move || {
                for n in 0..ENTRIES {
                    let mut buffer = filled(512, writer as u8);
                    buffer[8..16].copy_from_slice(&n.to_le_bytes());
                    let at = writer * 2 * MIB + n * 512;
                    first.write_all_at(&buffer, at).unwrap();
                    second.write_all_at(&buffer, at).unwrap();
                }
            });
        }
    });
    let mut next = [0, 0];
    for record in rig.take() {
        let CapturedKind::Write(data) = &record.kind else { panic!("only writes: {record:?}") };
        let writer = usize::from(data[0]);
        let entry = u64::from_le_bytes(data[8..16].try_into().unwrap());
        let place = entry * 2 + u64::from(record.disk.0);
        assert_eq!(place, next[writer], "writer {writer} is out of order");
        next[writer] += 1;
    }
    assert_eq!(next, [ENTRIES * 2; 2], "all were captured");
}

/// The ring is used again and again: positions rise, stale bytes never look like records.
#[test]
fn the_ring_goes_round() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let rig = Rig::new(&[4 * MIB], small_ring(2));
    let file = direct(rig.path(0));
    for round in 0..100_u8 {
        file.write_all_at(&filled(200 << 10, round), u64::from(round % 4) * MIB).unwrap();
        let records = rig.take();
        assert_eq!(records.iter().map(|r| r.length).sum::<u64>(), 200 << 10);
        assert!(records.iter().all(|r| matches!(&r.kind, CapturedKind::Write(d) if d[0] == round)));
    }
    assert!(rig.capture.head() > 8 * MIB, "several times round");
    assert!(rig.capture.drain(1).is_empty(), "nothing is left");
}

/// A sleeping loader is woken by a write, long before its time is over.
#[test]
fn a_write_wakes_the_loader() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let rig = Rig::new(&[MIB], small_ring(2));
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.capture.wait_readable(Duration::from_secs(60)));
        direct(rig.path(0)).write_all_at(&filled(512, 1), 0).unwrap();
        assert!(waiting.join().unwrap(), "there is something to do");
    });
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(rig.take().len(), 1);
    assert!(!rig.capture.wait_readable(Duration::from_millis(1)), "nothing more");
}
