//! Promise: whatever can't be captured ends data mode of its disk alone, is in the bitmap, and the
//! disk comes back without a new load.

use crate::rig::{BARRIER_MAX, Hanging, MIB, Rig, direct, filled, run, scratch, small_ring};
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{
    Capture, CapturedKind, Dirty, Fallback, LostReason, Mode, Offer, Options, State, Target, probe,
    probe_disk,
};
use landfall_testkit::require;
use landfall_types::{ByteRange, DiskIndex};
use std::os::unix::fs::FileExt;
use std::path::Path;

const A: DiskIndex = DiskIndex(0);
const B: DiskIndex = DiskIndex(1);

fn blocks(first: u64, end: u64) -> Dirty {
    Dirty::Ranges(vec![ByteRange { start: first * 4096, end: end * 4096 }])
}

/// The ring is too small for one disk's burst; the other disk's writes stay in order around it.
#[test]
fn one_disk_overflows_and_comes_back_and_the_other_goes_on() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let rig = Rig::new(&[8 * MIB, MIB], small_ring(2));
    let (a, b) = (direct(rig.path(0)), direct(rig.path(1)));
    b.write_all_at(&filled(512, 1), 0).unwrap();
    for n in 0..4 {
        a.write_all_at(&filled(MIB as usize, n), u64::from(n) * MIB).unwrap();
    }
    b.write_all_at(&filled(512, 2), 512).unwrap();
    assert_eq!(rig.capture.mode(A), Mode::Bitmap(LostReason::Overflow));
    assert_eq!(rig.capture.mode(B), Mode::Data, "a loss is one disk's");
    assert!(matches!(rig.capture.state(), State::Lost(loss) if loss.disk == Some(A)));
    assert!(rig.capture.take_loss().is_none(), "not before its place is reached");
    let before = rig.take();
    assert!(before.iter().all(|record| (record.disk, record.offset) != (B, 512)), "it stops there");
    let loss = rig.capture.take_loss().expect("now");
    assert_eq!((loss.disk, loss.at), (Some(A), rig.capture.drained()));
    assert!(rig.capture.take_loss().is_none(), "each is told once");
    let behind = rig.capture.drain(usize::MAX);
    assert_eq!(behind.iter().map(|r| (r.disk, r.offset)).collect::<Vec<_>>(), [(B, 512)]);
    // Marked while it was lost; then back, in the order of the documentation.
    a.write_all_at(&filled(4096, 9), 5 * MIB).unwrap();
    let counters = rig.capture.counters(A);
    assert_eq!((counters.submitted, counters.marked), (5, 3), "one was captured, one was the loss");
    rig.capture.return_to_data(A, BARRIER_MAX).unwrap();
    assert_eq!((rig.capture.mode(A), rig.capture.returns()), (Mode::Data, 1));
    let dirty = rig.capture.collect(A, BARRIER_MAX).unwrap();
    let two =
        [(0, 4 * MIB), (5 * MIB, 5 * MIB + 4096)].map(|(start, end)| ByteRange { start, end });
    assert_eq!(dirty, Dirty::Ranges(two.to_vec()));
    a.write_all_at(&filled(4096, 10), 6 * MIB).unwrap();
    let records = rig.take();
    assert_eq!(records.len(), 1, "captured again");
    assert_eq!(records[0].kind, CapturedKind::Write(vec![10; 4096].into()));
    rig.capture.settled(A, &two);
    assert!(rig.capture.pending(A).is_clean());
}

/// Trap T-22: two writes of the same sectors at once. Which one the disk keeps is unknown.
#[test]
fn overlapping_writes_in_flight_are_read_again() {
    if !require(&["loop", "bpf", "e2fsprogs"]) {
        return;
    }
    let hanging = Hanging::new();
    let capture = Capture::start(&[hanging.target()], small_ring(2)).unwrap();
    capture.barrier(BARRIER_MAX).unwrap();
    let thaw = hanging.freeze();
    let write = |offset: u64, bytes: usize| {
        let file = direct(hanging.disk.path());
        let before = capture.counters(A).submitted;
        let writer =
            std::thread::spawn(move || file.write_all_at(&filled(bytes, 1), offset).unwrap());
        while capture.counters(A).submitted == before {
            std::thread::yield_now();
        }
        writer
    };
    let writers = [write(8192, 8192), write(16384, 512), write(12288, 512)];
    // The program counts the submission first: it may still be looking for overlaps.
    let deadline = std::time::Instant::now() + BARRIER_MAX;
    while capture.counters(A).overlaps == 0 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(capture.counters(A).overlaps, 1, "neighbors don't overlap");
    drop(thaw);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let unknown: Vec<_> = capture
        .drain(usize::MAX)
        .into_iter()
        .filter(|record| record.kind == CapturedKind::Failed)
        .map(|record| (record.offset, record.length))
        .collect();
    assert_eq!(unknown, [(12288, 512)]);
    assert_eq!(capture.pending(A), blocks(3, 4), "also for the next agent");
    // Suspect until a barrier has seen a moment without any of them, and not longer.
    let file = direct(hanging.disk.path());
    file.write_all_at(&filled(512, 2), 12288).unwrap();
    assert_eq!(capture.counters(A).overlaps, 2);
    capture.barrier(BARRIER_MAX).unwrap();
    file.write_all_at(&filled(512, 2), 12288).unwrap();
    assert_eq!(capture.counters(A).overlaps, 2);
}

/// Trap T-9: what lies beyond the bitmap makes everything dirty.
#[test]
fn a_disk_that_grows() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let backing = tempfile::tempfile().unwrap();
    backing.set_len(MIB).unwrap();
    let disk = LoopDevice::attach(&backing, LoopOptions::default()).unwrap();
    let rig = Rig::over(vec![disk], small_ring(2));
    backing.set_len(2 * MIB).unwrap();
    run("losetup", &["-c", rig.path(0).to_str().unwrap()]);
    let file = direct(rig.path(0));
    file.write_all_at(&filled(512, 1), 512).unwrap();
    assert_eq!(rig.capture.mode(A), Mode::Data, "growing alone loses nothing");
    file.write_all_at(&filled(512, 1), MIB + 4096).unwrap();
    assert_eq!(rig.capture.mode(A), Mode::Bitmap(LostReason::Grown));
    assert_eq!(rig.capture.marked(A), Dirty::Everything(LostReason::Grown));
    assert_eq!(rig.take().len(), 1);
    assert!(rig.capture.take_loss().is_some());
    assert!(rig.capture.return_to_data(A, BARRIER_MAX).is_err(), "a new load has a larger bitmap");
    assert_eq!(rig.capture.disks()[0].1.size_bytes_now().unwrap(), 2 * MIB);
}

#[test]
fn excluded_ranges_are_left_out() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let swap = ByteRange { start: MIB, end: 2 * MIB };
    let options = Options { excluded: vec![(A, swap)], ..small_ring(2) };
    let rig = Rig::new(&[4 * MIB], options);
    let file = direct(rig.path(0));
    for at in [MIB - 512, MIB, 2 * MIB - 512, 2 * MIB] {
        file.write_all_at(&filled(512, 1), at).unwrap();
    }
    file.write_all_at(&filled(1024, 1), 2 * MIB - 512).unwrap();
    let offsets: Vec<_> = rig.take().into_iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [MIB - 512, 2 * MIB, 2 * MIB - 512], "only what lies in it as a whole");
    let counters = rig.capture.counters(A);
    assert_eq!((counters.excluded, counters.beside, counters.issued_beside), (2, 0, 0));
    assert_eq!(rig.capture.mode(A), Mode::Data);
}

/// Bytes can't be trusted: marking goes on where that is wanted, and data mode is out of reach.
#[test]
fn without_bytes_there_is_the_bitmap() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let disk = scratch(MIB);
    let target = Target { disk: A, path: disk.path().to_owned() };
    let options = Options { page_offset_error: 4096, fallback: Fallback::Bitmap, ..small_ring(2) };
    let capture = Capture::start(&[target], options.clone()).unwrap();
    assert_eq!(capture.mode(A), Mode::Bitmap(LostReason::NoData));
    direct(disk.path()).write_all_at(&filled(4096, 1), 8192).unwrap();
    assert_eq!(capture.collect(A, BARRIER_MAX).unwrap(), blocks(2, 3));
    assert!(capture.drain(1).is_empty());
    assert!(capture.return_to_data(A, BARRIER_MAX).is_err());
    let machine = probe(&options);
    assert_eq!(machine.offer(), Offer::Bitmap);
    assert!(machine.obstacles().all(|finding| finding.code == "self-test"), "{machine:?}");
}

#[test]
fn the_probe_says_what_this_machine_offers() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let machine = probe(&Options::default());
    assert_eq!(machine.offer(), Offer::Data, "{machine:#?}");
    let disk = scratch(MIB);
    let offer = probe_disk(&machine, disk.path());
    assert_eq!((offer.offer, offer.code), (Some(Offer::Data), None));
    assert_eq!(offer.disk.unwrap().geometry.size_bytes, MIB);
    let none = probe_disk(&machine, Path::new("/dev/null"));
    assert_eq!((none.offer, none.code), (None, Some("not-a-block-device")));
}
