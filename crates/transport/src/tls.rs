//! Connections: TCP, then TLS with certificates of both sides.

use landfall_pki::{PeerIdentity, PkiError, peer_identity, tls::server_name};
use landfall_types::Class;
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Longest wait for a connection and its handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("connect to {address}")]
    Tcp {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The peer is not one of ours, or it does not take us for one.
    #[error("agree on TLS with {address}")]
    Tls {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took longer than ten seconds.
    #[error("no connection to {address} within {HANDSHAKE_TIMEOUT:?}")]
    Timeout {
        /// `host:port`.
        address: String,
    },
    /// The peer showed no certificate, or one that names nobody.
    #[error("who {address} is can't be told from its certificate")]
    Peer {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: Option<PkiError>,
    },
}

impl ConnectError {
    /// All of it may be better later: certificates are rotated, hosts come back.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Tcp { .. } | Self::Tls { .. } | Self::Timeout { .. } | Self::Peer { .. } => {
                Class::Transient
            }
        }
    }
}

pub(crate) async fn connect(
    address: String,
    tls: Arc<ClientConfig>,
) -> Result<client::TlsStream<TcpStream>, ConnectError> {
    let timeout = ConnectError::Timeout { address: address.clone() };
    let connecting = async move {
        let tcp = TcpStream::connect(&address)
            .await
            .map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
        // Acknowledgements are small and must not wait for company.
        tcp.set_nodelay(true)
            .map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
        TlsConnector::from(tls)
            .connect(server_name(), tcp)
            .await
            .map_err(|source| ConnectError::Tls { address, source })
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await.unwrap_or(Err(timeout))
}

pub(crate) async fn accept(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
) -> Result<(server::TlsStream<TcpStream>, PeerIdentity), ConnectError> {
    let address = tcp.peer_addr().map_or_else(|_| "a peer that is gone".into(), |a| a.to_string());
    let failed = |source| ConnectError::Tls { address: address.clone(), source };
    tcp.set_nodelay(true).map_err(failed)?;
    let handshake = TlsAcceptor::from(tls).accept(tcp);
    let Ok(stream) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        return Err(ConnectError::Timeout { address });
    };
    let stream = stream.map_err(failed)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let Some(certificate) = certificates.and_then(<[_]>::first) else {
        return Err(ConnectError::Peer { address, source: None });
    };
    match peer_identity(certificate) {
        Ok(peer) => Ok((stream, peer)),
        Err(source) => Err(ConnectError::Peer { address, source: Some(source) }),
    }
}
