//! Promise: whatever can't be captured is noticed, and what lies before it stays a consistent
//! prefix.

use crate::rig::{BARRIER_MAX, Hanging, MIB, Mount, Rig, direct, filled, run, scratch, small_ring};
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{
    Capture, CaptureError, CapturedKind, DiskState, LostReason, Options, Quiet, State, Target,
    self_test,
};
use landfall_testkit::require;
use landfall_types::DiskIndex;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

#[test]
fn the_self_test_passes_here_and_fails_with_wrong_addresses() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let report = self_test(&Options::default()).unwrap();
    assert_eq!(report.bytes, 4 * MIB);
    // Another page, and an address that is not mapped at all.
    for page_offset_error in [4096, 1 << 46] {
        let wrong = Options { page_offset_error, ..Options::default() };
        let error = self_test(&wrong).unwrap_err();
        assert!(matches!(error, CaptureError::SelfTest(_)), "{page_offset_error}: {error:?}");
        let disk = scratch(MIB);
        let target = Target { disk: DiskIndex(0), path: disk.path().to_owned() };
        let refused = Capture::start(&[target], wrong).map(|_| ()).unwrap_err();
        assert!(matches!(refused, CaptureError::SelfTest(_)), "data mode is not trusted");
    }
}

/// Nobody reads: the ring fills, capture ends, and production goes on.
#[test]
fn overflow_keeps_the_prefix() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let rig = Rig::new(&[8 * MIB], small_ring(2));
    let file = direct(rig.path(0));
    for n in 0..128_u64 {
        file.write_all_at(&filled(64 << 10, n as u8), n * (64 << 10)).unwrap();
    }
    let State::Lost(loss) = rig.capture.state() else { panic!("8 MiB do not fit into 2 MiB") };
    assert_eq!((loss.reason, loss.disk), (LostReason::Overflow, Some(DiskIndex(0))));
    let records = rig.take();
    assert_eq!(records.len() as u64, 2 * MIB / ((64 << 10) + 48), "as many as fit");
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.offset, n as u64 * (64 << 10));
        assert_eq!(record.kind, CapturedKind::Write(vec![n as u8; 64 << 10].into()));
    }
    assert_eq!(records.last().unwrap().ring_position, loss.at);
    assert!(rig.capture.is_exhausted());
    file.write_all_at(&filled(4096, 1), 0).unwrap();
    assert!(
        rig.take().is_empty(),
        "nothing behind a loss is handed out, although there is room again"
    );
}

/// Trap T-8: after detach and attach the same number names another disk, whose writes must not
/// enter.
#[test]
fn another_disk_under_the_same_number() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let mut rig = Rig::new(&[MIB, MIB], small_ring(2));
    let old = rig.disks.remove(0);
    let number: i32 = old.path().to_str().unwrap().trim_start_matches("/dev/loop").parse().unwrap();
    direct(old.path()).write_all_at(&filled(512, 1), 0).unwrap();
    assert_eq!(rig.capture.disk_state(DiskIndex(0)), DiskState::Present);
    old.detach().unwrap();
    let backing = tempfile::tempfile().unwrap();
    backing.set_len(MIB).unwrap();
    // Another test may take the number in between: then the disk is gone, which is the lesser case.
    let new = LoopDevice::attach_to(number, &backing, LoopOptions::default());
    if let Ok(new) = &new {
        direct(new.path()).write_all_at(&filled(512, 2), 0).unwrap();
    }
    direct(rig.path(0)).write_all_at(&filled(512, 3), 0).unwrap();
    let seen: Vec<_> = rig.take().into_iter().map(|r| (r.disk.0, r.kind)).collect();
    let write = |byte| CapturedKind::Write(vec![byte; 512].into());
    assert_eq!(seen, [(0, write(1)), (1, write(3))], "the new disk's write is not ours");
    assert_eq!(rig.capture.disk_state(DiskIndex(0)), DiskState::Replaced);
    assert_eq!(rig.capture.disk_state(DiskIndex(1)), DiskState::Present);
}

/// A write that failed: the disk's content there is unknown, so the range is named.
#[test]
fn failed_writes_are_reported() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let tmpfs = Mount::new("tmpfs", &["-t", "tmpfs", "-o", "size=1m"]);
    let backing = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(tmpfs.path().join("disk"))
        .unwrap();
    backing.set_len(8 * MIB).unwrap();
    let disk = LoopDevice::attach(&backing, LoopOptions::default()).unwrap();
    drop(backing);
    let rig = Rig::over(vec![disk], small_ring(8));
    let file = direct(rig.path(0));
    let buffer = filled(256 << 10, 7);
    let failed: Vec<u64> = (0..16)
        .map(|n| n * (256 << 10))
        .filter(|&at| file.write_all_at(&buffer, at).is_err())
        .collect();
    assert!(!failed.is_empty(), "4 MiB do not fit into 1 MiB");
    let records = rig.take();
    let reported = |at: &u64| {
        records
            .iter()
            .any(|r| r.kind == CapturedKind::Failed && r.offset <= *at && *at < r.offset + r.length)
    };
    assert!(failed.iter().all(reported), "{failed:?}");
    assert!(rig.capture.counters(DiskIndex(0)).failed > 0);
    drop((file, rig));
}

fn write_in_background(path: &Path) -> std::thread::JoinHandle<()> {
    let file = direct(path);
    std::thread::spawn(move || file.write_all_at(&filled(4096, 9), 0).unwrap())
}

/// Spins until `condition` holds; the test's own limit ends it otherwise.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn the_barrier_waits_for_writes_in_flight() {
    if !require(&["loop", "bpf", "e2fsprogs"]) {
        return;
    }
    let hanging = Hanging::new();
    let capture = Capture::start(&[hanging.target()], small_ring(2)).unwrap();
    assert_eq!(capture.barrier(BARRIER_MAX).unwrap(), Quiet::Seen);
    let thaw = hanging.freeze();
    let writer = write_in_background(hanging.disk.path());
    until(|| capture.counters(DiskIndex(0)).submitted == 1);
    let error = capture.barrier(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, CaptureError::Barrier { in_flight: 1, .. }), "{error:?}");
    drop(thaw);
    capture.barrier(BARRIER_MAX).unwrap();
    writer.join().unwrap();
    let counters = capture.counters(DiskIndex(0));
    assert_eq!((counters.submitted, counters.completed), (1, 1));
}

/// A write from before the capture that ends after the barrier: nobody has its bytes, so data mode
/// is over. To the program it is one that passed beside the hook (trap T-7).
#[test]
fn a_write_from_before_the_capture_is_noticed_when_it_ends() {
    if !require(&["loop", "bpf", "e2fsprogs"]) {
        return;
    }
    let hanging = Hanging::new();
    let thaw = hanging.freeze();
    let writer = write_in_background(hanging.disk.path());
    let stat = format!(
        "/sys/block/{}/inflight",
        hanging.disk.path().file_name().unwrap().to_str().unwrap()
    );
    until(|| std::fs::read_to_string(&stat).unwrap().split_whitespace().nth(1) != Some("0"));
    let options = Options { settle_max: Duration::from_millis(100), ..small_ring(2) };
    let capture = Capture::start(&[hanging.target()], options).unwrap();
    assert_eq!(capture.barrier(BARRIER_MAX).unwrap(), Quiet::Guarded, "it still hangs");
    assert_eq!(capture.state(), State::Data);
    drop(thaw);
    writer.join().unwrap();
    until(|| capture.state() != State::Data);
    let State::Lost(loss) = capture.state() else { panic!("it has ended") };
    assert_eq!(loss.reason, LostReason::Beside);
    assert!(capture.is_exhausted(), "nothing was captured");
}

#[test]
fn what_can_not_be_captured_is_refused_with_a_reason() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let refusal = |path: &str| {
        let target = Target { disk: DiskIndex(0), path: path.into() };
        match Capture::start(&[target], small_ring(2)).map(|_| ()).unwrap_err() {
            CaptureError::Disk { reason, .. } => reason.to_string(),
            other => panic!("{path}: {other:?}"),
        }
    };
    assert!(refusal("/dev/does-not-exist").contains("no such device"));
    assert!(refusal("/dev/null").contains("not a block device"));
    let disk = scratch(MIB);
    let path = disk.path().to_str().unwrap();
    run("blockdev", &["--setro", path]);
    assert!(refusal(path).contains("read-only"));
    run("blockdev", &["--setrw", path]);
    let target = |index| Target { disk: DiskIndex(index), path: disk.path().to_owned() };
    let twice = Capture::start(&[target(0), target(1)], small_ring(2)).map(|_| ()).unwrap_err();
    assert!(matches!(twice, CaptureError::Targets(_)), "{twice:?}");
}
