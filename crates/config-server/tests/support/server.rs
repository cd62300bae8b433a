use super::timing;
use landfall_api_client::Client;
use landfall_config_server::{Config, Ready};
use landfall_store::Tripwire;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A configuration server in a runtime of its own, which can be dropped at any moment: what `kill
/// -9` does to it.
pub(crate) struct Server {
    state_dir: PathBuf,
    port: u16,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(state_dir: &Path, tripwire: Option<Arc<Tripwire>>) -> Self {
        Self::start_at(state_dir, 0, tripwire)
    }

    fn start_at(state_dir: &Path, port: u16, tripwire: Option<Arc<Tripwire>>) -> Self {
        let ready = state_dir.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let mut config =
            Config::new(state_dir.to_owned(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        config.timing = timing();
        config.tripwire = tripwire;
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    ended = landfall_config_server::run(config, CancellationToken::new()) => {
                        ended.expect("it runs until it is killed");
                    }
                    _ = killed => {}
                }
            });
        });
        let mut server =
            Self { state_dir: state_dir.to_owned(), port, kill: Some(kill), thread: Some(thread) };
        while !ready.exists() {
            assert!(server.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "it ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.port = server.ready().url.rsplit_once(':').expect("a port").1.parse().expect("one");
        server
    }

    /// Drops the runtime with everything that runs in it.
    pub(crate) fn kill(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it was dropped");
        }
    }

    /// Starts it again on the same state and address.
    pub(crate) fn restart(&mut self, tripwire: Option<Arc<Tripwire>>) {
        self.kill();
        *self = Self::start_at(&self.state_dir.clone(), self.port, tripwire);
    }

    pub(crate) fn ready(&self) -> Ready {
        let text = std::fs::read(self.state_dir.join("ready.json")).expect("it is ready");
        serde_json::from_slice(&text).expect("ours")
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(&self.ready().operator_credentials).expect("an operator's credentials")
    }

    pub(crate) fn passphrase(&self) -> String {
        landfall_config_server::passphrase(&self.state_dir).expect("there")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
