//! One replica's way through this process server.
//!
//! ```text
//!  open ─► admit_upstream ─ Continue ─────────────────────────────► position of the spool
//!                         └ AskTarget ─► restart the sender in this sender's name
//!                                         └─ resume ─► follow_target ─ Continue / begin anew ─┘
//! ```
//!
//! Locks, in this order: `opening` (one sender at a time asks to be let in), `appending` (records
//! go in; sessions end and spools change only while nobody holds it), `saving` (the route's file),
//! `state` (never across an await or I/O).

mod downstream;
mod orders;
mod spool;
mod upstream;

use crate::store::{Divergence, RouteFile, Store};
use crate::{Cache, RelayError};
use landfall_api_types::node::RelayReport;
use landfall_journal::Log;
use landfall_repl::limits::HISTORY_BYTES_MAX;
use landfall_repl::{
    Durable, ImageCopyPosition, Refusal, SenderOptions, SenderPhase, SourceIdentity,
};
use landfall_transport::{Limiter, SenderConfig, SenderHandle, run_sender};
use landfall_types::{ByteRange, DiskIndex, Epoch, Lsn, ReplicaId};
use landfall_wire::Compression;
pub(crate) use orders::on_disk;
use spool::Undelivered;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// A refusal of class permanent by the next hop is tried again after this many milliseconds: the
/// replica may be made, or mended, meanwhile.
const RETRY_PERMANENT_MS: u64 = 5_000;

/// See the module.
pub(crate) struct Route {
    pub(crate) replica: ReplicaId,
    store: Store,
    network: Network,
    cache: Arc<Cache>,
    opening: tokio::sync::Mutex<()>,
    appending: Arc<tokio::sync::Mutex<()>>,
    saving: Mutex<()>,
    state: Mutex<State>,
    sender: Mutex<Option<SenderHandle>>,
    trimming: AtomicBool,
    /// Changes with everything that somebody may wait for.
    changed: watch::Sender<u64>,
}

/// How routes reach their next hops.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) compression: Compression,
    pub(crate) limiter: Arc<Limiter>,
    /// Bytes of a spool's segment.
    pub(crate) segment_bytes: u64,
}

struct State {
    file: RouteFile,
    log: Option<Arc<Log>>,
    undelivered: Undelivered,
    /// The next hop has this durable.
    delivered: Lsn,
    /// The master target has this durable, as far as we have heard since the start.
    at_target: Lsn,
    /// The next hop has said where it stands since the start.
    heard: bool,
    image_copy: Option<ImageCopyPosition>,
    /// What the target asks for again (trap T-20), as it said when it was last asked.
    rotten: Vec<(DiskIndex, ByteRange)>,
    /// Serial of the newest upstream session.
    session: u64,
    connected: bool,
    /// Sessions before this serial are over for this reason.
    ended: Option<(u64, Refusal)>,
    asking: Option<Asking>,
    /// An epoch that the next hop has refused us for; at once here, and in the file soon after.
    fenced_by: Option<Epoch>,
    /// As whom the present downstream session was opened: who asks may be gone or another one when
    /// it is answered.
    announced: Option<SourceIdentity>,
}

/// A sender that waits for what the next hop says.
struct Asking {
    identity: SourceIdentity,
    answer: Option<Result<(), Refusal>>,
}

impl Route {
    /// A route as its file has it; the spool is opened, or found lost.
    pub(crate) fn load(
        file: RouteFile,
        store: Store,
        network: Network,
        cache: Arc<Cache>,
    ) -> Result<Arc<Self>, RelayError> {
        store.sweep(&file)?;
        let (file, log) = spool::open(&store, file)?;
        let undelivered = log.as_ref().map_or(Ok(Undelivered::default()), |log| {
            Undelivered::of(log).map_err(RelayError::Spool)
        })?;
        cache.add(undelivered.bytes());
        let delivered = log.as_ref().map_or(Lsn::ZERO, |log| log.base().0);
        let route = Arc::new(Self {
            replica: file.replica,
            store,
            network,
            cache,
            opening: tokio::sync::Mutex::new(()),
            appending: Arc::new(tokio::sync::Mutex::new(())),
            saving: Mutex::new(()),
            state: Mutex::new(State {
                file,
                log,
                undelivered,
                delivered,
                at_target: Lsn::ZERO,
                heard: false,
                image_copy: None,
                rotten: vec![],
                session: 0,
                connected: false,
                ended: None,
                asking: None,
                fenced_by: None,
                announced: None,
            }),
            sender: Mutex::new(None),
            trimming: AtomicBool::new(false),
            changed: watch::Sender::new(0),
        });
        let log = route.state().log.clone();
        if let Some(log) = &log {
            route.listen(log);
        }
        Ok(route)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn announce_change(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns when `find` has something; it is asked again at every change.
    async fn until<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = find(&mut self.state()) {
                return found;
            }
            // The sender of this channel is ours: it can't be gone.
            let _ = changed.changed().await;
        }
    }

    /// Wakes readers when more of the log is durable.
    fn listen(self: &Arc<Self>, log: &Arc<Log>) {
        let route = Arc::downgrade(self);
        log.on_durable(Box::new(move |_| {
            if let Some(route) = route.upgrade() {
                route.announce_change();
            }
        }));
    }

    /// Changes the route's file durably, then in memory. Blocks on the disk.
    fn change(&self, change: impl FnOnce(&mut RouteFile)) -> Result<RouteFile, RelayError> {
        let _serial = lock(&self.saving);
        let mut file = self.state().file.clone();
        change(&mut file);
        self.store.save(&file)?;
        self.state().file = file.clone();
        self.announce_change();
        Ok(file)
    }

    /// The sender to the next hop; started when there is somebody to send for.
    pub(crate) fn sender(self: &Arc<Self>) -> SenderHandle {
        let mut sender = lock(&self.sender);
        if let Some(handle) = &*sender {
            return handle.clone();
        }
        let config = SenderConfig {
            address: self.state().file.next_hop.clone(),
            tls: Arc::clone(&self.network.tls),
            compression: self.network.compression,
            limiter: Arc::clone(&self.network.limiter),
            options: SenderOptions {
                retry_permanent_ms: Some(RETRY_PERMANENT_MS),
                // This is the hop that crosses the wide area: bytes cost more than memory.
                history_bytes: HISTORY_BYTES_MAX,
            },
        };
        let handle = run_sender(config, Arc::new(downstream::Downlink(Arc::clone(self))));
        *sender = Some(handle.clone());
        handle
    }

    /// Starts to deliver what the spool holds, if there is anyone to deliver for.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.state().file.served.is_some() {
            self.sender();
        }
    }

    /// Ends the sender; it is started again when it is needed.
    pub(crate) async fn stop_sender(&self) {
        let sender = lock(&self.sender).take();
        if let Some(sender) = sender {
            sender.stop().await;
        }
    }

    pub(crate) fn divergence(&self) -> Vec<Divergence> {
        self.state().file.divergence.clone()
    }

    pub(crate) fn report(&self) -> RelayReport {
        let status = lock(&self.sender).as_ref().map(|sender| sender.status().borrow().clone());
        let state = self.state();
        RelayReport {
            replica: self.replica,
            upstream: state.connected,
            downstream: status.as_ref().is_some_and(|status| status.phase == SenderPhase::Live),
            durable_here: state.durable().here,
            durable_at_target: state.durable().at_target,
            sent: status.as_ref().map(|status| status.sent),
            spool_bytes: state.undelivered.bytes(),
            spool_records: state.undelivered.records(),
            spool_age_s: state.undelivered.age().as_secs_f64(),
            cache_free: self.cache.free(),
            rtt_ms: status
                .as_ref()
                .and_then(|status| status.rtt_us)
                .map(|us| f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 1000.0),
            refusal: status.and_then(|status| {
                let refused =
                    status.refusal.map(|refusal| (refusal.code().into(), refusal.to_string()));
                refused.or(status.connect_error.map(|error| ("not-connected".into(), error)))
            }),
        }
    }
}

impl State {
    fn durable(&self) -> Durable {
        let here = self.log.as_ref().map_or(Lsn::ZERO, |log| log.durable().lsn);
        Durable { here, at_target: self.at_target.min(here) }
    }

    /// Sessions up to now are over; each hears of it at its next call.
    fn end_sessions(&mut self, reason: Refusal) {
        self.session += 1;
        self.connected = false;
        self.ended = Some((self.session, reason));
    }

    fn check(&self, session: u64) -> Result<(), Refusal> {
        if session == self.session {
            return Ok(());
        }
        Err(match &self.ended {
            Some((below, reason)) if session < *below => reason.clone(),
            Some(_) | None => Refusal::Superseded,
        })
    }
}

/// A poisoned lock means that a thread panicked while it held it; what it protects is replaced as a
/// whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Work on disks goes to a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let lost = |_| Refusal::Unavailable { reason: "the work was cut off".into() };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
