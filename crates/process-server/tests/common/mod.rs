//! Process servers with their spools on disk, and listeners that come and go.

use landfall_blockdev::{Dir, FsDir};
use landfall_process_server::{ProcessServer, RelayError, Settings};
use landfall_repl::LogSink;
use landfall_transport::testing::MemberTls;
use landfall_transport::{Limiter, ReceiverConfig, serve_receiver};
use landfall_wire::Compression;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A listener with a sink behind it, which can be taken away and put back at the same address.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Listening {
    pub(crate) async fn at(address: SocketAddr, tls: &MemberTls, sink: Arc<dyn LogSink>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut config = ReceiverConfig::new(Arc::clone(&tls.server), Arc::new(|_, _| Ok(())));
        config.images_at_once = 16;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_receiver(listener, config, sink, shutdown.clone()));
        Self { address, shutdown, task }
    }

    pub(crate) async fn end(self) -> SocketAddr {
        self.shutdown.cancel();
        self.task.await.expect("ends");
        self.address
    }
}

pub(crate) async fn open(dir: &TempDir, tls: &MemberTls, cache_bytes: u64) -> Arc<ProcessServer> {
    try_open(dir, tls, cache_bytes).await.expect("opens")
}

pub(crate) async fn try_open(
    dir: &TempDir,
    tls: &MemberTls,
    cache_bytes: u64,
) -> Result<Arc<ProcessServer>, RelayError> {
    let dir: Arc<dyn Dir> = Arc::new(FsDir::open(dir.path()).expect("opens"));
    let settings = Settings {
        cache_bytes,
        tls: Arc::clone(&tls.client),
        compression: Compression::Adaptive,
        limiter: Arc::new(Limiter::new(None)),
    };
    ProcessServer::open(dir, settings).await
}
