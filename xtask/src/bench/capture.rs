//! B1: what capture costs a disk. The captured bytes are read from the ring and dropped, so the
//! figure is the cost of capture alone; carrying the bytes away shares the machine and is B7's.

use super::Effort;
use super::figure::{About, Figure, Goal};
use super::fio::RandomWrites;
use super::pairs::compare;
use super::{peer, scratch};
use anyhow::{Context, Result, bail};
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{Capture, Options, State, Target};
use landfall_types::DiskIndex;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of the disk: larger than the ring, smaller than the memory of any machine that builds
/// this.
const DISK_BYTES: u64 = 256 << 20;
/// Bytes taken from the ring at once.
const DRAIN_BYTES: usize = 4 << 20;
/// Rest of the reader after each look: one that waits again at once is woken by every single write,
/// and takes a processor from whoever writes. The ring holds far more than comes in that time.
const REST: Duration = Duration::from_millis(1);

/// Measures.
///
/// # Errors
/// When the load or the capture breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let directory = scratch::directory()?;
    let mut figures = Vec::new();
    for (kind, what) in [("disk", "a loop device over a file"), ("memory", "one over memory")] {
        for queue_depth in [1, 32] {
            let about = About {
                id: format!("B1.{kind}.qd{queue_depth}"),
                measure: format!("IOPS, 4 KiB random writes at depth {queue_depth}, {what}"),
                peer: "the same disk uncaptured".into(),
                unit: "ratio",
                goal: Goal::AtLeast(0.95),
            };
            if let Some(why) = impossible() {
                figures.push(about.skipped(&why));
                continue;
            }
            let device = match kind {
                "disk" => over_file(&directory.path().join("disk"))?,
                _ => LoopDevice::scratch(DISK_BYTES, LoopOptions::default())?,
            };
            figures.push(measure(effort, about, device.path(), queue_depth)?);
        }
    }
    Ok(figures)
}

fn impossible() -> Option<String> {
    let capability = landfall_testkit::missing(&["root", "loop", "bpf"]);
    let capability = capability.map(|missing| format!("{}: {}", missing.name, missing.cure));
    capability.or_else(|| peer::missing(&["fio"]))
}

/// Written before, so that the load allocates nothing.
fn over_file(path: &Path) -> Result<LoopDevice> {
    if !path.exists() {
        let mut zeroes = std::io::Read::take(std::io::repeat(0x5a), DISK_BYTES);
        let mut file = File::create(path)?;
        std::io::copy(&mut zeroes, &mut file).context("write the disk's file")?;
        file.sync_all()?;
    }
    let backing = File::options().read(true).write(true).open(path)?;
    LoopDevice::attach(&backing, LoopOptions::default()).context("attach a loop device")
}

fn measure(effort: &Effort, about: About, device: &Path, queue_depth: u32) -> Result<Figure> {
    let (pairs, time) = match effort {
        Effort::Quick => (3, Duration::from_millis(300)),
        Effort::Full => (9, Duration::from_secs(4)),
    };
    let load = RandomWrites { device, queue_depth, time };
    load.run().context("warm up")?;
    let mut lost = 0;
    let found = compare(
        pairs,
        || {
            let (iops, state) = captured(&load)?;
            lost += usize::from(state != State::Data);
            Ok(iops)
        },
        || load.run(),
    )?;
    let losses = match lost {
        0 => String::new(),
        _ => format!("; capture ended with a loss in {lost} of {pairs} runs"),
    };
    let note = format!(
        "{:.0} IOPS captured, {:.0} uncaptured; {pairs} pairs of {time:?}{losses}",
        found.ours.median, found.peer.median
    );
    let mut figure = about.measured(found.ratio, note);
    // A capture that gave up costs nothing: such a figure must not count.
    if lost > 0 {
        figure.met = Some(false);
    }
    Ok(figure)
}

/// The load on a captured disk, while a thread takes the records out of the ring.
fn captured(load: &RandomWrites<'_>) -> Result<(f64, State)> {
    let target = Target { disk: DiskIndex(0), path: load.device.to_owned() };
    let capture = Capture::start(&[target], Options::default()).context("start the capture")?;
    let over = AtomicBool::new(false);
    let bytes = AtomicU64::new(0);
    let iops = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if capture.wait_readable(Duration::from_millis(20)) {
                    take(&capture, &bytes);
                    std::thread::sleep(REST);
                }
            }
            take(&capture, &bytes);
        });
        let iops = load.run();
        over.store(true, Ordering::Release);
        iops
    })?;
    let state = capture.state();
    let (seen, taken) = (capture.counters(DiskIndex(0)), bytes.load(Ordering::Acquire));
    if state == State::Data && (taken == 0 || taken < seen.bytes) {
        bail!("of {} captured bytes {taken} came out of the ring", seen.bytes);
    }
    Ok((iops, state))
}

fn take(capture: &Capture, bytes: &AtomicU64) {
    loop {
        let records = capture.drain(DRAIN_BYTES);
        let Some(last) = records.last() else { return };
        let sum: u64 = records.iter().map(|record| record.length).sum();
        bytes.fetch_add(sum, Ordering::AcqRel);
        capture.release(last.ring_position);
    }
}
