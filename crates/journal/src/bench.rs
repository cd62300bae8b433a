//! Measure B2: durable ingest into the journal against the same bytes written with `O_DIRECT` over a file written before,
//! with one fdatasync per group.
//!
//! Both sides run on one file system in one process, in turns; a figure is the median of the pairs' ratios. The journal
//! is in the state of a long-running one: its segments were written before, and are trimmed as it goes.

use crate::{JournalError, Log, LogConfig, Stamp};
use landfall_blockdev::{AlignedBuf, DeviceError, FsDir};
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Record, ReplicaId,
};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most bytes that the peer writes at once: what its file system takes as one request.
const PEER_WRITE_MAX: usize = 1 << 20;
/// Size of the peer's file, and of what it has written before.
const PEER_FILE_BYTES: u64 = 128 << 20;
/// Bytes of the largest group.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Most senders at once, each with a log (or a file) of its own.
const SENDERS_MAX: usize = 4;
/// The segment with which all files of a log have been used before.
const SEGMENTS_WARM: u64 = 5;
/// Goal for one sender (design section 13).
const GOAL_ONE: f64 = 0.8;
/// Goal for four groups in flight.
const GOAL_FOUR: f64 = 0.7;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The peer's file.
    #[error("the peer's file")]
    Peer(#[source] io::Error),
    /// The journal's directory.
    #[error("the journal's directory")]
    Device(#[source] DeviceError),
    /// The journal.
    #[error("the journal")]
    Journal(#[source] JournalError),
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pairs of runs per figure.
    pub pairs: usize,
    /// Least time of one run.
    pub run: Duration,
}

impl Plan {
    /// About half a minute in all.
    pub const QUICK: Self = Self { pairs: 5, run: Duration::from_millis(120) };
    /// About four minutes.
    pub const FULL: Self = Self { pairs: 9, run: Duration::from_millis(1000) };
}

/// One measured ratio.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For instance `B2 4 KiB, group 8`.
    pub id: String,
    /// What it was compared with.
    pub peer: &'static str,
    /// Journal's rate divided by the peer's: median of the pairs.
    pub ratio: f64,
    /// At least this.
    pub goal: f64,
    /// The journal's median rate, bytes of payload per second.
    pub ours_bytes_per_s: f64,
    /// The peer's.
    pub peer_bytes_per_s: f64,
}

impl Figure {
    /// Whether the goal is met.
    #[must_use]
    pub fn met(&self) -> bool {
        self.ratio >= self.goal
    }
}

/// One figure's setting.
#[derive(Clone, Copy)]
struct Setting {
    record_bytes: usize,
    group: usize,
    senders: usize,
}

/// All figures of B2, in `directory` (on the disk that is to be measured; what is made there is removed).
///
/// # Errors
/// [`BenchError`].
pub fn ingest(directory: &Path, plan: Plan) -> Result<Vec<Figure>, BenchError> {
    let root = directory.join(format!("landfall-bench-{}", std::process::id()));
    let _cleanup = Cleanup(root.clone());
    let mut ours = Vec::new();
    let mut peers = Vec::new();
    for sender in 0..SENDERS_MAX {
        ours.push(Ours::new(&root.join(format!("log-{sender}")))?);
        peers.push(Peer::new(&root.join(format!("peer-{sender}")))?);
    }
    let mut figures = Vec::new();
    for senders in [1, SENDERS_MAX] {
        for record_bytes in [4 << 10, 256 << 10] {
            for group in [1, 8, 64] {
                let setting = Setting { record_bytes, group, senders };
                figures.push(figure(&mut ours[..senders], &mut peers[..senders], plan, setting)?);
            }
        }
    }
    Ok(figures)
}

fn figure(
    ours: &mut [Ours],
    peers: &mut [Peer],
    plan: Plan,
    setting: Setting,
) -> Result<Figure, BenchError> {
    let Setting { record_bytes, group, senders } = setting;
    ours.iter_mut().for_each(|ours| ours.set_group(record_bytes, group));
    peers.iter_mut().for_each(|peer| peer.set_group(record_bytes * group));
    let (mut ratios, mut our_rates, mut peer_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.pairs {
        let our_rate = rate(ours, plan.run, record_bytes * group, Ours::group)?;
        let peer_rate = rate(peers, plan.run, record_bytes * group, Peer::group)?;
        ratios.push(our_rate / peer_rate);
        our_rates.push(our_rate);
        peer_rates.push(peer_rate);
    }
    let several = if senders > 1 { format!(", {senders} senders") } else { String::new() };
    Ok(Figure {
        id: format!("B2 {} KiB, group {group}{several}", record_bytes >> 10),
        peer: "O_DIRECT over a written file, one fdatasync per group",
        ratio: median(&mut ratios),
        goal: if senders > 1 { GOAL_FOUR } else { GOAL_ONE },
        ours_bytes_per_s: median(&mut our_rates),
        peer_bytes_per_s: median(&mut peer_rates),
    })
}

/// Bytes per second of all senders together, each on a thread of its own.
fn rate<T: Send>(
    senders: &mut [T],
    run: Duration,
    group_bytes: usize,
    write_group: fn(&mut T) -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let start = Instant::now();
    let groups = std::thread::scope(|scope| {
        let threads: Vec<_> = senders
            .iter_mut()
            .map(|sender| {
                scope.spawn(move || {
                    let mut groups = 0_u64;
                    while start.elapsed() < run {
                        write_group(sender)?;
                        groups += 1;
                    }
                    Ok(groups)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a sender does not panic"))
            .sum::<Result<u64, BenchError>>()
    })?;
    #[allow(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
    Ok((groups * group_bytes as u64) as f64 / start.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A journal and one group of records for it.
struct Ours {
    log: Log,
    records: Vec<Record>,
}

impl Ours {
    fn new(path: &Path) -> Result<Self, BenchError> {
        let dir = FsDir::open_or_create(path).map_err(BenchError::Device)?;
        let config = LogConfig {
            log: LogId::generate(),
            replica: ReplicaId::generate(),
            epoch: stamp().epoch,
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            segment_bytes: LogConfig::SEGMENT_BYTES_DEFAULT,
        };
        let log = Log::create(Arc::new(dir), config).map_err(BenchError::Journal)?;
        let mut ours = Self { log, records: Vec::new() };
        // Every segment file has been written once before anything is measured.
        ours.set_group(256 << 10, 32);
        while ours.log.stat().segments.last().map_or(0, |last| last.sequence) < SEGMENTS_WARM {
            ours.group()?;
        }
        Ok(ours)
    }

    fn set_group(&mut self, record_bytes: usize, group: usize) {
        let data: Vec<u8> = (0..record_bytes).map(|at| (at * 31 % 251) as u8).collect();
        self.records = vec![Record::write(Lsn::new(1), DiskIndex(0), 0, data.into()); group];
    }

    /// Appends a group and makes it durable; forgets what is a segment old.
    fn group(&mut self) -> Result<(), BenchError> {
        let tail = self.log.tail().lsn;
        let mut lsn = tail;
        for record in &mut self.records {
            lsn = lsn.next();
            record.header.lsn = lsn;
        }
        self.log.append(stamp(), &self.records).map_err(BenchError::Journal)?;
        let durable = self.log.flush().map_err(BenchError::Journal)?;
        if self.log.segments_kept() > 2 {
            self.log.trim(durable.lsn).map_err(BenchError::Journal)?;
        }
        Ok(())
    }
}

fn stamp() -> Stamp {
    let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
    Stamp { epoch, incarnation: Incarnation::new(1), source_position: 0 }
}

/// The peer's file.
struct Peer {
    file: File,
    data: AlignedBuf,
    at: u64,
}

impl Peer {
    fn new(path: &Path) -> Result<Self, BenchError> {
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags)
            .open(path)
            .map_err(BenchError::Peer)?;
        let mut data = AlignedBuf::zeroed(GROUP_BYTES_MAX);
        data.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 % 251) as u8);
        for at in (0..PEER_FILE_BYTES).step_by(PEER_WRITE_MAX) {
            file.write_all_at(&data[..PEER_WRITE_MAX], at).map_err(BenchError::Peer)?;
        }
        file.sync_all().map_err(BenchError::Peer)?;
        Ok(Self { file, data, at: 0 })
    }

    fn set_group(&mut self, bytes: usize) {
        self.data.set_len(bytes);
    }

    fn group(&mut self) -> Result<(), BenchError> {
        if self.at + self.data.len() as u64 > PEER_FILE_BYTES {
            self.at = 0;
        }
        for chunk in self.data.chunks(PEER_WRITE_MAX) {
            self.file.write_all_at(chunk, self.at).map_err(BenchError::Peer)?;
            self.at += chunk.len() as u64;
        }
        self.file.sync_data().map_err(BenchError::Peer)
    }
}

struct Cleanup(PathBuf);
impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
