use super::entry::{Entry, ROOT, Sum};
use anyhow::{Context as _, Result, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;

/// How SQLite makes a commit atomic; both must come through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum JournalMode {
    /// Write-ahead log.
    Wal,
    /// Rollback journal, deleted at each commit.
    Delete,
}

/// The database on disk 1.
#[derive(Debug)]
pub(crate) struct Database {
    connection: SqliteConnection,
}

impl Database {
    /// Opens it for writing; recovers what a power cut left, as SQLite does.
    ///
    /// # Errors
    /// Of SQLite.
    pub(crate) async fn create(path: &Path, mode: JournalMode) -> Result<Self> {
        let mode = match mode {
            JournalMode::Wal => SqliteJournalMode::Wal,
            JournalMode::Delete => SqliteJournalMode::Delete,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(mode)
            // With less a commit is not durable when it returns: in WAL mode with NORMAL until the
            // next checkpoint, in DELETE mode with FULL until the directory is written (a power cut
            // brings the rollback journal back).
            .synchronous(SqliteSynchronous::Extra)
            .disable_statement_logging();
        let mut connection = options.connect().await.context("open the database on disk 1")?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS ledger (number INTEGER PRIMARY KEY, \
             time_ns INTEGER NOT NULL, body BLOB NOT NULL, sum BLOB NOT NULL)",
        )
        .execute(&mut connection)
        .await
        .context("create the ledger")?;
        Ok(Self { connection })
    }

    /// Opens an existing one to be checked.
    ///
    /// # Errors
    /// Of SQLite; where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
        let connection = options.connect().await.context("open the database on disk 1")?;
        Ok(Self { connection })
    }

    /// Commits an entry; it is durable when this returns.
    ///
    /// # Errors
    /// Of SQLite.
    pub(crate) async fn commit(&mut self, entry: &Entry) -> Result<()> {
        sqlx::query("INSERT INTO ledger (number, time_ns, body, sum) VALUES (?, ?, ?, ?)")
            .bind(i64::try_from(entry.number).context("number")?)
            .bind(i64::try_from(entry.time_ns).context("time")?)
            .bind(&entry.body)
            .bind(&entry.sum[..])
            .execute(&mut self.connection)
            .await
            .context("commit to disk 1")?;
        Ok(())
    }

    /// Number and sum of the last entry; 0 and the root where there is none.
    ///
    /// # Errors
    /// Of SQLite.
    pub(crate) async fn last(&mut self) -> Result<Option<Entry>> {
        let query = "SELECT number, time_ns, body, sum FROM ledger ORDER BY number DESC LIMIT 1";
        let row = sqlx::query(query).fetch_optional(&mut self.connection).await;
        row.context("read the last entry")?.as_ref().map(entry_of).transpose()
    }

    /// All entries: from 1 without a gap, each following the one before, in a database without a
    /// defect.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) async fn check(&mut self) -> Result<Vec<Entry>> {
        let row = sqlx::query("PRAGMA integrity_check").fetch_one(&mut self.connection).await;
        let verdict: String = row.context("check the database on disk 1")?.try_get(0)?;
        ensure!(verdict == "ok", "disk 1: integrity_check says: {verdict}");
        let query = "SELECT number, time_ns, body, sum FROM ledger ORDER BY number";
        let rows = sqlx::query(query).fetch_all(&mut self.connection).await;
        let mut entries = Vec::new();
        let mut before: Sum = ROOT;
        for (expected, row) in (1..).zip(rows.context("read the ledger on disk 1")?) {
            let entry = entry_of(&row)?;
            ensure!(
                entry.number == expected,
                "disk 1: {expected} is missing, {} is there",
                entry.number
            );
            ensure!(
                entry.follows(&before),
                "disk 1: entry {expected} does not follow the one before"
            );
            before = entry.sum;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Closes it, as at a shutdown.
    ///
    /// # Errors
    /// Of SQLite.
    pub(crate) async fn close(self) -> Result<()> {
        self.connection.close().await.context("close the database on disk 1")
    }
}

fn entry_of(row: &sqlx::sqlite::SqliteRow) -> Result<Entry> {
    let number: i64 = row.try_get(0)?;
    let time_ns: i64 = row.try_get(1)?;
    let sum: Vec<u8> = row.try_get(3)?;
    Ok(Entry {
        number: u64::try_from(number).context("disk 1: a number below 0")?,
        time_ns: u64::try_from(time_ns).context("disk 1: a time below 0")?,
        body: row.try_get(2)?,
        sum: sum.try_into().ok().context("disk 1: a sum of another length")?,
    })
}
