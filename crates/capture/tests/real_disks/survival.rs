//! Promise: capture outlives the agent, and whoever comes next lacks nothing and reads no more than
//! it must.

use crate::replica::{DISK, Replica};
use crate::rig::{BARRIER_MAX, MIB, direct, filled, scratch, small_ring};
use landfall_capture::{
    Capture, CaptureError, Captured, CapturedKind, Dirty, LostReason, Mode, Options, Origin,
    Target, detach,
};
use landfall_testkit::{Rng, require, seed};
use landfall_types::ByteRange;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A ring of so many MiB does not overflow in these tests.
const RING_MIB_AMPLE: u64 = 64;

/// Pins of a test; gone with it, whatever happens.
struct Pin(PathBuf);

impl Pin {
    fn new(name: &str) -> Self {
        let pin = Self(format!("/sys/fs/bpf/landfall-test/{name}-{}", std::process::id()).into());
        detach(&pin.0).expect("nobody else uses it");
        pin
    }

    fn options(&self, ring_mib: u64) -> Options {
        Options { pin: Some(self.0.clone()), owner: 7, ..small_ring(ring_mib) }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.0) {
            eprintln!("pins are left: {error}");
        }
    }
}

fn target(path: &Path) -> Target {
    Target { disk: DISK, path: path.to_owned() }
}

fn start(path: &Path, options: Options) -> Capture {
    Capture::start(&[target(path)], options).expect("capture starts")
}

/// What a load is told.
#[derive(Default)]
struct Reins {
    stop: AtomicBool,
    rest: AtomicBool,
}

/// Random writes until told to stop.
fn load(path: &Path, bytes: u64, rng: &mut Rng, reins: &Reins) -> u64 {
    let file = direct(path);
    let mut writes = 0;
    while !reins.stop.load(Ordering::SeqCst) {
        if reins.rest.load(Ordering::SeqCst) {
            std::thread::yield_now();
            continue;
        }
        let sectors = 1 + rng.below(128);
        let at = rng.below(bytes / 512 - sectors) * 512;
        let buffer = filled((sectors * 512) as usize, rng.below(256) as u8);
        file.write_all_at(&buffer, at).unwrap();
        writes += 1;
    }
    writes
}

/// A process that captures into a replica, for the tests below; by itself it does nothing.
#[test]
fn child() {
    let Ok(arguments) = std::env::var("LANDFALL_TEST_CAPTURE") else { return };
    let mut parts = arguments.split('|');
    let mut next = || PathBuf::from(parts.next().unwrap());
    let (pin, directory, disk) = (next(), next(), next());
    let ring_mib: u64 = parts.next().unwrap().parse().unwrap();
    let bytes: u64 = parts.next().unwrap().parse().unwrap();
    let options = Options {
        pin: Some(pin),
        owner: 7,
        rotate_after: Duration::from_millis(20),
        ..small_ring(ring_mib)
    };
    let capture = start(&disk, options);
    let mut replica = Replica::open(&directory, &disk, bytes);
    replica.take_up(&capture);
    println!("in step");
    replica.run(&capture);
}

fn spawn(pin: &Path, directory: &Path, disk: &Path, ring_mib: u64, bytes: u64) -> Child {
    let (pin, directory, disk) = (pin.display(), directory.display(), disk.display());
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "survival::child", "--nocapture"])
        .env("LANDFALL_TEST_CAPTURE", format!("{pin}|{directory}|{disk}|{ring_mib}|{bytes}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads what the child says until it is in step, or has ended.
fn wait_in_step(child: &mut Child) {
    let mut said = Vec::new();
    let mut byte = [0];
    let out = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"in step") {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
}

/// Kills the agent again and again under load: `ring_mib` decides whether the ring overflows in the
/// meantime. More rounds: `LANDFALL_KILLS=100`.
fn killed_under_load(name: &str, ring_mib: u64) {
    const BYTES: u64 = 32 * MIB;
    let seed = seed(name);
    let mut rng = Rng::new(seed);
    let kills = std::env::var("LANDFALL_KILLS").map_or(3, |text| text.parse().unwrap());
    let disk = scratch(BYTES);
    let pin = Pin::new(name);
    let directory = tempfile::tempdir().unwrap();
    let reins = Reins::default();
    std::thread::scope(|scope| {
        let mut load_rng = Rng::new(seed ^ 1);
        let (path, told) = (disk.path(), &reins);
        let loading = scope.spawn(move || load(path, BYTES, &mut load_rng, told));
        for _ in 0..kills {
            let mut child = spawn(&pin.0, directory.path(), disk.path(), ring_mib, BYTES);
            if rng.below(3) > 0 {
                // A writer that never rests can overflow a small ring faster than any agent reads
                // again: then nobody would ever be in step.
                reins.rest.store(ring_mib < RING_MIB_AMPLE, Ordering::SeqCst);
                wait_in_step(&mut child);
                reins.rest.store(false, Ordering::SeqCst);
            }
            // Somewhere in its work: what it is at is what is being tested.
            let until = Instant::now() + Duration::from_millis(rng.below(100));
            while Instant::now() < until {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        reins.stop.store(true, Ordering::SeqCst);
        assert!(loading.join().unwrap() > 0, "there was a load");
    });
    let capture = start(disk.path(), pin.options(ring_mib));
    let mut replica = Replica::open(directory.path(), disk.path(), BYTES);
    replica.take_up(&capture);
    replica.follow(&capture);
    replica.assert_equal();
    let counters = capture.counters(DISK);
    // The one writer may have had a write in flight when the first agent began.
    assert!(counters.missed == 0 && counters.beside <= 1, "{counters:?}");
    capture.detach().unwrap();
}

#[test]
fn an_agent_that_is_killed_leaves_nothing_out() {
    if require(&["root", "loop", "bpf"]) {
        killed_under_load("killed", RING_MIB_AMPLE);
    }
}

#[test]
fn an_agent_that_is_killed_while_the_ring_overflows_leaves_nothing_out() {
    if require(&["root", "loop", "bpf"]) {
        killed_under_load("overflow", 2);
    }
}

/// The ring, the incarnation and the position are the same; nothing is read again.
#[test]
fn the_next_agent_goes_on_where_the_last_one_was() {
    if !require(&["root", "loop", "bpf"]) {
        return;
    }
    let (disk, pin) = (scratch(8 * MIB), Pin::new("goes-on"));
    let directory = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(directory.path(), disk.path(), 8 * MIB);
    let first = start(disk.path(), pin.options(8));
    assert_eq!(first.origin(), Origin::Fresh);
    assert!(!first.has_baseline(DISK) && !first.is_in_step(DISK));
    replica.take_up(&first);
    assert_eq!(replica.read, 8 * MIB, "the first time everything is read");
    let incarnation = first.incarnation();
    let busy = Capture::start(&[target(disk.path())], pin.options(8)).map(|_| ()).unwrap_err();
    assert!(matches!(busy, CaptureError::InUse(_)), "two at once: {busy:?}");
    drop(first);
    let file = direct(disk.path());
    for n in 0..10 {
        file.write_all_at(&filled(4096, n as u8), n * 12288).unwrap();
    }
    let second = start(disk.path(), pin.options(8));
    assert_eq!((second.origin(), second.incarnation()), (Origin::Resumed, incarnation));
    assert!(second.is_in_step(DISK));
    assert_eq!(second.counters(DISK).submitted, 10, "captured while nobody was there");
    replica.take_up(&second);
    assert_eq!(replica.pump(&second), 10);
    assert_eq!(replica.read, 8 * MIB, "nothing was read again");
    replica.assert_equal();
    let beyond = second.seek(second.head() + 8).unwrap_err();
    assert!(matches!(beyond, CaptureError::Position { .. }), "{beyond:?}");
    assert!(second.seek(8).is_err(), "released, and no record begins there");
    second.detach().unwrap();
    assert!(!pin.0.exists(), "nothing is left");
    let third = start(disk.path(), pin.options(8));
    assert_eq!(third.origin(), Origin::Fresh);
}

/// Other options stand for another program: ours is attached before the old one is detached, and
/// takes over its bits.
#[test]
fn a_new_load_takes_over_without_a_gap() {
    if !require(&["root", "loop", "bpf"]) {
        return;
    }
    let (disk, pin) = (scratch(8 * MIB), Pin::new("takes-over"));
    let directory = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(directory.path(), disk.path(), 8 * MIB);
    let first = start(disk.path(), pin.options(8));
    replica.take_up(&first);
    drop(first);
    let reins = Reins::default();
    let second = std::thread::scope(|scope| {
        let (path, told) = (disk.path(), &reins);
        let mut rng = Rng::new(seed("takes-over"));
        // Only in the first 2 MiB.
        let loading = scope.spawn(move || load(path, 2 * MIB, &mut rng, told));
        let second = start(disk.path(), pin.options(10));
        reins.stop.store(true, Ordering::SeqCst);
        assert!(loading.join().unwrap() > 0);
        second
    });
    assert_eq!(second.origin(), Origin::Replaced);
    assert!(second.has_baseline(DISK) && !second.is_in_step(DISK));
    replica.take_up(&second);
    replica.follow(&second);
    replica.assert_equal();
    assert!(replica.read <= 8 * MIB + 3 * MIB, "only what was dirty: {}", replica.read);
    drop(second);
    // Another replica's bits mean nothing to us.
    let options = Options { owner: 8, ..pin.options(10) };
    let third = start(disk.path(), options);
    assert_eq!(third.origin(), Origin::Fresh);
    assert!(!third.has_baseline(DISK));
}

/// Trap T-3: bits go when the target has what they stand for, and not before.
#[test]
fn bits_outlive_the_agent_until_their_blocks_are_durable() {
    if !require(&["root", "loop", "bpf"]) {
        return;
    }
    let (disk, pin) = (scratch(MIB), Pin::new("bits"));
    let options = || Options { rotate_after: Duration::ZERO, ..pin.options(2) };
    let capture = start(disk.path(), options());
    capture.collect(DISK, BARRIER_MAX).unwrap();
    capture.settled_all(DISK);
    assert!(capture.is_in_step(DISK));
    let file = direct(disk.path());
    let block = |n: u64| ByteRange { start: n * 4096, end: (n + 1) * 4096 };
    file.write_all_at(&filled(512, 1), 8192).unwrap();
    assert_eq!(capture.marked(DISK), Dirty::Ranges(vec![block(2)]), "beneath data mode too");
    let taken = capture.drain(usize::MAX).len();
    capture.release(capture.drained());
    assert_eq!(taken, 1);
    capture.durable(0); // Another generation begins.
    file.write_all_at(&filled(512, 1), 20480).unwrap();
    capture.durable(capture.tail());
    assert_eq!(capture.marked(DISK), Dirty::Ranges(vec![block(5)]), "the older one is durable");
    // Collected, and the agent dies before it is settled.
    assert_eq!(capture.collect(DISK, BARRIER_MAX).unwrap(), Dirty::Ranges(vec![block(5)]));
    drop(capture);
    let next = start(disk.path(), options());
    assert_eq!(next.origin(), Origin::Resumed);
    assert_eq!(next.pending(DISK), Dirty::Ranges(vec![block(5)]));
    assert!(!next.is_in_step(DISK), "the catch-up was cut short");
    next.settled(DISK, &[ByteRange { start: 20480, end: 20992 }]);
    assert!(!next.pending(DISK).is_clean(), "a part of a block does not settle it");
    next.settled(DISK, &[block(5)]);
    assert!(next.is_in_step(DISK));
    // What only the bitmap knows stays, however much becomes durable.
    next.fall_back(DISK, LostReason::Asked);
    file.write_all_at(&filled(512, 1), 40960).unwrap();
    for _ in 0..4 {
        let _more = next.drain(usize::MAX);
        next.durable(next.head());
    }
    assert_eq!(next.mode(DISK), Mode::Bitmap(LostReason::Asked));
    assert_eq!(next.take_loss().unwrap().reason, LostReason::Asked);
    next.return_to_data(DISK, BARRIER_MAX).unwrap();
    for _ in 0..4 {
        next.durable(next.head());
    }
    let dirty = next.collect(DISK, BARRIER_MAX).unwrap();
    let Dirty::Ranges(ranges) = dirty else { panic!("{dirty:?}") };
    assert!(ranges.contains(&block(10)), "{ranges:?}");
}

/// The end of a write that the kernel has not told: the barrier is bounded, and later goes on.
#[test]
fn a_lost_completion_does_not_hang_the_barrier() {
    if !require(&["root", "loop", "bpf"]) {
        return;
    }
    let (disk, pin) = (scratch(MIB), Pin::new("completion"));
    let options = Options { give_up_after: Duration::from_millis(300), ..pin.options(2) };
    let capture = start(disk.path(), options);
    capture.barrier(BARRIER_MAX).unwrap();
    forge_flight(&pin.0, 4096 / 512, 8192);
    let error = capture.barrier(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, CaptureError::Barrier { in_flight: 1, .. }), "{error:?}");
    assert!(capture.return_to_data(DISK, Duration::from_millis(20)).is_err());
    assert_eq!(capture.mode(DISK), Mode::Bitmap(LostReason::LostCompletion));
    assert!(capture.take_loss().is_some());
    capture.return_to_data(DISK, BARRIER_MAX).unwrap();
    let unknown: Vec<Captured> = capture.drain(usize::MAX);
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].kind, CapturedKind::Failed, "it has to be read again");
    assert_eq!((unknown[0].offset, unknown[0].length), (4096, 8192));
    let range = ByteRange { start: 4096, end: 12288 };
    assert_eq!(capture.pending(DISK), Dirty::Ranges(vec![range]));
}

/// Puts a write into the table that never ends.
fn forge_flight(pin: &Path, sector: u64, bytes: u32) {
    let load = std::fs::read_dir(pin).unwrap().next().unwrap().unwrap().path();
    let map = |name: &str| MapHandle::from_pinned_path(load.join(name)).unwrap();
    let mut flight = [0_u8; 64];
    flight[..8].copy_from_slice(&0xffff_8880_1234_5600_u64.to_ne_bytes());
    flight[16..24].copy_from_slice(&sector.to_le_bytes());
    flight[24..28].copy_from_slice(&bytes.to_le_bytes());
    map("map_flights").update(&800_u32.to_ne_bytes(), &flight, MapFlags::ANY).unwrap();
}
