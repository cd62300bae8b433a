use crate::route::{Network, Route, on_disk};
use crate::store::{Divergence, RouteFile, Store};
use crate::{Cache, CacheHealth, RelayError};
use async_trait::async_trait;
use landfall_api_types::node::RelayReport;
use landfall_api_types::order::OrderOutcome;
use landfall_blockdev::Dir;
use landfall_repl::{
    Batch, Durable, HashReply, HashRequest, ImageData, LogSink, ReceiverPosition, Refusal,
    SessionToken, SourceIdentity,
};
use landfall_transport::Limiter;
use landfall_types::{InstanceId, Lineage, ReplicaId};
use landfall_wire::Compression;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Least size of a spool's segment in bytes: the journal's largest record has room in it several
/// times.
const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// Largest size of a spool's segment in bytes: trimming frees whole segments, so they should be
/// small beside the cache.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// How a process server works.
#[derive(Clone)]
pub struct Settings {
    /// Bytes of records that may wait for delivery, over all routes. The disk needs two segments
    /// per route more (at most 64 MiB).
    pub cache_bytes: u64,
    /// Shows our certificate to next hops and checks theirs.
    pub tls: Arc<rustls::ClientConfig>,
    /// Towards next hops.
    pub compression: Compression,
    /// What all routes together may use of the link to next hops.
    pub limiter: Arc<Limiter>,
}

/// All routes of a process server: a [`LogSink`] for senders, and a sender to each next hop.
pub struct ProcessServer {
    dir: Arc<dyn Dir>,
    network: Network,
    cache: Arc<Cache>,
    routes: RwLock<HashMap<ReplicaId, Arc<Route>>>,
    /// Orders that make and end routes go one after the other.
    ordering: tokio::sync::Mutex<()>,
}

impl ProcessServer {
    /// Opens the routes in `dir` and goes on delivering what their spools hold. Call it within a
    /// Tokio runtime.
    ///
    /// # Errors [`RelayError`] when the directory fails or a route's file is damaged; a lost spool
    /// is no error.
    pub async fn open(dir: Arc<dyn Dir>, settings: Settings) -> Result<Arc<Self>, RelayError> {
        let segment = settings.cache_bytes / 32;
        let segment = segment.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) >> 20 << 20;
        let network = Network {
            tls: settings.tls,
            compression: settings.compression,
            limiter: settings.limiter,
            segment_bytes: segment,
        };
        let cache = Arc::new(Cache::new(settings.cache_bytes));
        let server = Self {
            dir,
            network,
            cache,
            routes: RwLock::default(),
            ordering: tokio::sync::Mutex::new(()),
        };
        on_disk(move || server.load().map(|()| Arc::new(server))).await.inspect(|server| {
            server.all().iter().for_each(Route::start);
        })
    }

    fn load(&self) -> Result<(), RelayError> {
        let failed = |source| RelayError::Store { doing: "list the directory", source };
        for name in self.dir.list_subdirs().map_err(failed)? {
            let store = Store { dir: self.dir.subdir(&name).map_err(failed)? };
            let Some(file) = store.load(&name)? else {
                // Its making was cut off before it was answered: the order comes again.
                self.dir.remove_subdir(&name).map_err(failed)?;
                continue;
            };
            let replica = file.replica;
            let route = Route::load(file, store, self.network.clone(), Arc::clone(&self.cache))?;
            self.insert(replica, route);
        }
        Ok(())
    }

    fn insert(&self, replica: ReplicaId, route: Arc<Route>) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).insert(replica, route);
    }

    fn find(&self, replica: ReplicaId) -> Option<Arc<Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&replica).cloned()
    }

    fn all(&self) -> Vec<Arc<Route>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn serving(&self, replica: ReplicaId) -> Result<Arc<Route>, Refusal> {
        self.find(replica).ok_or(Refusal::UnknownReplica(replica))
    }

    /// Makes a route, or changes the one that is there (order `PsRoute`); a drained route takes
    /// records again.
    ///
    /// # Errors
    /// [`RelayError`] when it can't be kept.
    pub async fn route(
        &self,
        replica: ReplicaId,
        next_hop: String,
        lineage: &Lineage,
        instance: InstanceId,
    ) -> Result<(), RelayError> {
        let _turn = self.ordering.lock().await;
        if let Some(route) = self.find(replica) {
            return route.update(next_hop, lineage, instance).await;
        }
        let file = RouteFile {
            version: 1,
            replica,
            next_hop,
            instance,
            floor: lineage.epoch(),
            draining: false,
            served: None,
            spool: None,
            divergence: vec![],
            next_spool: 1,
        };
        let (dir, network) = (Arc::clone(&self.dir), self.network.clone());
        let cache = Arc::clone(&self.cache);
        let route = on_disk(move || {
            let failed = |source| RelayError::Store { doing: "make the directory", source };
            let store = Store { dir: dir.subdir(&replica.to_string()).map_err(failed)? };
            store.save(&file)?;
            dir.sync().map_err(failed)?;
            Route::load(file, store, network, cache)
        })
        .await?;
        self.insert(replica, route);
        Ok(())
    }

    /// Ends a route (order `PsUnroute`); one that is not there has been ended already.
    ///
    /// # Errors [`RelayError::NotDelivered`] while it holds what the next hop does not have, unless
    /// `discard`.
    pub async fn unroute(&self, replica: ReplicaId, discard: bool) -> Result<(), RelayError> {
        let _turn = self.ordering.lock().await;
        let Some(route) = self.find(replica) else { return Ok(()) };
        route.end(discard).await?;
        self.routes.write().unwrap_or_else(PoisonError::into_inner).remove(&replica);
        drop(route);
        let dir = Arc::clone(&self.dir);
        on_disk(move || {
            let failed = |source| RelayError::Store { doing: "remove the directory", source };
            dir.remove_subdir(&replica.to_string()).map_err(failed)?;
            dir.sync().map_err(failed)
        })
        .await
    }

    /// Takes nothing more for this replica and waits until all that was acknowledged is at the
    /// target, or `wait` is over (order `PsDrain`, trap T-14). Answers what is left: nothing, when
    /// it is drained.
    ///
    /// # Errors
    /// [`RelayError::UnknownRoute`], or the disk fails.
    pub async fn drain(
        &self,
        replica: ReplicaId,
        wait: Duration,
    ) -> Result<OrderOutcome, RelayError> {
        let route = self.find(replica).ok_or(RelayError::UnknownRoute(replica))?;
        route.drain(wait).await
    }

    /// One report per route (RQ-PS-6).
    #[must_use]
    pub fn reports(&self) -> Vec<RelayReport> {
        self.all().iter().map(|route| route.report()).collect()
    }

    /// What a route holds that can't be delivered any more; empty also when there is no such route.
    #[must_use]
    pub fn divergence(&self, replica: ReplicaId) -> Vec<Divergence> {
        self.find(replica).map_or(vec![], |route| route.divergence())
    }

    /// How full the cache is.
    #[must_use]
    pub fn cache_health(&self) -> (CacheHealth, f64) {
        (self.cache.health(), self.cache.free())
    }

    /// Stops all senders; what is spooled stays.
    pub async fn stop(&self) {
        for route in self.all() {
            route.stop_sender().await;
        }
    }
}

#[async_trait]
impl LogSink for ProcessServer {
    async fn open(
        &self,
        identity: &SourceIdentity,
    ) -> Result<(SessionToken, ReceiverPosition), Refusal> {
        self.serving(identity.replica)?.open(identity).await
    }

    async fn append(&self, session: SessionToken, batch: Batch) -> Result<(), Refusal> {
        self.serving(session.replica)?.append(session.serial, batch).await
    }

    async fn flush(&self, session: SessionToken) -> Result<Durable, Refusal> {
        self.serving(session.replica)?.flush(session.serial).await
    }

    async fn durable_beyond(
        &self,
        session: SessionToken,
        seen: Durable,
    ) -> Result<Durable, Refusal> {
        self.serving(session.replica)?.durable_beyond(session.serial, seen).await
    }

    async fn image(&self, session: SessionToken, piece: ImageData) -> Result<(), Refusal> {
        self.serving(session.replica)?.image(session.serial, piece).await
    }

    async fn hash(
        &self,
        session: SessionToken,
        request: HashRequest,
    ) -> Result<HashReply, Refusal> {
        self.serving(session.replica)?.hash(session.serial, request).await
    }

    async fn close(&self, session: SessionToken) {
        if let Some(route) = self.find(session.replica) {
            route.close(session.serial);
        }
    }
}
