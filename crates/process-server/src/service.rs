//! The process server as a process: enrolment, listener, orders, reports.

use crate::bandwidth::Bandwidth;
use crate::route::on_disk;
use crate::{CacheHealth, ProcessServer, RelayError, Settings};
use landfall_api_client::{Backoff, Enrolment, LedgerError, NodeClient, OrderHandler, OrderLoop};
use landfall_api_types::alert::{Condition, Severity};
use landfall_api_types::node::Report;
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::{DeviceError, Dir, FsDir};
use landfall_model::BandwidthPlan;
use landfall_pki::{PkiError, Role, tls};
use landfall_repl::limits::HASH_REQUESTS_MAX;
use landfall_transport::{ReceiverConfig, serve_receiver};
use landfall_types::{Class, OrderId};
use landfall_wire::Compression;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often the process server reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Pieces of a first copy that a session may have under way: they wait for the far side, one round
/// trip each.
const IMAGES_AT_ONCE: usize = 64;

/// What a process server needs to run.
pub struct ProcessServerConfig {
    /// How to join the fleet; its address is replaced by the listener's where that is port 0.
    pub enrolment: Enrolment,
    /// Where credentials, orders and routes are kept, with the spools.
    pub state_dir: PathBuf,
    /// Where senders are listened for.
    pub listen: SocketAddr,
    /// Bytes of records that may wait for delivery.
    pub cache_bytes: u64,
    /// Towards next hops.
    pub compression: Compression,
    /// What replication may use of the link to next hops, until the configuration server orders
    /// another plan.
    pub bandwidth: BandwidthPlan,
}

/// Why the process server can't run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessServerError {
    /// Joining the fleet.
    #[error("join the fleet: {0}")]
    Enrol(ApiError),
    /// The credentials are of no use.
    #[error("the credentials")]
    Credentials(#[source] PkiError),
    /// The state directory.
    #[error("the state directory")]
    State(#[source] DeviceError),
    /// The routes.
    #[error("the routes")]
    Routes(#[source] RelayError),
    /// The listener.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Results of orders.
    #[error("the results of orders")]
    Ledger(#[source] LedgerError),
}

impl ProcessServerError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Enrol(error) => error.registered().class,
            Self::Credentials(_) | Self::Listen { .. } => Class::Permanent,
            Self::State(error) => error.class(),
            Self::Routes(error) => error.class(),
            Self::Ledger(error) => error.class(),
        }
    }
}

/// Runs the process server until `shutdown`.
///
/// # Errors
/// [`ProcessServerError`]; never because the configuration server is away once it has enrolled.
pub async fn run(
    mut config: ProcessServerConfig,
    shutdown: CancellationToken,
) -> Result<(), ProcessServerError> {
    let address = config.listen;
    let listening = |source| ProcessServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listening)?;
    let bound = listener.local_addr().map_err(listening)?;
    config.enrolment.address = advertised(config.enrolment.address.take(), bound);
    let Some(client) = enrol(&config, &shutdown).await? else { return Ok(()) };
    let credentials = client.credentials();
    // A process server may stand behind another one; master targets send when the way home is
    // taken.
    let senders = [Role::Agent, Role::MasterTarget, Role::ProcessServer];
    let hops = [Role::MasterTarget, Role::ProcessServer];
    let server_tls =
        tls::data_server(credentials, &senders).map_err(ProcessServerError::Credentials)?;
    let client_tls =
        tls::data_client(credentials, &hops).map_err(ProcessServerError::Credentials)?;
    let state = FsDir::open(&config.state_dir).map_err(ProcessServerError::State)?;
    let dir = state.subdir("routes").and_then(|routes| state.sync().map(|()| routes));
    let bandwidth = Bandwidth::open(Arc::new(state), config.bandwidth.clone());
    let bandwidth = Arc::new(bandwidth.map_err(ProcessServerError::Routes)?);
    let settings = Settings {
        cache_bytes: config.cache_bytes,
        tls: client_tls,
        compression: config.compression,
        limiter: bandwidth.limiter(),
    };
    let relay = ProcessServer::open(dir.map_err(ProcessServerError::State)?, settings)
        .await
        .map_err(ProcessServerError::Routes)?;
    let orders =
        OrderLoop::open(client.clone(), &config.state_dir).map_err(ProcessServerError::Ledger)?;
    // Who may send is decided by role here, by instance and epoch in the route (trap T-11).
    let mut receiver = ReceiverConfig::new(server_tls, Arc::new(|_, _| Ok(())));
    receiver.images_at_once = IMAGES_AT_ONCE;
    receiver.hashes_at_once = usize::try_from(HASH_REQUESTS_MAX).unwrap_or(usize::MAX);
    let serving = serve_receiver(listener, receiver, Arc::clone(&relay) as _, shutdown.clone());
    let serving = tokio::spawn(serving);
    let address = config.enrolment.address.clone();
    let reports = tokio::spawn(report(
        Arc::clone(&relay),
        client,
        address,
        Arc::clone(&bandwidth),
        shutdown.clone(),
    ));
    let following = tokio::spawn(Arc::clone(&bandwidth).follow(shutdown.clone()));
    tracing::info!(listen = %bound, "process server runs");
    let result = orders
        .run(Arc::new(Handler { relay: Arc::clone(&relay), bandwidth }), shutdown.clone())
        .await;
    shutdown.cancel();
    let _ended = (serving.await, reports.await, following.await);
    relay.stop().await;
    result.map_err(ProcessServerError::Ledger)
}

/// What others are told to connect to: as configured, with the port that was really bound; else the
/// listener's own.
fn advertised(configured: Option<String>, bound: SocketAddr) -> Option<String> {
    match configured {
        Some(address) => match address.strip_suffix(":0") {
            Some(host) => Some(format!("{host}:{}", bound.port())),
            None => Some(address),
        },
        None => Some(bound.to_string()),
    }
}

/// Enrols, or opens the credentials; `None` at shutdown.
async fn enrol(
    config: &ProcessServerConfig,
    shutdown: &CancellationToken,
) -> Result<Option<NodeClient>, ProcessServerError> {
    let mut backoff = Backoff::new();
    loop {
        match NodeClient::open_or_enroll(&config.state_dir, &config.enrolment).await {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.registered().class == Class::Transient => {
                tracing::info!(%error, "enrolment is tried again");
            }
            Err(error) => return Err(ProcessServerError::Enrol(error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

async fn report(
    relay: Arc<ProcessServer>,
    client: NodeClient,
    address: Option<String>,
    bandwidth: Arc<Bandwidth>,
    shutdown: CancellationToken,
) {
    let mut interval = tokio::time::interval(REPORT_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = CacheHealth::Good;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        let (health, free) = relay.cache_health();
        if health != known {
            known = health;
            match health {
                CacheHealth::Good => tracing::info!(free, "the cache has room again"),
                CacheHealth::Warning => tracing::warn!(free, "the cache is filling"),
                CacheHealth::Critical => tracing::error!(free, "the cache is nearly full"),
            }
        }
        let report = Report {
            address: address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            relays: relay.reports(),
            bandwidth: Some(bandwidth.plan().to_string()),
            conditions: condition(health, free).into_iter().collect(),
            ..Report::default()
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            sent = client.report(&report) => if let Err(error) = sent {
                tracing::debug!(%error, "the report did not arrive");
            },
        }
    }
}

/// RQ-PS-6: what an administrator is told of the cache, before it presses back.
fn condition(health: CacheHealth, free: f64) -> Option<Condition> {
    let severity = match health {
        CacheHealth::Good => return None,
        CacheHealth::Warning => Severity::Warning,
        CacheHealth::Critical => Severity::Critical,
    };
    let percent = free * 100.0;
    let cause = format!(
        "{percent:.0} % of the process server's cache is free; at 20 % nothing more is taken, and \
         machines fall back to their bitmaps"
    );
    Some(Condition { severity, machine: None, error: ApiError::new(&codes::CACHE_FILLING, cause) })
}

struct Handler {
    relay: Arc<ProcessServer>,
    bandwidth: Arc<Bandwidth>,
}

impl OrderHandler for Handler {
    async fn carry_out(&self, _: OrderId, order: Order) -> Result<OrderOutcome, ApiError> {
        let done = |()| OrderOutcome::Done;
        let result = match order {
            Order::PsRoute { replica, next_hop, lineage, instance } => {
                self.relay.route(replica, next_hop, &lineage, instance).await.map(done)
            }
            Order::PsUnroute { replica, discard } => {
                self.relay.unroute(replica, discard).await.map(done)
            }
            Order::PsDrain { replica, wait_ms } => {
                self.relay.drain(replica, Duration::from_millis(wait_ms)).await
            }
            Order::PsBandwidth { plan } => self.set_bandwidth(&plan).await.map(done),
            other => {
                let cause = format!("a process server does not carry out {other:?}");
                return Err(ApiError::new(&codes::NOT_SUPPORTED, cause));
            }
        };
        result.map_err(|error| error.api())
    }
}

impl Handler {
    async fn set_bandwidth(&self, plan: &str) -> Result<(), RelayError> {
        let plan = plan.parse().map_err(RelayError::Bandwidth)?;
        let bandwidth = Arc::clone(&self.bandwidth);
        on_disk(move || bandwidth.set(plan)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RQ-PS-6: the warning comes before the pressure, and ends by itself.
    #[test]
    fn a_filling_cache_is_told() {
        assert_eq!(condition(CacheHealth::Good, 0.31), None);
        let warned = condition(CacheHealth::Warning, 0.3).expect("told");
        assert_eq!(
            (warned.severity, warned.error.code.as_str()),
            (Severity::Warning, "cache-filling")
        );
        assert!(warned.error.cause.starts_with("30 %"), "{}", warned.error.cause);
        let critical = condition(CacheHealth::Critical, 0.25).expect("told");
        assert_eq!(critical.severity, Severity::Critical);
    }

    #[test]
    fn the_advertised_address_has_the_bound_port() {
        let bound: SocketAddr = "10.0.0.1:4711".parse().expect("an address");
        let is = |configured: Option<&str>| advertised(configured.map(Into::into), bound);
        assert_eq!(is(None).as_deref(), Some("10.0.0.1:4711"));
        assert_eq!(is(Some("ps.example:0")).as_deref(), Some("ps.example:4711"));
        assert_eq!(is(Some("ps.example:9")).as_deref(), Some("ps.example:9"));
    }
}
