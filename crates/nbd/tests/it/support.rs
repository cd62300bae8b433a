use landfall_nbd::testing::ExportMap;
use landfall_nbd::{Client, Export, Listener, Server, ServerOptions, unix_uri};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A server on a Unix socket in a directory of its own.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) exports: Arc<ExportMap>,
    listener: Listener,
    pub(crate) directory: TempDir,
}

impl Site {
    pub(crate) fn new(name: &str, export: Arc<dyn Export>) -> Self {
        Self::with(name, export, ServerOptions::default())
    }

    pub(crate) fn with(name: &str, export: Arc<dyn Export>, options: ServerOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let exports = ExportMap::of(name, export);
        let server = Server::new(exports.clone(), options);
        let listener =
            server.listen_unix(&directory.path().join("nbd.sock")).expect("nobody is there yet");
        Self { server, exports, listener, directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.listener.path().to_owned()
    }

    pub(crate) fn uri(&self, export: &str) -> String {
        unix_uri(&self.socket(), export)
    }

    pub(crate) async fn client(&self, export: &str) -> Client {
        Client::connect_unix(&self.socket(), export).await.expect("the export is served")
    }
}
