//! The workload writes a ledger that its check accepts, whatever stopped it.

use super::*;
use crate::runs::{Record, Runs, sweep};
use crate::{filesystem, host};
use std::path::Path;

fn options(dir: &Path, journal_mode: JournalMode) -> WorkloadOptions {
    let (disk1, disk2) = (dir.join("1"), dir.join("2"));
    std::fs::create_dir_all(&disk1).unwrap();
    std::fs::create_dir_all(&disk2).unwrap();
    let acknowledged = dir.join("acknowledged");
    WorkloadOptions { disk1, disk2, acknowledged, seed: 1, journal_mode, pace_ms: 0 }
}

async fn check(options: &WorkloadOptions) -> ledger::Ledger {
    ledger::check(&options.disk1, &options.disk2).await.unwrap()
}

#[tokio::test]
async fn it_goes_on_from_what_the_disks_hold() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), JournalMode::Delete);
    let mut workload = Workload::open(&options).await.unwrap();
    for _ in 0..40 {
        workload.step().await.unwrap();
    }
    drop(workload);
    let ledger = check(&options).await;
    assert_eq!((ledger.disk1, ledger.disk2), (40, 40));
    let acknowledged = Acknowledged::read(&options.acknowledged).unwrap().unwrap();
    assert_eq!((acknowledged.disk1, acknowledged.disk2), (40, 40));
    assert_eq!(acknowledged.time_ns, ledger.time_ns);
    // Disk 2 as if the last entry had not reached it: made good at the start, and acknowledged.
    let path = options.disk2.join(ledger::FILE);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 64]).unwrap();
    let mut workload = Workload::open(&options).await.unwrap();
    assert_eq!(check(&options).await.disk2, 40);
    workload.step().await.unwrap();
    assert_eq!(check(&options).await.disk1, 41);
}

#[tokio::test]
async fn it_does_not_start_on_disks_of_different_times() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), JournalMode::Wal);
    let mut workload = Workload::open(&options).await.unwrap();
    for _ in 0..5 {
        workload.step().await.unwrap();
    }
    drop(workload);
    std::fs::write(options.disk2.join(ledger::FILE), "").unwrap();
    let error = Workload::open(&options).await.unwrap_err().to_string();
    assert!(error.contains("disk 1 has 5 entries, disk 2 has 0"), "{error}");
}

/// Disks of a test; removed whatever becomes of the test.
struct Disks {
    dir: tempfile::TempDir,
    runs: Runs,
    record: Record,
}

impl Disks {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::at(dir.path().join("records"));
        let record = runs.begin(dir.path()).unwrap();
        Self { dir, runs, record }
    }

    fn mount(&self, point: &Path) -> (host::Loop, filesystem::Mounted) {
        let image = point.with_extension("img");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        filesystem::make(&image).unwrap();
        let attached = host::attach(&image).unwrap();
        let mounted = filesystem::mount(&attached.device, point).unwrap();
        (attached, mounted)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let swept = sweep(&self.runs, &self.record, Duration::from_secs(1));
        assert!(swept.is_ok() || std::thread::panicking(), "{swept:?} in {:?}", self.dir);
    }
}

/// A promise of the workload, without which every check of a recovery would be empty: what it
/// acknowledged is there after its file systems stopped dead.
#[tokio::test]
async fn what_it_acknowledged_is_there_after_a_power_cut() {
    if !landfall_testkit::require(&["root", "loop", "e2fsprogs"]) {
        return;
    }
    for mode in [JournalMode::Wal, JournalMode::Delete] {
        let disks = Disks::begin();
        let options = options(&disks.record.dir, mode);
        let mounted = [&options.disk1, &options.disk2].map(|point| disks.mount(point));
        let mut workload = Workload::open(&options).await.unwrap();
        for _ in 0..30 {
            workload.step().await.unwrap();
        }
        // Stopped below a process that has everything open, as a power cut does.
        for (_, mounted) in &mounted {
            mounted.abort().unwrap();
        }
        drop(workload);
        for (attached, mounted) in &mounted {
            // SQLite closes its files in a thread of its own.
            let unmounted = || Ok(mounted.unmount().ok());
            let patience = Duration::from_secs(5);
            crate::wait::until_blocking("it is unmounted", patience, unmounted).unwrap();
            filesystem::replay_journal(&attached.device).unwrap();
            filesystem::check_clean(&attached.device).unwrap();
            filesystem::mount(&attached.device, &mounted.point).unwrap();
        }
        let ledger = check(&options).await;
        assert_eq!((ledger.disk1, ledger.disk2), (30, 30), "{mode:?}");
    }
}
