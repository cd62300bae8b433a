//! The check must be able to fail: each test breaks a good ledger in one way.

use super::entry::{LINE_BYTES, Line};
use super::*;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Disks {
    dir: TempDir,
    entries: Vec<Entry>,
}

impl Disks {
    /// `on1` entries on disk 1, `on2` on disk 2.
    async fn with(mode: JournalMode, on1: u64, on2: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("1")).unwrap();
        fs::create_dir(dir.path().join("2")).unwrap();
        let entries = history(on1.max(on2), b"body");
        let disks = Self { dir, entries };
        let mut database = Database::create(&disks.database(), mode).await.unwrap();
        for entry in disks.entries.iter().take(on1 as usize) {
            database.commit(entry).await.unwrap();
        }
        database.close().await.unwrap();
        let mut file = LineFile::open(&disks.file()).unwrap();
        for entry in disks.entries.iter().take(on2 as usize) {
            file.append(&Line::of(entry)).unwrap();
        }
        disks
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("1").join(DATABASE)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("2").join(FILE)
    }

    async fn check(&self) -> anyhow::Result<Ledger> {
        check(&self.dir.path().join("1"), &self.dir.path().join("2")).await
    }

    async fn sql(&self, text: &'static str) {
        use sqlx::Connection as _;
        let url = format!("sqlite://{}", self.database().display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(text).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn fails_with(&self, text: &str) {
        let error = format!("{:#}", self.check().await.unwrap_err());
        assert!(error.contains(text), "{error:?} does not say {text:?}");
    }
}

fn history(count: u64, body: &[u8]) -> Vec<Entry> {
    let mut before = ROOT;
    let make = |number| {
        let entry = Entry::new(&before, number, 1000 + number, body.to_vec());
        before = entry.sum;
        entry
    };
    (1..=count).map(make).collect()
}

#[tokio::test]
async fn as_many_or_one_less_on_disk_2_is_right_in_both_modes() {
    for mode in [JournalMode::Wal, JournalMode::Delete] {
        for (on1, on2) in [(5, 5), (5, 4), (1, 0)] {
            let ledger = Disks::with(mode, on1, on2).await.check().await.unwrap();
            assert_eq!(ledger, Ledger { disk1: on1, disk2: on2, time_ns: 1000 + on1 });
        }
    }
}

#[tokio::test]
async fn disk_2_two_behind_or_one_ahead_is_wrong() {
    Disks::with(JournalMode::Wal, 5, 3).await.fails_with("not in one order").await;
    Disks::with(JournalMode::Wal, 5, 6).await.fails_with("not in one order").await;
}

#[tokio::test]
async fn a_gap_on_disk_1_is_wrong() {
    let disks = Disks::with(JournalMode::Wal, 5, 5).await;
    disks.sql("DELETE FROM ledger WHERE number = 3").await;
    disks.fails_with("3 is missing").await;
}

#[tokio::test]
async fn a_changed_body_on_disk_1_is_wrong() {
    let disks = Disks::with(JournalMode::Wal, 5, 5).await;
    disks.sql("UPDATE ledger SET body = x'00' WHERE number = 2").await;
    disks.fails_with("entry 2 does not follow").await;
}

#[tokio::test]
async fn a_damaged_page_of_the_database_is_wrong() {
    let disks = Disks::with(JournalMode::Delete, 60, 60).await;
    let mut bytes = fs::read(disks.database()).unwrap();
    let at = bytes.len() - 2000;
    bytes[at..].fill(0xa5);
    fs::write(disks.database(), bytes).unwrap();
    assert!(disks.check().await.is_err());
}

#[tokio::test]
async fn a_damaged_or_missing_line_on_disk_2_is_wrong() {
    let disks = Disks::with(JournalMode::Wal, 5, 5).await;
    let good = fs::read(disks.file()).unwrap();
    let mut bytes = good.clone();
    bytes[LINE_BYTES * 2 + 20] ^= 1;
    fs::write(disks.file(), &bytes).unwrap();
    disks.fails_with("never written").await;
    bytes = good.clone();
    bytes.drain(LINE_BYTES..LINE_BYTES * 2);
    fs::write(disks.file(), &bytes).unwrap();
    disks.fails_with("entry 3 at 2").await;
    bytes = good;
    bytes[LINE_BYTES * 4..].fill(0);
    fs::write(disks.file(), &bytes).unwrap();
    disks.fails_with("never written").await;
}

#[tokio::test]
async fn a_torn_last_line_was_never_acknowledged() {
    let disks = Disks::with(JournalMode::Wal, 5, 5).await;
    let good = fs::read(disks.file()).unwrap();
    fs::write(disks.file(), &good[..good.len() - 1]).unwrap();
    assert_eq!(disks.check().await.unwrap().disk2, 4);
    // The workload starts again from there: it cuts the rest off before it appends.
    let mut file = LineFile::open(&disks.file()).unwrap();
    file.append(&Line::of(&disks.entries[4])).unwrap();
    assert_eq!(disks.check().await.unwrap().disk2, 5);
}

#[tokio::test]
async fn the_same_numbers_of_another_history_are_wrong() {
    let disks = Disks::with(JournalMode::Wal, 5, 0).await;
    let mut file = LineFile::open(&disks.file()).unwrap();
    for entry in history(5, b"other") {
        file.append(&Line::of(&entry)).unwrap();
    }
    disks.fails_with("another one on disk 1").await;
}

#[tokio::test]
async fn no_database_or_no_file_is_wrong() {
    let disks = Disks::with(JournalMode::Wal, 2, 2).await;
    fs::remove_file(disks.file()).unwrap();
    assert!(disks.check().await.is_err());
    fs::remove_file(disks.database()).unwrap();
    assert!(disks.check().await.is_err());
    assert!(!Path::new(&disks.database()).exists(), "a check creates nothing");
}
