//! Everything that one master target hosts.

use crate::blocking::blocking;
use crate::errors;
use crate::hosted::{Hosted, lock};
use crate::reverse::ReverseStarter;
use landfall_api_types::alert::Condition;
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::FsDir;
use landfall_crypt::KeySource;
use landfall_journal::LogConfig;
use landfall_nbd::{Server, ServerOptions};
use landfall_types::ReplicaId;
use landfall_volume::{FsImages, StorageError, Vault};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// Where a target keeps what.
#[derive(Clone, Debug)]
pub struct TargetOptions {
    /// The role's own state; images that it makes itself lie in `images/` there.
    pub state_dir: PathBuf,
    /// The retention volume.
    pub retention_dir: PathBuf,
    /// Size of a journal's segments in bytes.
    pub segment_bytes: u64,
    /// Bytes a second that one replica's fold writes at most; none: what the disks give while
    /// nobody else writes.
    pub fold_bytes_per_s: Option<u64>,
    /// Encrypts every replica that is made here and for which no other key is named; replicas that
    /// are here stay as they are.
    pub encrypt: Option<KeySource>,
}

impl TargetOptions {
    /// With the usual segments.
    #[must_use]
    pub const fn new(state_dir: PathBuf, retention_dir: PathBuf) -> Self {
        let segment_bytes = LogConfig::SEGMENT_BYTES_DEFAULT;
        Self { state_dir, retention_dir, segment_bytes, fold_bytes_per_s: None, encrypt: None }
    }

    /// The Unix socket on which disks are served.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.state_dir.join("nbd.sock")
    }
}

/// All replicas of a master target, and the server of their disks.
pub struct Target {
    pub(crate) options: TargetOptions,
    pub(crate) vault: Vault,
    hosted: RwLock<BTreeMap<ReplicaId, Arc<Hosted>>>,
    /// Replicas that could not be opened.
    problems: RwLock<BTreeMap<ReplicaId, ApiError>>,
    nbd: RwLock<Option<Server>>,
    /// Host and port by which clients reach the disks over TCP, once they are served there.
    nbd_tcp: OnceLock<(String, u16)>,
    /// Nothing is taken from sessions: a machine that runs from this volume needs the room.
    pub(crate) ingest_stopped: AtomicBool,
    /// What had to give way since the process began, for the report.
    given_way: Mutex<Vec<Condition>>,
    /// Makes senders towards home; none in tests that need none.
    pub(crate) starter: Option<ReverseStarter>,
    /// Orders about which replicas there are come one after the other.
    pub(crate) making: tokio::sync::Mutex<()>,
}

impl Target {
    /// Opens the vault and every replica in it as it durably is.
    ///
    /// # Errors
    /// [`StorageError`] of the vault itself; a replica that can't be opened becomes a problem of
    /// the report.
    pub async fn open(
        options: TargetOptions,
        starter: Option<ReverseStarter>,
    ) -> Result<Arc<Self>, StorageError> {
        let target = blocking(move || Self::open_now(options, starter)).await?;
        let target = Arc::new(target);
        let server = crate::exports::server(&target, ServerOptions::default());
        *target.nbd.write().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(target)
    }

    fn open_now(
        options: TargetOptions,
        starter: Option<ReverseStarter>,
    ) -> Result<Self, StorageError> {
        let device = |source| StorageError::Device { doing: "open the retention volume", source };
        let dir = Arc::new(FsDir::open_or_create(&options.retention_dir).map_err(device)?);
        let vault = Vault::open(dir, Arc::new(FsImages), options.segment_bytes)?;
        let target = Self {
            options,
            vault,
            hosted: RwLock::default(),
            problems: RwLock::default(),
            nbd: RwLock::default(),
            nbd_tcp: OnceLock::new(),
            ingest_stopped: AtomicBool::new(false),
            given_way: Mutex::default(),
            starter,
            making: tokio::sync::Mutex::new(()),
        };
        for id in target.vault.list()? {
            match target.vault.open_replica(id) {
                Ok(Some(replica)) => target.insert(Arc::new(Hosted::new(replica))),
                // Never finished: the order that made it comes again, or never mattered.
                Ok(None) => {
                    tracing::info!(replica = %id, "a replica whose making was cut off is left alone")
                }
                Err(error) => target.note_problem(id, &error),
            }
        }
        Ok(target)
    }

    /// Does what must always be done and nobody orders, until `shutdown`.
    pub async fn maintain(self: Arc<Self>, shutdown: CancellationToken) {
        crate::maintenance::run(self, shutdown).await;
    }

    pub(crate) fn note_problem(&self, id: ReplicaId, error: &StorageError) {
        tracing::error!(replica = %id, error = errors::chain(error), "a replica can't be opened");
        let problem = errors::storage(error).detail("replica", id);
        self.problems.write().unwrap_or_else(PoisonError::into_inner).insert(id, problem);
    }

    /// Tries again what could not be opened: a disk may come later than the master target.
    pub async fn retry_problems(self: &Arc<Self>) {
        let ids: Vec<ReplicaId> =
            self.problems.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for id in ids {
            let target = Arc::clone(self);
            let opened = blocking(move || target.vault.open_replica(id)).await;
            if let Ok(Some(replica)) = opened {
                tracing::info!(replica = %id, "a replica could be opened after all");
                self.insert(Arc::new(Hosted::new(replica)));
                self.problems.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
        }
    }

    pub(crate) fn insert(&self, hosted: Arc<Hosted>) {
        self.map(|all| all.insert(hosted.replica.id(), hosted));
    }

    pub(crate) fn take(&self, id: ReplicaId) -> Option<Arc<Hosted>> {
        self.problems.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.map(|all| all.remove(&id))
    }

    fn map<T>(&self, change: impl FnOnce(&mut BTreeMap<ReplicaId, Arc<Hosted>>) -> T) -> T {
        change(&mut self.hosted.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn find(&self, id: ReplicaId) -> Option<Arc<Hosted>> {
        self.hosted.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// As [`Target::find`], with what an order says otherwise.
    pub(crate) fn hosted(&self, id: ReplicaId) -> Result<Arc<Hosted>, ApiError> {
        if let Some(hosted) = self.find(id) {
            return Ok(hosted);
        }
        let problems = self.problems.read().unwrap_or_else(PoisonError::into_inner);
        let unknown = || ApiError::new(&codes::NOT_FOUND, format!("replica {id} is not here"));
        Err(problems.get(&id).cloned().unwrap_or_else(unknown))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hosted>> {
        self.hosted.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What keeps a replica from being opened.
    pub(crate) fn problem(&self, id: ReplicaId) -> Option<ApiError> {
        self.problems.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn given_way(&self) -> Vec<Condition> {
        lock(&self.given_way).clone()
    }

    /// Something of somebody's had to go: told for as long as there may be too little room.
    pub(crate) fn note_given_way(&self, condition: Condition) {
        lock(&self.given_way).push(condition);
    }

    /// There is room again.
    pub(crate) fn forget_given_way(&self) {
        lock(&self.given_way).clear();
    }

    pub(crate) fn problems(&self) -> Vec<ApiError> {
        let shut: Vec<ApiError> = self
            .problems
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        shut.into_iter().chain(self.all().iter().filter_map(|hosted| hosted.stopped())).collect()
    }

    /// Tells by which host and port the disks can be reached over TCP. Once; later calls change
    /// nothing.
    pub fn set_nbd_tcp(&self, host: String, port: u16) {
        let _first = self.nbd_tcp.set((host, port));
    }

    /// The URI of an export over TCP, where there is one.
    pub(crate) fn tls_uri(&self, export: &str) -> Option<String> {
        self.nbd_tcp.get().map(|(host, port)| landfall_nbd::tls_uri(host, *port, export))
    }

    /// The server of disks.
    ///
    /// # Panics
    /// Never: [`Target::open`] puts it in place before anybody has the target.
    #[must_use]
    pub fn nbd(&self) -> Server {
        let nbd = self.nbd.read().unwrap_or_else(PoisonError::into_inner);
        nbd.clone().expect("set when the target was opened")
    }
}
