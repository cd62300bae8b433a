//! Disks over TCP, for programs that were not written here.

use crate::service::MasterTargetError;
use crate::target::Target;
use landfall_api_client::{Backoff, NodeClient};
use landfall_nbd::{Endpoint, Security};
use landfall_pki::tls;
use landfall_types::Class;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Where disks are served over TCP; always with TLS and client certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskListener {
    /// Where to listen; port 0 is any.
    pub listen: SocketAddr,
    /// DNS names and IP addresses by which clients reach it: they are put into the certificate,
    /// and the first is shown to people. None: the address itself.
    pub names: Vec<String>,
}

impl DiskListener {
    /// Listens, and sees to it in the background that the certificate carries the names.
    pub(crate) fn listen(
        &self,
        target: &Arc<Target>,
        client: &NodeClient,
        shutdown: &CancellationToken,
    ) -> Result<Endpoint, MasterTargetError> {
        let mut names = self.names.clone();
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        let host = names.first().ok_or(MasterTargetError::NoDiskName(self.listen))?.clone();
        let config =
            tls::disk_server(client.credentials()).map_err(MasterTargetError::Credentials)?;
        let endpoint = target.nbd().listen_tcp(self.listen, Security::Tls(config));
        let endpoint = endpoint.map_err(MasterTargetError::Nbd)?;
        target.set_nbd_tcp(host, endpoint.address().port());
        tokio::spawn(see_to_names(client.clone(), names, shutdown.clone()));
        Ok(endpoint)
    }
}

/// A configuration server that is away must not keep a machine from its disks: until the names are
/// in, programs that compare them are refused by themselves, others are served.
async fn see_to_names(client: NodeClient, names: Vec<String>, shutdown: CancellationToken) {
    let mut backoff = Backoff::new();
    loop {
        match client.ensure_names(&names).await {
            Ok(()) => return,
            Err(error) if error.registered().class == Class::Transient => {
                tracing::info!(%error, "the names of the disks' address are not certified yet");
            }
            Err(error) => {
                tracing::error!(%error, ?names, "the names of the disks' address are refused");
                return;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}
