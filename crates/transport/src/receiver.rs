//! The receiving side: a listener, and a task for each connection.

mod session;

use crate::tls::accept;
use landfall_pki::PeerIdentity;
use landfall_repl::{LogSink, ReceiverOptions, Refusal, SourceIdentity};
use landfall_wire::Compression;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers that may wait to be written; a sender that sends without listening is cut off.
pub const OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most connections at once; each protected machine has one.
pub const CONNECTIONS_MAX: usize = 4096;
/// Pause after the listener failed, for instance because there were too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Says whether this peer, known by its certificate, may send for this replica. Called once per
/// session, before the sink hears of it; must not block.
pub type Authorize =
    dyn Fn(&PeerIdentity, &SourceIdentity) -> Result<(), Refusal> + Send + Sync + 'static;

/// How to receive.
#[derive(Clone)]
pub struct ReceiverConfig {
    /// Shows our certificate and checks the peer's.
    pub tls: Arc<ServerConfig>,
    /// Of the state machine.
    pub options: ReceiverOptions,
    /// Who may send.
    pub authorize: Arc<Authorize>,
    /// Calls of [`LogSink::image`] that may be under way at once in a session. They begin in order;
    /// 1 also makes each wait for the one before.
    pub images_at_once: usize,
    /// Calls of [`LogSink::hash`] that may be under way at once in a session.
    pub hashes_at_once: usize,
}

impl ReceiverConfig {
    /// With the usual bounds: images one after the other, four hash requests at once.
    #[must_use]
    pub fn new(tls: Arc<ServerConfig>, authorize: Arc<Authorize>) -> Self {
        let options = ReceiverOptions::default();
        Self { tls, options, authorize, images_at_once: 1, hashes_at_once: 4 }
    }
}

/// Accepts senders until `shutdown`; then ends all sessions and returns when they are gone.
pub async fn serve_receiver(
    listener: TcpListener,
    config: ReceiverConfig,
    sink: Arc<dyn LogSink>,
    shutdown: CancellationToken,
) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = sessions.join_next() => {}
            accepted = listener.accept(), if sessions.len() < CONNECTIONS_MAX => match accepted {
                Ok((tcp, _)) => {
                    let (config, sink) = (config.clone(), Arc::clone(&sink));
                    let shutdown = shutdown.child_token();
                    sessions.spawn(async move {
                        match accept(tcp, Arc::clone(&config.tls)).await {
                            Ok((stream, peer)) => {
                                session::run(stream, peer, config, sink, shutdown).await;
                            }
                            Err(error) => {
                                let cause = std::error::Error::source(&error);
                                let cause = cause.map(ToString::to_string);
                                tracing::info!(%error, ?cause, "a connection was not accepted");
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while sessions.join_next().await.is_some() {}
}

/// Answers go out as they are: they are small, and hashes do not compress.
const COMPRESSION: Compression = Compression::Off;
