use crate::fleet::Fleet;
use crate::{ServerError, Timing};
use landfall_api_types::ApiError;
use landfall_pki::FleetAuthority;
use landfall_store::Store;
use landfall_types::{JobId, UnixNanos};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Something has changed: whoever waits looks again.
pub(crate) struct Bell(watch::Sender<u64>);

impl Bell {
    fn new() -> Self {
        Self(watch::Sender::new(0))
    }
    pub(crate) fn ring(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// A job that this process carries out.
#[derive(Default)]
pub(crate) struct LiveJob {
    /// An operator has asked to give it up.
    pub(crate) give_up: CancellationToken,
    /// What it waits for.
    pub(crate) waiting: Option<ApiError>,
}

/// Everything that requests, jobs and reconcilers share.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) fleet: Fleet,
    pub(crate) authority: FleetAuthority,
    pub(crate) passphrase: String,
    pub(crate) timing: Timing,
    /// New orders.
    pub(crate) orders: Bell,
    /// Results of orders.
    pub(crate) results: Bell,
    /// Changes of jobs.
    pub(crate) jobs: Bell,
    live: Mutex<HashMap<JobId, LiveJob>>,
    tasks: Mutex<JoinSet<()>>,
    pub(crate) shutdown: CancellationToken,
}

impl App {
    pub(crate) fn new(
        store: Store,
        authority: FleetAuthority,
        passphrase: String,
        timing: Timing,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            store,
            fleet: Fleet::new(timing),
            authority,
            passphrase,
            timing,
            orders: Bell::new(),
            results: Bell::new(),
            jobs: Bell::new(),
            live: Mutex::new(HashMap::new()),
            tasks: Mutex::new(JoinSet::new()),
            shutdown,
        }
    }

    /// Jobs that this process carries out.
    pub(crate) fn live(&self) -> MutexGuard<'_, HashMap<JobId, LiveJob>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task that ends with the server.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended ones are forgotten here, so that they do not add up over the server's life.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits until every task has ended, after shutdown.
    pub(crate) async fn ended(&self) {
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        while tasks.join_next().await.is_some() {}
    }

    /// Tells what a job waits for, or that it no longer does; rings only when that changed.
    pub(crate) fn waiting(&self, job: JobId, waiting: Option<ApiError>) {
        let changed = self.live().get_mut(&job).is_some_and(|live| {
            let changed = live.waiting != waiting;
            live.waiting = waiting;
            changed
        });
        if changed {
            self.jobs.ring();
        }
    }
}

/// Wall time.
pub(crate) fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// 64 random bits.
pub(crate) fn random() -> Result<u64, ServerError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|source| ServerError::Pki(landfall_pki::PkiError::Random(source)))?;
    Ok(u64::from_le_bytes(bytes))
}
