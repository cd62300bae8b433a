//! B1: what capture costs a disk, with two readers of the ring. *Dropped*: records are taken and
//! dropped, so the figure is the cost of capture alone. *Logged*: they are checksummed and written
//! to a file on the machine's own disk, flushed again and again: what an agent with a local spool
//! costs, which fights for the same processors and the same disk.
//!
//! `LANDFALL_BENCH_DISK` names a disk for a third kind beside the two loop devices. **What it holds
//! is overwritten.**

use super::Effort;
use super::figure::{About, Figure, Goal};
use super::fio::Writes;
use super::pairs::compare;
use super::{peer, scratch};
use anyhow::{Context, Result, bail};
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{Capture, Captured, CapturedKind, Options, State, Target};
use landfall_types::DiskIndex;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of the disk: larger than the ring, smaller than the memory of any machine that builds
/// this.
const DISK_BYTES: u64 = 256 << 20;
/// Bytes taken from the ring at once.
const DRAIN_BYTES: usize = 4 << 20;
/// How often the log is flushed.
const FLUSH: Duration = Duration::from_millis(20);
/// Sizes of the writes, and their names.
const SIZES: [(u32, &str); 3] = [(4 << 10, "4k"), (64 << 10, "64k"), (1 << 20, "1m")];

/// What is done with the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    Dropped,
    Logged,
}

impl Reader {
    const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Logged => "logged",
        }
    }
}

/// A disk to measure on.
enum Disk {
    Loop(LoopDevice),
    Real(PathBuf),
}

impl Disk {
    fn path(&self) -> &Path {
        match self {
            Self::Loop(device) => device.path(),
            Self::Real(path) => path,
        }
    }
}

/// Measures.
///
/// # Errors
/// When the load or the capture breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let directory = scratch::directory()?;
    let real = std::env::var_os("LANDFALL_BENCH_DISK").map(PathBuf::from);
    let mut kinds = vec![("disk", "a loop device over a file"), ("memory", "one over memory")];
    if real.is_some() {
        kinds.push(("real", "the disk that LANDFALL_BENCH_DISK names"));
    }
    let mut figures = Vec::new();
    for (kind, what) in kinds {
        for (case, goal) in cases() {
            let about = case.about(kind, what, goal);
            if let Some(why) = impossible() {
                figures.push(about.skipped(&why));
                continue;
            }
            let disk = match (kind, &real) {
                ("disk", _) => Disk::Loop(over_file(&directory.path().join("disk"))?),
                ("real", Some(path)) => Disk::Real(path.clone()),
                _ => Disk::Loop(LoopDevice::scratch(DISK_BYTES, LoopOptions::default())?),
            };
            let log = directory.path().join("log");
            figures.push(case.measure(effort, about, disk.path(), &log)?);
        }
    }
    Ok(figures)
}

/// Size of the writes, depth, reader.
#[derive(Clone, Copy, Debug)]
struct Case {
    block_bytes: u32,
    size: &'static str,
    queue_depth: u32,
    reader: Reader,
}

/// The goal is for capture alone; what a log beside it costs depends on the disk that it is on.
fn cases() -> Vec<(Case, Goal)> {
    let mut cases = Vec::new();
    for (reader, goal) in [(Reader::Dropped, Goal::AtLeast(0.95)), (Reader::Logged, Goal::None)] {
        for (block_bytes, size) in SIZES {
            for queue_depth in [1, 32] {
                cases.push((Case { block_bytes, size, queue_depth, reader }, goal));
            }
        }
    }
    cases
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

impl Case {
    fn about(self, kind: &str, what: &str, goal: Goal) -> About {
        let Self { size, queue_depth, reader, .. } = self;
        let name = reader.name();
        About {
            id: format!("B1.{kind}.{size}.qd{queue_depth}.{name}"),
            measure: format!("IOPS, writes of {size} at depth {queue_depth}, {what}, {name}"),
            peer: "the same disk uncaptured".into(),
            unit: "ratio",
            goal,
        }
    }

    fn measure(self, effort: &Effort, about: About, device: &Path, log: &Path) -> Result<Figure> {
        let (pairs, time) = match effort {
            Effort::Quick => (3, Duration::from_millis(300)),
            Effort::Full => (9, Duration::from_secs(2)),
        };
        let (block_bytes, queue_depth) = (self.block_bytes, self.queue_depth);
        let load = Writes { device, block_bytes, queue_depth, time };
        load.run().context("warm up")?;
        let mut lost = 0;
        let found = compare(
            pairs,
            || {
                let (iops, state) = self.captured(&load, log)?;
                lost += usize::from(state != State::Data);
                Ok(iops)
            },
            || load.run(),
        )?;
        let losses = match lost {
            0 => String::new(),
            _ => {
                format!("; the ring overflowed in {lost} of {pairs} runs: only marked from then on")
            }
        };
        let note = format!(
            "{:.0} IOPS captured, {:.0} uncaptured; {pairs} pairs of {time:?}{losses}",
            found.ours.median, found.peer.median
        );
        let mut figure = about.measured(found.ratio, note);
        // A capture that gave up costs little: such a figure must not count.
        if lost > 0 && figure.met.is_some() {
            figure.met = Some(false);
        }
        Ok(figure)
    }

    /// The load on a captured disk, while a thread takes the records out of the ring.
    fn captured(self, load: &Writes<'_>, log: &Path) -> Result<(f64, State)> {
        let target = Target { disk: DiskIndex(0), path: load.device.to_owned() };
        let capture = Capture::start(&[target], Options::default()).context("start the capture")?;
        let mut sink = Sink::new(self.reader, log)?;
        let over = AtomicBool::new(false);
        let bytes = AtomicU64::new(0);
        let iops = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    if capture.wait_readable(Duration::from_millis(20)) {
                        take(&capture, &bytes, &mut sink)?;
                    }
                }
                take(&capture, &bytes, &mut sink)
            });
            let iops = load.run();
            over.store(true, Ordering::Release);
            reading.join().expect("the reader does not panic")?;
            iops
        })?;
        let state = capture.state();
        let (seen, taken) = (capture.counters(DiskIndex(0)), bytes.load(Ordering::Acquire));
        if state == State::Data && (taken == 0 || taken < seen.bytes) {
            bail!("of {} captured bytes {taken} came out of the ring", seen.bytes);
        }
        Ok((iops, state))
    }
}

/// Where records go.
struct Sink {
    log: Option<File>,
    flushed: Instant,
    checksum: u32,
}

impl Sink {
    fn new(reader: Reader, path: &Path) -> Result<Self> {
        let log = match reader {
            Reader::Dropped => None,
            Reader::Logged => Some(File::create(path).context("make the log")?),
        };
        Ok(Self { log, flushed: Instant::now(), checksum: 0 })
    }

    fn put(&mut self, records: &[Captured]) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        for record in records {
            if let CapturedKind::Write(data) = &record.kind {
                self.checksum = crc32c::crc32c_append(self.checksum, data);
                log.write_all(data).context("write the log")?;
            }
        }
        if self.flushed.elapsed() >= FLUSH {
            log.sync_data().context("flush the log")?;
            self.flushed = Instant::now();
        }
        Ok(())
    }
}

/// Empties the ring. After an overflow what is left of it is not waited for.
fn take(capture: &Capture, bytes: &AtomicU64, sink: &mut Sink) -> Result<()> {
    loop {
        let records = capture.drain(DRAIN_BYTES);
        let Some(last) = records.last() else { return Ok(()) };
        let data = |record: &Captured| match &record.kind {
            CapturedKind::Write(data) => data.len() as u64,
            CapturedKind::Zero | CapturedKind::Discard | CapturedKind::Failed => 0,
        };
        bytes.fetch_add(records.iter().map(data).sum(), Ordering::AcqRel);
        let position = last.ring_position;
        sink.put(&records)?;
        drop(records);
        capture.release(position);
    }
}
