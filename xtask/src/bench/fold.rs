//! B6: the fold. The peer writes the same extents, which it holds in memory, in disk order with
//! `O_DIRECT` and as many in flight, into a file written before, and syncs once: what the disk
//! gives to anyone who has no journal to read.

use super::Effort;
use super::figure::{About, Figure, Goal};
use super::pairs::compare;
use super::scratch;
use anyhow::{Context, Result};
use landfall_blockdev::{AlignedBuf, FsDir};
use landfall_types::{
    Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, Incarnation, InstanceId,
    Lineage, Lsn, MachineId, Record, ReplicaId, WindowClose, WindowId, WindowMode, WindowOpen,
    WindowReason,
};
use landfall_volume::{
    Frame, FsImages, ImageOwner, OldContent, Replica, ReplicaConfig, ReplicaDisk,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Writes of the peer in flight, as many as a fold has.
const IN_FLIGHT: usize = 4;
/// The peer's largest write, as a fold's.
const WRITE_BYTES_MAX: usize = 1 << 20;
const FRAME_RECORDS: usize = 64;

/// What is folded at once.
#[derive(Clone, Copy, Debug)]
struct Case {
    record_bytes: usize,
    records: usize,
    sequential: bool,
    disk_bytes: u64,
}

/// Measures.
///
/// # Errors
/// When the store or a file breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let (pairs, total, disk_bytes) = match effort {
        Effort::Quick => (3, 32 << 20, 256 << 20),
        Effort::Full => (7, 512 << 20, 4 << 30),
    };
    let mut figures = Vec::new();
    for (record_bytes, sequential) in [(4096, false), (65_536, false), (262_144, true)] {
        let records = total / record_bytes;
        figures.push(measure(Case { record_bytes, records, sequential, disk_bytes }, pairs)?);
    }
    Ok(figures)
}

fn measure(case: Case, pairs: usize) -> Result<Figure> {
    let order = if case.sequential { "in a row" } else { "scattered" };
    let kib = case.record_bytes >> 10;
    let about = About {
        id: format!("B6.{kib}k.{}", if case.sequential { "row" } else { "scattered" }),
        measure: format!("fold of {} records of {kib} KiB, {order}, bytes/s", case.records),
        peer: format!("the same extents, O_DIRECT, {IN_FLIGHT} in flight, one fdatasync"),
        unit: "ratio",
        goal: Goal::AtLeast(0.8),
    };
    let directory = scratch::directory()?;
    let site = RefCell::new(Site::new(directory.path(), case)?);
    let found = compare(pairs, || site.borrow_mut().fold(), || site.borrow_mut().peer())?;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let note =
        format!("{:.0} MiB/s, peer {:.0} MiB/s", mib(found.ours.median), mib(found.peer.median));
    Ok(about.measured(found.ratio, note))
}

/// A replica, and the peer's file.
struct Site {
    case: Case,
    replica: Replica,
    chain: Chain,
    lsn: Lsn,
    turn: u64,
    peer: File,
}

impl Site {
    fn new(path: &Path, case: Case) -> Result<Self> {
        let image = path.join("image");
        let replica = replica(path, &image, case)?;
        for file in [&image, &path.join("peer")] {
            fill(file, case.disk_bytes)?;
        }
        let options =
            File::options().write(true).custom_flags(libc_direct()).open(path.join("peer"));
        let peer = options.context("open the peer's file past the page cache")?;
        let (chain, lsn) = (Chain::ROOT, Lsn::ZERO);
        let mut site = Self { case, replica, chain, lsn, turn: 0, peer };
        let window = WindowId(1);
        site.append(vec![
            Record::control(
                Lsn::new(1),
                &Control::WindowOpen(WindowOpen {
                    window,
                    reason: WindowReason::Requested,
                    mode: WindowMode::Copy,
                    disks: vec![0],
                    into_image: false,
                }),
            ),
            Record::control(
                Lsn::new(2),
                &Control::WindowClose(WindowClose { window, exact: true }),
            ),
        ])?;
        Ok(site)
    }

    fn append(&mut self, records: Vec<Record>) -> Result<()> {
        let frame = Frame {
            epoch: epoch(),
            incarnation: Incarnation::new(1),
            source_position: 0,
            chain_before: self.chain,
            records: &records,
        };
        self.replica.ingest(frame)?;
        self.chain = records.iter().fold(self.chain, |chain, record| record.chain(chain));
        self.lsn = self.lsn.plus(records.len() as u64);
        Ok(())
    }

    /// Offsets of this turn's records; each turn has others.
    fn offsets(&self) -> Vec<u64> {
        let length = self.case.record_bytes as u64;
        let slots = self.case.disk_bytes / length;
        let mut random = self.turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let step = |n: u64| {
            if self.case.sequential {
                return n;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % slots
        };
        (0..self.case.records as u64).map(step).map(|slot| slot % slots * length).collect()
    }

    fn fold(&mut self) -> Result<f64> {
        self.turn += 1;
        let payload = bytes::Bytes::from(vec![self.turn as u8 | 1; self.case.record_bytes]);
        for offsets in self.offsets().chunks(FRAME_RECORDS) {
            let lsn = |n: usize| self.lsn.plus(n as u64 + 1);
            let write = |(n, offset): (usize, &u64)| {
                Record::write(lsn(n), DiskIndex(0), *offset, payload.clone())
            };
            let records = offsets.iter().enumerate().map(write).collect();
            self.append(records)?;
        }
        let to = self.replica.flush()?.lsn;
        let began = Instant::now();
        let bytes = self.replica.fold(to)?;
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }

    /// Of the turn of the fold that was last, or comes next.
    fn peer(&mut self) -> Result<f64> {
        let extents = runs(&self.offsets(), self.case.record_bytes);
        let bytes: usize = extents.iter().map(|(_, length)| length).sum();
        let next = AtomicUsize::new(0);
        let write = || -> Result<()> {
            let mut data = AlignedBuf::zeroed(WRITE_BYTES_MAX);
            data.fill(3);
            while let Some((at, length)) = extents.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.peer.write_all_at(&data[..*length], *at)?;
            }
            Ok(())
        };
        let began = Instant::now();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..IN_FLIGHT).map(|_| scope.spawn(write)).collect();
            all.into_iter().try_for_each(|one| one.join().expect("no writer panics"))
        })?;
        self.peer.sync_data()?;
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }
}

/// Blocks in disk order, neighbors put together as a fold puts them.
fn runs(offsets: &[u64], block: usize) -> Vec<(u64, usize)> {
    let mut out: Vec<(u64, usize)> = Vec::new();
    for offset in offsets.iter().copied().collect::<BTreeSet<u64>>() {
        match out.last_mut() {
            Some((at, length))
                if *at + *length as u64 == offset && *length + block <= WRITE_BYTES_MAX =>
            {
                *length += block;
            }
            _ => out.push((offset, block)),
        }
    }
    out
}

fn replica(path: &Path, image: &Path, case: Case) -> Result<Replica> {
    let dir = Arc::new(FsDir::open_or_create(path.join("replica"))?);
    let config = ReplicaConfig {
        replica: ReplicaId::from_bytes([1; 16]),
        machine: MachineId::from_bytes([2; 16]),
        machine_name: "bench".into(),
        instance: InstanceId::from_bytes([3; 16]),
        disks: vec![ReplicaDisk {
            index: DiskIndex(0),
            id: DiskId::from_bytes([4; 16]),
            geometry: DiskGeometry { size_bytes: case.disk_bytes, sector_bytes: 512 },
            image: image.to_string_lossy().into_owned(),
            owner: ImageOwner::Ours,
        }],
        lineage: Lineage::root(epoch()),
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        old_content: OldContent::Expendable,
        encryption: None,
        retention: landfall_types::RetentionPolicy::default(),
        segment_bytes: 64 << 20,
    };
    Ok(Replica::create(dir, Arc::new(FsImages), config)?)
}

const fn epoch() -> Epoch {
    Epoch { number: 1, id: EpochId::new(1), parent: None }
}

/// Both sides write into a file that was written before: neither pays for new blocks.
fn fill(path: &Path, bytes: u64) -> Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    let data = vec![0x5a; 4 << 20];
    for at in (0..bytes).step_by(data.len()) {
        file.write_all_at(&data[..data.len().min((bytes - at) as usize)], at)?;
    }
    Ok(file.sync_all()?)
}

fn libc_direct() -> i32 {
    rustix::fs::OFlags::DIRECT.bits().cast_signed()
}
