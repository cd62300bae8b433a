//! The master target as a process: enrolment, listener, exports, orders, reports.

use crate::disks::DiskListener;
use crate::errors;
use crate::orders::Handler;
use crate::retention_volume::{RetentionUnfit, check_retention_volume, claim_retention_volume};
use crate::reverse::ReverseStarter;
use crate::sink::Sink;
use crate::target::{Target, TargetOptions};
use landfall_api_client::{Backoff, Enrolment, LedgerError, NodeClient, OrderLoop};
use landfall_api_types::ApiError;
use landfall_crypt::KeySource;
use landfall_nbd::ListenError;
use landfall_pki::{Credentials, PkiError, Role, tls};
use landfall_repl::Refusal;
use landfall_transport::{ReceiverConfig, serve_receiver};
use landfall_types::Class;
use landfall_volume::StorageError;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the master target reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Calls of the sink for pieces of a first copy at once: so many share one flush.
const IMAGES_AT_ONCE: usize = 16;

/// What a master target needs to run.
pub struct MasterTargetConfig {
    /// How to join the fleet; the address is put in here.
    pub enrolment: Enrolment,
    /// Where credentials, orders and its own images are kept.
    pub state_dir: PathBuf,
    /// The retention volume (RQ-RV-1).
    pub retention_dir: PathBuf,
    /// Where to listen for process servers; port 0 is any, the real one is in the file `address`.
    pub listen: SocketAddr,
    /// Disks over TCP; none: on the Unix socket only.
    pub disks: Option<DiskListener>,
    /// Encrypts every new replica for which no other key is named.
    pub encrypt: Option<KeySource>,
}

/// Why the master target can't run.
#[derive(Debug, thiserror::Error)]
pub enum MasterTargetError {
    /// Joining the fleet.
    #[error("join the fleet: {0}")]
    Enrol(ApiError),
    /// The credentials are of no use.
    #[error("the credentials")]
    Credentials(#[source] PkiError),
    /// The retention volume is unfit.
    #[error("the retention volume")]
    Retention(#[source] RetentionUnfit),
    /// The vault can't be opened.
    #[error("the vault on the retention volume")]
    Vault(#[source] StorageError),
    /// The replication listener.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket of the disks.
    #[error("serve disks")]
    Nbd(#[source] ListenError),
    /// The address of the disks is a wildcard, which nobody can dial.
    #[error("no name is given by which clients reach the disks at {0}")]
    NoDiskName(SocketAddr),
    /// A file of its own.
    #[error("write {}", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Results of orders.
    #[error("the results of orders")]
    Ledger(#[source] LedgerError),
}

impl MasterTargetError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Enrol(error) => error.registered().class,
            Self::Retention(error) => error.class(),
            Self::Vault(error) => error.class(),
            Self::Ledger(error) => error.class(),
            Self::Credentials(_)
            | Self::Listen { .. }
            | Self::Nbd(_)
            | Self::NoDiskName(_)
            | Self::State { .. } => Class::Permanent,
        }
    }
}

/// Runs the master target until `shutdown`.
///
/// # Errors
/// [`MasterTargetError`]; never because the configuration server is away once it has enrolled.
pub async fn run(
    mut config: MasterTargetConfig,
    shutdown: CancellationToken,
) -> Result<(), MasterTargetError> {
    make_dir(&config.state_dir)?;
    check_retention_volume(&config.retention_dir, &config.state_dir)
        .map_err(MasterTargetError::Retention)?;
    let _claim =
        claim_retention_volume(&config.retention_dir).map_err(MasterTargetError::Retention)?;
    let listen = |source| MasterTargetError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?.to_string();
    config.enrolment.address = Some(address.clone());
    let Some(client) = enrol(&config, &shutdown).await? else { return Ok(()) };

    // Served before anything else is asked of anybody: a machine may be waiting for its disks.
    let starter = ReverseStarter { tls: sending_tls(client.credentials())? };
    let mut options = TargetOptions::new(config.state_dir.clone(), config.retention_dir.clone());
    options.encrypt.clone_from(&config.encrypt);
    let socket = options.nbd_socket();
    let target = Target::open(options, Some(starter)).await.map_err(MasterTargetError::Vault)?;
    let nbd = target.nbd().listen_unix(&socket).map_err(MasterTargetError::Nbd)?;
    let endpoint = match &config.disks {
        Some(disks) => Some(disks.listen(&target, &client, &shutdown)?),
        None => None,
    };
    let receiver = receiver_config(client.credentials())?;
    let sink = Arc::new(Sink::new(Arc::clone(&target)));
    let sessions = tokio::spawn(serve_receiver(listener, receiver, sink, shutdown.clone()));
    target.resume_reverse().await;
    let kept = tokio::spawn(Arc::clone(&target).maintain(shutdown.clone()));
    let changed = Arc::new(Notify::new());
    let reports = tokio::spawn(report(
        Arc::clone(&target),
        client.clone(),
        address.clone(),
        Arc::clone(&changed),
        shutdown.clone(),
    ));

    let orders = OrderLoop::open(client, &config.state_dir).map_err(MasterTargetError::Ledger)?;
    tell_ready(&config, &address, &socket)?;
    let handler = Arc::new(Handler::new(Arc::clone(&target), changed));
    let result = orders.run(handler, shutdown.clone()).await;
    shutdown.cancel();
    // No write is cut off: what is in flight is answered, then the socket goes.
    target.nbd().shutdown().await;
    drop((nbd, endpoint));
    let _ended = (sessions.await, kept.await, reports.await);
    result.map_err(MasterTargetError::Ledger)
}

fn make_dir(path: &Path) -> Result<(), MasterTargetError> {
    let failed = |source| MasterTargetError::State { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)
}

fn sending_tls(credentials: &Credentials) -> Result<Arc<rustls::ClientConfig>, MasterTargetError> {
    // A way home may do without a process server in between.
    let peers = [Role::ProcessServer, Role::MasterTarget];
    tls::data_client(credentials, &peers).map_err(MasterTargetError::Credentials)
}

fn receiver_config(credentials: &Credentials) -> Result<ReceiverConfig, MasterTargetError> {
    let peers = [Role::ProcessServer, Role::Agent, Role::MasterTarget];
    let tls = tls::data_server(credentials, &peers).map_err(MasterTargetError::Credentials)?;
    // Which replica and which instance is the replica's own question; here only the role counts,
    // and TLS has looked at that.
    let mut config = ReceiverConfig::new(tls, Arc::new(|_, _| Ok::<(), Refusal>(())));
    config.images_at_once = IMAGES_AT_ONCE;
    Ok(config)
}

/// Enrols, or opens the credentials; `None` at shutdown.
async fn enrol(
    config: &MasterTargetConfig,
    shutdown: &CancellationToken,
) -> Result<Option<NodeClient>, MasterTargetError> {
    let mut backoff = Backoff::new();
    loop {
        match NodeClient::open_or_enroll(&config.state_dir, &config.enrolment).await {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.registered().class == Class::Transient => {
                tracing::info!(%error, "enrolment is tried again");
            }
            Err(error) => return Err(MasterTargetError::Enrol(error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Says that it has enrolled and listens, for those that have started it.
fn tell_ready(
    config: &MasterTargetConfig,
    address: &str,
    socket: &Path,
) -> Result<(), MasterTargetError> {
    let ready = serde_json::json!({
        "role": "master-target",
        "name": config.enrolment.name,
        "address": address,
        "nbd_socket": socket,
    });
    for (name, text) in [("address", address.to_owned()), ("ready.json", ready.to_string())] {
        let path = config.state_dir.join(name);
        let partial = config.state_dir.join(format!("{name}.partial"));
        let written =
            std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, &path));
        written.map_err(|source| MasterTargetError::State { path, source })?;
    }
    Ok(())
}

async fn report(
    target: Arc<Target>,
    client: NodeClient,
    address: String,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut interval = tokio::time::interval(REPORT_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
            // What an order has changed is what the configuration server checks the next command
            // against.
            () = changed.notified() => {}
        }
        let report = target.report(&address).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            sent = client.report(&report) => if let Err(error) = sent {
                tracing::debug!(error = errors::chain(&error), "the report did not arrive");
            },
        }
    }
}
