//! The server: accepts streams, negotiates, and carries requests to exports.
//!
//! One task per connection owns its negotiation and its requests ([`session`]); connections share
//! only the exports and the [`registry`], so a bad or slow client harms nobody else.

mod accept;
mod buffers;
mod endpoint;
mod input;
mod listener;
mod negotiate;
mod output;
mod registry;
mod serve;
mod session;

pub use endpoint::{Endpoint, Security};
pub use listener::{ListenError, Listener};

use crate::Exports;
use crate::proto::Violation;
use landfall_types::Class;
use registry::Registry;
use rustls::ServerConfig;
use serve::Terms;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How much one server and one connection may hold at a time.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Connections at a time on one listener; more are closed at once.
    pub connections_max: usize,
    /// Of these, connections that have not chosen an export yet; more are closed at once. On TCP
    /// anybody can connect, but only who shows a certificate gets further.
    pub negotiating_max: usize,
    /// Requests in flight on one connection; more are read when one is answered.
    pub requests_in_flight_max: usize,
    /// Payload bytes in flight on one connection, both ways, counted until the answer is handed to
    /// the kernel. One request goes on however large it is (at most 32 MiB), so that none waits for
    /// ever.
    pub bytes_in_flight_max: usize,
    /// Time that a client has to choose an export.
    pub negotiation_time_max: Duration,
    /// Time that a client has to take the last answers when its connection ends.
    pub farewell_time_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 256,
            negotiating_max: 64,
            // QEMU keeps up to 16 in flight on a connection, libnbd's tools 64, fio what it is
            // told.
            requests_in_flight_max: 128,
            // Two of the largest requests: one is answered while the next is read.
            bytes_in_flight_max: 64 * 1024 * 1024,
            negotiation_time_max: Duration::from_secs(30),
            farewell_time_max: Duration::from_secs(5),
        }
    }
}

/// Why a connection ended other than by the client's wish or the server's.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The stream broke.
    #[error("the stream to the client broke")]
    Stream(#[source] std::io::Error),
    /// TLS could not begin: the client shows no certificate that is accepted here, or something
    /// else on the way.
    #[error("TLS with the client could not begin")]
    Tls(#[source] std::io::Error),
    /// The client does not speak NBD as agreed.
    #[error("the client broke the protocol")]
    Protocol(#[source] Violation),
    /// No export was chosen in time.
    #[error("the client chose no export within {0:?}")]
    NegotiationTime(Duration),
}

impl SessionError {
    /// A client may always come back; one that breaks the protocol will do so again.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Stream(_) | Self::Tls(_) | Self::NegotiationTime(_) => Class::Transient,
            Self::Protocol(violation) => violation.class(),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEnd {
    /// The client took its leave, during negotiation or after.
    ClientLeft,
    /// The export was revoked.
    Revoked,
    /// [`Server::disconnect`] or [`Server::shutdown`].
    Disconnected,
}

/// Handle of a server; clones are handles of the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    exports: Arc<dyn Exports>,
    options: ServerOptions,
    registry: Registry,
}

impl Server {
    /// A server of these exports; it serves nobody before it is given a listener or a stream.
    #[must_use]
    pub fn new(exports: Arc<dyn Exports>, options: ServerOptions) -> Self {
        Self { shared: Arc::new(Shared { exports, options, registry: Registry::default() }) }
    }

    /// Listens on a Unix socket with mode 0600. A socket file that nobody answers on is replaced.
    ///
    /// Must be called within a tokio runtime. The socket goes when the [`Listener`] is dropped.
    ///
    /// # Errors
    /// [`ListenError`] when someone listens there already, or the socket can't be made.
    pub fn listen_unix(&self, path: &Path) -> Result<Listener, ListenError> {
        Listener::bind(self.clone(), path)
    }

    /// Listens on TCP: with TLS from the first option on, or without it where nobody else's
    /// machine can connect.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`]: the address can't be had, or it is one that needs TLS.
    pub fn listen_tcp(
        &self,
        address: SocketAddr,
        security: Security,
    ) -> Result<Endpoint, ListenError> {
        Endpoint::bind(self.clone(), address, security)
    }

    /// Serves one client on any pair of streams until it leaves.
    ///
    /// # Errors
    /// [`SessionError`] when the client or its stream broke; requests in flight were carried to
    /// their ends before.
    pub async fn serve<R, W>(&self, reader: R, writer: W) -> Result<SessionEnd, SessionError>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        serve::serve(&self.shared, Terms::default(), reader, writer).await
    }

    /// As [`Server::serve`], on a stream that needs TLS first.
    ///
    /// # Errors
    /// As [`Server::serve`], and [`SessionError::Tls`].
    pub async fn serve_tls<R, W>(
        &self,
        tls: Arc<ServerConfig>,
        reader: R,
        writer: W,
    ) -> Result<SessionEnd, SessionError>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let terms = Terms { tls: Some(tls), ..Terms::default() };
        serve::serve(&self.shared, terms, reader, writer).await
    }

    /// Ends all connections to the exports with this name, and waits until none of their requests
    /// is in flight.
    ///
    /// Before authority moves, revoke the export first: a client that connects later must find it
    /// revoked. The wait lasts as long as the slowest call to the export, because a write that is
    /// cut off half-way would be one whose outcome nobody knows; a client that does not read its
    /// answers delays nothing.
    pub async fn disconnect(&self, name: &str) {
        self.disconnect_matching(|other| other == name).await;
    }

    /// As [`Server::disconnect`], for each export whose name satisfies `matches`.
    pub async fn disconnect_matching(&self, matches: impl Fn(&str) -> bool) {
        self.shared.registry.disconnect(matches).await;
    }

    /// Refuses new clients, ends all connections, and waits until no request is in flight. For
    /// good.
    pub async fn shutdown(&self) {
        self.shared.registry.close();
        self.disconnect_matching(|_| true).await;
    }

    /// Names of the exports that clients use now, once per connection.
    #[must_use]
    pub fn connected(&self) -> Vec<String> {
        self.shared.registry.names()
    }
}
