//! The program that runs on the protected machine: `landfall demo-workload`, a process of its own.
//!
//! It commits ledger entries without end (see [`crate::ledger`]), with other files coming and going
//! beside them, and says outside the protected disks what it has acknowledged: that is what a
//! customer was promised, and what counts as lost after a disaster. It starts again from what the
//! ledger holds, wherever its disks are.

mod acknowledged;
mod churn;
#[cfg(test)]
mod tests;

pub(crate) use acknowledged::Acknowledged;

use crate::dice::Dice;
use crate::ledger::{self, Database, Entry, JournalMode, LineFile, Sum};
use acknowledged::AcknowledgedFile;
use anyhow::{Context as _, Result, ensure};
use churn::Churn;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Longest body of an entry.
const BODY_BYTES_MAX: u64 = 4000;
/// An entry in how many is followed by other work on the disks.
const CHURN_ONE_IN: u64 = 8;

/// How the workload is started.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkloadOptions {
    /// Where disk 1 is mounted
    #[arg(long)]
    disk1: PathBuf,
    /// Where disk 2 is mounted
    #[arg(long)]
    disk2: PathBuf,
    /// File outside the protected disks that tells what was acknowledged
    #[arg(long)]
    acknowledged: PathBuf,
    /// What the entries and the other files are like
    #[arg(long)]
    seed: u64,
    /// How SQLite makes commits atomic
    #[arg(long, value_enum)]
    journal_mode: JournalMode,
    /// Milliseconds between two entries
    #[arg(long, default_value_t = 15)]
    pace_ms: u64,
}

/// Runs until it is told to end (SIGTERM, SIGINT): then the entry at hand is finished and the
/// database closed.
///
/// # Errors
/// When a disk fails, or the ledger that it starts from is none.
pub async fn run(options: WorkloadOptions) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let mut workload = Workload::open(&options).await?;
    let pace = Duration::from_millis(options.pace_ms);
    while !told_to_end(pace, &mut terminate, &mut interrupt).await {
        workload.step().await?;
    }
    workload.database.close().await
}

async fn told_to_end(pace: Duration, terminate: &mut Signal, interrupt: &mut Signal) -> bool {
    tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = tokio::time::sleep(pace) => false,
    }
}

#[derive(Debug)]
struct Workload {
    database: Database,
    lines: LineFile,
    acknowledged: AcknowledgedFile,
    churn: Churn,
    dice: Dice,
    number: u64,
    before: Sum,
}

impl Workload {
    /// Goes on from what the disks hold: where disk 2 lacks the last entry of disk 1, that is made
    /// good first.
    async fn open(options: &WorkloadOptions) -> Result<Self> {
        let path = options.disk1.join(ledger::DATABASE);
        let mut database = Database::create(&path, options.journal_mode).await?;
        let last = database.last().await?;
        let path = options.disk2.join(ledger::FILE);
        let mut lines = LineFile::open(&path)?;
        let on2 = ledger::read_lines(&path)?.len() as u64;
        let number = last.as_ref().map_or(0, |entry| entry.number);
        ensure!(
            on2 == number || on2 + 1 == number,
            "disk 1 has {number} entries, disk 2 has {on2}"
        );
        let acknowledged = AcknowledgedFile::create(&options.acknowledged)?;
        if let Some(entry) = last.as_ref() {
            if on2 < number {
                lines.append(&ledger::Line::of(entry))?;
            }
            let (disk1, disk2) = (number, number);
            acknowledged.write(Acknowledged { disk1, disk2, time_ns: entry.time_ns })?;
        }
        let roots = [options.disk1.clone(), options.disk2.clone()];
        let churn = Churn::new(roots, Dice::new(options.seed, &format!("churn after {number}")));
        let dice = Dice::new(options.seed, &format!("entries after {number}"));
        let before = last.map_or(ledger::ROOT, |entry| entry.sum);
        Ok(Self { database, lines, acknowledged, churn, dice, number, before })
    }

    /// One entry, durable on disk 1 before disk 2 hears of it, each acknowledged only when it is
    /// durable.
    async fn step(&mut self) -> Result<()> {
        let number = self.number + 1;
        let size = usize::try_from(self.dice.between(16, BODY_BYTES_MAX)).context("size")?;
        let mut body = vec![0; size];
        self.dice.fill(&mut body);
        let time_ns = now_ns()?;
        let entry = Entry::new(&self.before, number, time_ns, body);
        self.database.commit(&entry).await?;
        self.acknowledged.write(Acknowledged { disk1: number, disk2: self.number, time_ns })?;
        self.lines.append(&ledger::Line::of(&entry))?;
        self.acknowledged.write(Acknowledged { disk1: number, disk2: number, time_ns })?;
        self.number = number;
        self.before = entry.sum;
        if self.dice.one_in(CHURN_ONE_IN) {
            self.churn.step()?;
        }
        Ok(())
    }
}

/// Wall time in nanoseconds since 1970.
///
/// # Errors
/// When the clock stands before 1970 or after 2554.
pub(crate) fn now_ns() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    u64::try_from(now.as_nanos()).context("the clock is after 2554")
}
