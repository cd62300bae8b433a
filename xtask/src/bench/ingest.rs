//! B2: durable ingest into the journal. A group is so many records, then one flush. The peer writes
//! the same bytes with `O_DIRECT` over a file written before, and syncs once a group: what the disk
//! gives to anyone who keeps no log.

use super::Effort;
use super::figure::{About, Figure, Goal};
use super::pairs::compare;
use super::scratch;
use anyhow::{Context, Result};
use bytes::Bytes;
use landfall_blockdev::{AlignedBuf, FsDir};
use landfall_journal::{Log, LogConfig, Stamp};
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Record, ReplicaId,
};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a peer's file, and about what a log keeps: several segments, so that both go round.
const SPACE_BYTES: u64 = 256 << 20;
/// Senders at a time in the second half of the figures (design section 13).
const SENDERS: usize = 4;

/// How a group is made.
#[derive(Clone, Copy, Debug)]
struct Shape {
    record_bytes: usize,
    group: usize,
    time: Duration,
}

impl Shape {
    const fn group_bytes(&self) -> usize {
        self.record_bytes * self.group
    }
}

/// Measures.
///
/// # Errors
/// When the journal or a file breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let directory = scratch::directory()?;
    let (pairs, time) = match effort {
        Effort::Quick => (3, Duration::from_millis(150)),
        Effort::Full => (7, Duration::from_secs(1)),
    };
    let mut lanes = Vec::new();
    for number in 0..SENDERS {
        lanes.push(Lane::new(&directory.path().join(format!("lane-{number}")))?);
    }
    let mut figures = Vec::new();
    for senders in [1, SENDERS] {
        for record_bytes in [4 << 10, 256 << 10] {
            for group in [1, 8, 64] {
                let shape = Shape { record_bytes, group, time };
                figures.push(measure(&mut lanes[..senders], shape, pairs)?);
            }
        }
    }
    Ok(figures)
}

fn measure(lanes: &mut [Lane], shape: Shape, pairs: usize) -> Result<Figure> {
    let senders = lanes.len();
    let (kib, group) = (shape.record_bytes >> 10, shape.group);
    let about = About {
        id: format!("B2.{kib}k.group{group}.senders{senders}"),
        measure: format!("durable bytes/s, groups of {group} × {kib} KiB, {senders} at a time"),
        peer: "O_DIRECT over a file written before, one fdatasync a group".into(),
        unit: "ratio",
        goal: Goal::AtLeast(if senders == 1 { 0.8 } else { 0.7 }),
    };
    let lanes = std::sync::Mutex::new(lanes);
    let together = |side: fn(&mut Lane, Shape) -> Result<f64>| {
        let mut lanes = lanes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::thread::scope(|scope| {
            let running: Vec<_> =
                lanes.iter_mut().map(|lane| scope.spawn(move || side(lane, shape))).collect();
            running
                .into_iter()
                .map(|lane| lane.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?)
                .sum::<Result<f64>>()
        })
    };
    let found = compare(pairs, || together(Lane::journal), || together(Lane::file))?;
    let note = format!(
        "{:.1} MiB/s into the journal, {:.1} MiB/s into the file; {pairs} pairs of {:?}",
        found.ours.median / f64::from(1 << 20),
        found.peer.median / f64::from(1 << 20),
        shape.time,
    );
    Ok(about.measured(found.ratio, note))
}

/// A sender's log, and the file that it is compared with.
struct Lane {
    log: Log,
    stamp: Stamp,
    file: File,
    at: u64,
}

impl Lane {
    fn new(path: &Path) -> Result<Self> {
        let directory =
            FsDir::open_or_create(path.join("log")).context("make a log's directory")?;
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        let config = LogConfig {
            log: LogId::generate(),
            replica: ReplicaId::generate(),
            epoch,
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            segment_bytes: LogConfig::SEGMENT_BYTES_DEFAULT,
        };
        let log = Log::create(Arc::new(directory), config).context("make a log")?;
        let stamp = Stamp { epoch, incarnation: Incarnation::new(1), source_position: 0 };
        let file = written_file(&path.join("file"))?;
        let mut lane = Self { log, stamp, file, at: 0 };
        lane.go_round()?;
        Ok(lane)
    }

    /// Fills the log's space and frees it, twice, so that every segment is one that was used
    /// before: a master target writes over recycled segments all day, and its first minutes are no
    /// measure.
    fn go_round(&mut self) -> Result<()> {
        let shape = Shape { record_bytes: 256 << 10, group: 64, time: Duration::ZERO };
        let groups = SPACE_BYTES / shape.group_bytes() as u64;
        for _ in 0..2 {
            for _ in 0..groups {
                self.append(&records(shape))?;
            }
            self.log.trim(self.log.durable().lsn).context("trim")?;
        }
        Ok(())
    }

    fn append(&self, records: &[Record]) -> Result<()> {
        let mut lsn = self.log.tail().lsn;
        let numbered: Vec<Record> = records
            .iter()
            .map(|record| {
                lsn = lsn.next();
                let mut record = record.clone();
                record.header.lsn = lsn;
                record
            })
            .collect();
        self.log.append(self.stamp, &numbered).context("append")?;
        self.log.flush().context("flush")?;
        Ok(())
    }

    /// Bytes per second into the log.
    fn journal(&mut self, shape: Shape) -> Result<f64> {
        let records = records(shape);
        let mut untrimmed = 0;
        repeat(shape, || {
            self.append(&records)?;
            untrimmed += shape.group_bytes() as u64;
            if untrimmed >= SPACE_BYTES / 2 {
                // What a master target does when records leave the retention; its cost belongs in
                // here.
                untrimmed = 0;
                self.log.trim(self.log.durable().lsn).context("trim")?;
            }
            Ok(())
        })
    }

    /// Bytes per second into the file.
    fn file(&mut self, shape: Shape) -> Result<f64> {
        let length = shape.group_bytes();
        let mut data = AlignedBuf::zeroed(length);
        data.copy_from_slice(&pattern(length));
        repeat(shape, || {
            if self.at + length as u64 > SPACE_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(&data, self.at).context("write")?;
            self.file.sync_data().context("fdatasync")?;
            self.at += length as u64;
            Ok(())
        })
    }
}

/// Groups for as long as the shape says; bytes per second.
fn repeat(shape: Shape, mut group: impl FnMut() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    let mut bytes = 0.0;
    while began.elapsed() < shape.time {
        group()?;
        bytes += shape.group_bytes() as f64;
    }
    Ok(bytes / began.elapsed().as_secs_f64())
}

/// A group's records, with checksums as they come from a sender; their positions are set later.
fn records(shape: Shape) -> Vec<Record> {
    let data = Bytes::from(pattern(shape.record_bytes));
    let at = |number: usize| (number * shape.record_bytes) as u64;
    (0..shape.group)
        .map(|number| Record::write(Lsn::new(1), DiskIndex(0), at(number), data.clone()))
        .collect()
}

/// Bytes that no layer below can compress away.
fn pattern(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    landfall_testkit::Rng::new(length as u64).fill(&mut data);
    data
}

fn written_file(path: &Path) -> Result<File> {
    let mut filling = std::io::Read::take(std::io::repeat(0x5a), SPACE_BYTES);
    let mut file = File::create(path).context("make the peer's file")?;
    std::io::copy(&mut filling, &mut file).context("fill the peer's file")?;
    file.sync_all()?;
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).context("O_DIRECT")?;
    File::options()
        .write(true)
        .custom_flags(direct)
        .open(path)
        .context("open the peer's file with O_DIRECT (a tmpfs may not have it)")
}
