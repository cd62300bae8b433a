use crate::error::during;
use crate::tx::{Lease, Tx};
use crate::{StoreError, schema};
use landfall_types::UnixNanos;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyPool, Executor, Row, Transaction};
use std::path::Path;
#[cfg(feature = "testing")]
use std::sync::Arc;
use std::time::Duration;

/// Most connections: SQLite has one writer, the others read.
const CONNECTIONS_MAX: u32 = 4;
/// How long a caller waits for a connection before the store counts as failed.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// Begins a write: takes the write lock at once. A deferred transaction would fail with "database
/// is locked" at its first write when another has written since its first read, and could not be
/// repeated from the middle.
const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";
/// Begins a read of one state of the database.
const BEGIN_READ: &str = "BEGIN";

/// How to open the store.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Names this executor in the lease.
    pub owner: String,
    /// Stops transactions at a boundary, for tests of crashes.
    #[cfg(feature = "testing")]
    pub tripwire: Option<Arc<crate::Tripwire>>,
}

/// The database, with the lease of this executor.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    lease: Lease,
    #[cfg(feature = "testing")]
    tripwire: Option<Arc<crate::Tripwire>>,
}

impl Store {
    /// Opens or makes the database at `path`, brings its schema up to date and takes the executor's
    /// lease over: from now on, nothing that an earlier executor wants to write is written.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a database of a later version; [`StoreError::Database`].
    pub async fn open(
        path: &Path,
        options: StoreOptions,
        now: UnixNanos,
    ) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?mode=rwc", percent_encoded(path));
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // FULL: a commit that returned survives a power cut, in WAL mode too. The
                    // journal mode is the file's, the others are the connection's.
                    connection
                        .execute(
                            "PRAGMA busy_timeout = 20000; PRAGMA journal_mode = WAL;
                             PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
                        )
                        .await?;
                    Ok(())
                })
            })
            .connect(&url)
            .await
            .map_err(during("open the database"))?;
        let mut tx =
            pool.begin_with(BEGIN_WRITE).await.map_err(during("begin the schema's change"))?;
        schema::migrate(&mut tx).await?;
        let fence = take_lease(&mut tx, &options.owner, now).await?;
        tx.commit().await.map_err(during("commit the schema's change"))?;
        Ok(Self {
            pool,
            lease: Lease { fence },
            #[cfg(feature = "testing")]
            tripwire: options.tripwire,
        })
    }

    /// The fencing number of this executor.
    #[must_use]
    pub fn fence(&self) -> u64 {
        u64::try_from(self.lease.fence).unwrap_or(0)
    }

    /// Begins a write.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another executor has taken over.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        let inner =
            self.pool.begin_with(BEGIN_WRITE).await.map_err(during("begin a transaction"))?;
        #[allow(unused_mut)]
        let mut tx = Tx::new(inner);
        #[cfg(feature = "testing")]
        tx.set_tripwire(self.tripwire.clone());
        tx.check_lease(self.lease).await?;
        Ok(tx)
    }

    /// Begins a read of one consistent state.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn read(&self) -> Result<Tx, StoreError> {
        let inner = self.pool.begin_with(BEGIN_READ).await.map_err(during("begin a read"))?;
        Ok(Tx::new(inner))
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// The fencing number rises with every executor, so that a paused one, when it goes on, is
/// recognized.
async fn take_lease(
    tx: &mut Transaction<'static, Any>,
    owner: &str,
    now: UnixNanos,
) -> Result<i64, StoreError> {
    sqlx::query("UPDATE lease SET fence = fence + 1, owner = $1, heartbeat = $2 WHERE id = 1")
        .bind(owner)
        .bind(i64::try_from(now.0).unwrap_or(i64::MAX))
        .execute(&mut **tx)
        .await
        .map_err(during("take the lease"))?;
    let row = sqlx::query("SELECT fence FROM lease WHERE id = 1")
        .fetch_one(&mut **tx)
        .await
        .map_err(during("read the lease"))?;
    row.try_get(0).map_err(during("read the lease"))
}

/// Paths may hold characters that mean something in a URL.
fn percent_encoded(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' => {
                text.push(char::from(*byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}
