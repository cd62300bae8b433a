//! B5 and B9 over the depth of the journal: what a branch, a view, a reopening and the memory cost
//! with 10⁴ to 10⁷ records. No peer: a qcow2 overlay has no past to go back to.

use super::branch::{self, Case, DISK, GIB};
use super::figure::{About, Figure, Goal};
use super::pairs::Spread;
use super::{Effort, scratch};
use anyhow::{Context, Result};
use landfall_blockdev::FsDir;
use landfall_types::{BranchId, Lsn};
use landfall_volume::{FsImages, NewTestBranch, PointSelector, Replica, Vault};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Measures.
///
/// # Errors
/// When the store breaks.
pub(super) fn run(effort: &Effort) -> Result<Vec<Figure>> {
    let (depths, sizes, turns): (&[u64], &[u64], u64) = match effort {
        Effort::Quick => (&[10_000, 100_000], &[GIB], 50),
        Effort::Full => (&[10_000, 100_000, 1_000_000, 10_000_000], &[GIB, 1024 * GIB], 300),
    };
    let mut figures = Vec::new();
    for size in sizes {
        for records in depths {
            let case = Case { size: *size, records: *records };
            measure(case, turns, &mut figures)
                .with_context(|| format!("{records} records on {} GiB", size / GIB))?;
        }
    }
    Ok(figures)
}

fn measure(case: Case, turns: u64, figures: &mut Vec<Figure>) -> Result<()> {
    let directory = scratch::directory()?;
    let before = resident_bytes()?;
    let replica = branch::replica(directory.path(), case)?;
    settle(&replica);
    let newest = replica.newest_legal()?.context("there are recovery points")?;
    let old = Lsn::new(newest.get() / 2);
    let mut branches = |what: &str, point: &PointSelector| -> Result<()> {
        let times = (0..turns).map(|turn| branch_once(&replica, turn, point));
        let times: Vec<f64> = times.collect::<Result<_>>()?;
        figures.push(p99(case, what, "ms", Goal::AtMost(100.0), times));
        Ok(())
    };
    branches("newest", &PointSelector::Newest)?;
    branches("old", &PointSelector::Lsn(old))?;
    let reads = cold_reads(&replica, old, case.size, turns.max(200))?;
    figures.push(p99(case, "cold-read", "µs", Goal::None, reads));
    let taken = resident_bytes()?.saturating_sub(before);
    figures.push(memory(case, taken, &replica));
    let id = replica.id();
    drop(replica);
    figures.push(p99(case, "reopen", "ms", Goal::None, reopen(directory.path(), id)?));
    Ok(())
}

/// Waits until the indexes have nothing more to merge: what is measured is the state that stays.
fn settle(replica: &Replica) {
    let busy = || replica.indexes().iter().any(|i| i.merging.is_some() || i.tail_records > 32_768);
    while busy() {
        std::thread::yield_now();
    }
}

fn about(case: Case, what: &str, measure: &str, unit: &'static str, goal: Goal) -> About {
    let id = format!("B5.depth.{}g.{}r.{what}", case.size / GIB, case.records);
    About {
        id,
        measure: measure.into(),
        peer: "a limit, and flatness over depth".into(),
        unit,
        goal,
    }
}

fn p99(case: Case, what: &str, unit: &'static str, goal: Goal, mut times: Vec<f64>) -> Figure {
    times.sort_by(f64::total_cmp);
    let p99 = times[(times.len() * 99).div_ceil(100) - 1];
    let spread = Spread { median: p99, least: times[0], most: times[times.len() - 1] };
    let note =
        format!("99th percentile of {}; median {:.3}", times.len(), Spread::of(times).median);
    let measure = match what {
        "cold-read" => "first read of a 4 KiB block of a view half-way back",
        "reopen" => "opening the replica",
        _ => "order to branch → first block read, without NBD",
    };
    about(case, what, measure, unit, goal).measured(spread, note)
}

/// From the order to the first block, in milliseconds.
fn branch_once(replica: &Replica, turn: u64, point: &PointSelector) -> Result<f64> {
    let name = format!("depth-{turn}");
    let began = Instant::now();
    let order =
        NewTestBranch { id: BranchId::generate(), name: name.clone(), point: point.clone() };
    let branch = replica.test_branch(&order)?;
    let mut block = [0; 4096];
    branch.read(DISK, 0, &mut block)?;
    let time = began.elapsed().as_secs_f64() * 1e3;
    drop(branch);
    replica.drop_test_branch(&name)?;
    Ok(time)
}

/// Reads of a new view, each of a place that it has not read, in microseconds.
fn cold_reads(replica: &Replica, at: Lsn, size: u64, count: u64) -> Result<Vec<f64>> {
    let view = replica.view(&PointSelector::Lsn(at))?;
    let mut rng = landfall_testkit::Rng::new(at.get());
    let mut block = vec![0; 4096];
    let mut times = Vec::new();
    for _ in 0..count {
        let offset = rng.below(size / 4096) * 4096;
        let began = Instant::now();
        view.read(DISK, offset, &mut block)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Opening the replica three times, in milliseconds.
fn reopen(directory: &Path, id: landfall_types::ReplicaId) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let dir = FsDir::open_or_create(directory.join("vault")).context("open the vault")?;
        let vault = Vault::open(Arc::new(dir), Arc::new(FsImages), 64 << 20)?;
        let began = Instant::now();
        let replica = vault.open_replica(id)?.context("the replica is complete")?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        drop(replica);
    }
    Ok(times)
}

/// B9: what the process has taken since before the replica was made, caches included. From 10⁶
/// records on this says something; below, it is the fixed part.
fn memory(case: Case, taken: u64, replica: &Replica) -> Figure {
    let mib = taken as f64 / f64::from(1 << 20);
    let value = mib * 1e6 / case.records as f64;
    let goal = if case.records >= 1_000_000 { Goal::AtMost(32.0) } else { Goal::None };
    let runs: usize = replica.indexes().iter().map(|index| index.runs).sum();
    let about = About {
        id: format!("B9.{}g.{}r", case.size / GIB, case.records),
        measure: "resident memory of a store per million retained records".into(),
        peer: "a limit".into(),
        unit: "MiB",
        goal,
    };
    let spread = Spread { median: value, least: value, most: value };
    about.measured(spread, format!("{mib:.1} MiB in all; {runs} runs"))
}

/// Of this process.
fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("VmRSS")?;
    Ok(kib.parse::<u64>().context("VmRSS")? * 1024)
}
