use super::accept::{Socket, accept};
use super::{ListenError, Server};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What protects a TCP socket.
#[derive(Clone, Debug)]
pub enum Security {
    /// Clients begin TLS before anything else is said. Who may come in is the configuration's
    /// business: it has to ask for a certificate.
    Tls(Arc<ServerConfig>),
    /// No TLS, on a loopback address only. Everybody with an account on this machine can connect:
    /// for tests and for tunnels of one's own.
    Loopback,
}

/// A TCP socket that a [`Server`] listens on; listening ends when this is dropped.
///
/// Connections that were accepted go on, as with [`super::Listener`].
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Endpoint {
    pub(super) fn bind(
        server: Server,
        address: SocketAddr,
        security: Security,
    ) -> Result<Self, ListenError> {
        let tls = match security {
            Security::Tls(config) => Some(config),
            Security::Loopback if address.ip().is_loopback() => None,
            Security::Loopback => return Err(ListenError::Exposed(address)),
        };
        let failed = |source| ListenError::Tcp { address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let accepting = tokio::spawn(accept(server, Socket::Tcp(listener), tls));
        Ok(Self { address, accepting })
    }

    /// Where clients connect; the port is the real one.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
