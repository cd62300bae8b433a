//! A small client: several requests in flight on one connection, answers checked against what was
//! asked.

mod connection;
mod negotiate;
pub(crate) mod reply;

use crate::Extent;
use crate::proto::constants::{CMD_FLAG_REQ_ONE, FLAG_CAN_MULTI_CONN, FLAG_READ_ONLY, STATE_ZERO};
use crate::proto::limits::PAYLOAD_BYTES_MAX;
use crate::proto::{Command, Errno, Violation};
use bytes::Bytes;
use connection::{Connection, Wanted};
use landfall_types::Class;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Requests in flight on one connection; more wait.
pub(crate) const REQUESTS_IN_FLIGHT_MAX: usize = 128;

/// Why a client's call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The stream broke.
    #[error("the stream to the server broke")]
    Stream(#[source] std::io::Error),
    /// The server does not speak NBD as agreed.
    #[error("the server broke the protocol")]
    Protocol(#[source] Violation),
    /// Nobody listens there.
    #[error("connect to {address}")]
    ConnectTcp {
        /// `host:port`.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The server won't begin TLS; nothing was said in the clear.
    #[error("the server refuses TLS (reply {reply:#010x}): {message}")]
    NoTls {
        /// `REP_ERR_…`.
        reply: u32,
        /// The server's words.
        message: String,
    },
    /// The server is not who it should be, or does not take our certificate.
    #[error("TLS with the server could not begin")]
    Tls(#[source] std::io::Error),
    /// The server does not give the export.
    #[error("the server refuses {export:?} (reply {reply:#010x}): {message}")]
    Refused {
        /// What was asked for.
        export: String,
        /// `REP_ERR_…`.
        reply: u32,
        /// The server's words.
        message: String,
    },
    /// The server answered a request with an error.
    #[error("the request failed with {errno:?}: {message}")]
    Failed {
        /// Which error. After [`Errno::Shutdown`] the connection is of no more use.
        errno: Errno,
        /// The server's words; empty where replies are simple.
        message: String,
    },
    /// More than one request can carry.
    #[error("{0} bytes are more than the largest payload of {PAYLOAD_BYTES_MAX}")]
    TooLong(u64),
    /// The connection is at its end; whether a change was made is not known.
    #[error("the connection to the server ended")]
    Closed,
}

impl ClientError {
    /// What the error asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Connect { .. }
            | Self::ConnectTcp { .. }
            | Self::Tls(_)
            | Self::Stream(_)
            | Self::Closed => Class::Transient,
            Self::Failed { errno: Errno::Shutdown, .. } => Class::Fenced,
            Self::Failed { errno: Errno::Io | Errno::NoSpace, .. } => Class::Transient,
            Self::Protocol(_) | Self::NoTls { .. } | Self::Refused { .. } | Self::Failed { .. } => {
                Class::Permanent
            }
            Self::TooLong(_) => Class::Bug,
        }
    }
}

/// What the server said of the export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportInfo {
    /// Bytes of the disk.
    pub size: u64,
    /// Requests must be multiples of this; 1 where the server did not say.
    pub block_bytes: u32,
    /// `FLAG_…` of the transmission.
    pub flags: u16,
    /// Replies are structured.
    pub structured: bool,
    /// Block status can be asked for.
    pub allocation: bool,
}

/// Whom a client believes, and what it shows.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Trust and the client's certificate.
    pub config: Arc<ClientConfig>,
    /// The server's name, for configurations that compare it.
    pub name: ServerName<'static>,
}

/// One connection to one export. Calls can be made concurrently; dropping it takes leave of the
/// server.
#[derive(Debug)]
pub struct Client {
    info: ExportInfo,
    connection: Connection,
}

impl Client {
    /// Connects to an export on a Unix socket; within a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`]: nobody there, or no such export.
    pub async fn connect_unix(path: &Path, export: &str) -> Result<Self, ClientError> {
        let (reader, writer) = dial(path).await?.into_split();
        Self::over(reader, writer, export).await
    }

    /// Connects to an export on TCP, with TLS and nothing before it.
    ///
    /// # Errors
    /// [`ClientError`]: nobody there, no TLS, somebody else, or no such export.
    pub async fn connect_tls(
        address: &str,
        tls: &ClientTls,
        export: &str,
    ) -> Result<Self, ClientError> {
        let failed = |source| ClientError::ConnectTcp { address: address.to_owned(), source };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Self::over_tls(stream, tls, export).await
    }

    /// Begins TLS on any stream and negotiates within it.
    ///
    /// # Errors
    /// As [`Client::connect_tls`].
    pub async fn over_tls<S>(stream: S, tls: &ClientTls, export: &str) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Halves of one stream that know no buffer: what follows the server's yes belongs to TLS.
        let (mut reader, mut writer) = tokio::io::split(stream);
        negotiate::greet(&mut reader, &mut writer).await?;
        negotiate::start_tls(&mut reader, &mut writer).await?;
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let connecting = connector.connect(tls.name.clone(), reader.unsplit(writer));
        let stream = Box::pin(connecting).await.map_err(ClientError::Tls)?;
        let (reader, writer) = tokio::io::split(stream);
        Self::choose(reader, writer, export).await
    }

    /// Negotiates on any pair of streams, without TLS.
    ///
    /// # Errors
    /// [`ClientError`]: no NBD server, or no such export.
    pub async fn over<R, W>(mut reader: R, mut writer: W, export: &str) -> Result<Self, ClientError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        negotiate::greet(&mut reader, &mut writer).await?;
        Self::choose(reader, writer, export).await
    }

    async fn choose<R, W>(mut reader: R, mut writer: W, export: &str) -> Result<Self, ClientError>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let info = negotiate::choose(&mut reader, &mut writer, export).await?;
        Ok(Self { info, connection: Connection::start(reader, writer) })
    }

    /// Names of the exports that a server lists.
    ///
    /// # Errors
    /// [`ClientError`]: nobody there, or it does not list.
    pub async fn list_unix(path: &Path) -> Result<Vec<String>, ClientError> {
        let (mut reader, mut writer) = dial(path).await?.into_split();
        negotiate::greet(&mut reader, &mut writer).await?;
        negotiate::list(&mut reader, &mut writer).await
    }

    /// What the server said.
    #[must_use]
    pub const fn info(&self) -> &ExportInfo {
        &self.info
    }

    /// Bytes of the disk.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.info.size
    }

    /// True when writes are refused.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.info.flags & FLAG_READ_ONLY != 0
    }

    /// True when one job may be spread over several connections.
    #[must_use]
    pub const fn can_multi_conn(&self) -> bool {
        self.info.flags & FLAG_CAN_MULTI_CONN != 0
    }

    /// Reads; at most 32 MiB.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ClientError> {
        if length > PAYLOAD_BYTES_MAX {
            return Err(ClientError::TooLong(length.into()));
        }
        let structured = self.info.structured;
        let wanted = Wanted::Data { offset, length, structured };
        let answer =
            self.connection.call(Command::Read, 0, offset, length, Bytes::new(), wanted).await?;
        Ok(answer.data)
    }

    /// Writes; at most 32 MiB. A Landfall server answers when the data are durable.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), ClientError> {
        let length = u32::try_from(data.len()).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX);
        let length = length.ok_or(ClientError::TooLong(data.len() as u64))?;
        self.connection.call(Command::Write, 0, offset, length, data, Wanted::Nothing).await?;
        Ok(())
    }

    /// Makes a range read as zeroes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn zero(&self, offset: u64, length: u32) -> Result<(), ClientError> {
        self.plain(Command::WriteZeroes, offset, length).await
    }

    /// Gives a range up; what it reads as afterwards is not defined by the protocol.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trim(&self, offset: u64, length: u32) -> Result<(), ClientError> {
        self.plain(Command::Trim, offset, length).await
    }

    /// All writes that were answered are durable when this returns.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.plain(Command::Flush, 0, 0).await
    }

    /// Extents from `offset` on; they may cover less than `length`, but never nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block_status(&self, offset: u64, length: u32) -> Result<Vec<Extent>, ClientError> {
        self.status(offset, length, 0).await
    }

    /// The one extent at `offset`, at most `length` long.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block_status_one(&self, offset: u64, length: u32) -> Result<Extent, ClientError> {
        let extents = self.status(offset, length, CMD_FLAG_REQ_ONE).await?;
        match extents[..] {
            [one] if one.length <= length.into() => Ok(one),
            _ => Err(ClientError::Protocol(Violation::Malformed("answer of one extent"))),
        }
    }

    /// Takes leave: no request may be in flight. Returns when the server has closed its side.
    pub async fn disconnect(self) {
        self.connection.close().await;
    }

    async fn plain(&self, command: Command, offset: u64, length: u32) -> Result<(), ClientError> {
        self.connection.call(command, 0, offset, length, Bytes::new(), Wanted::Nothing).await?;
        Ok(())
    }

    async fn status(
        &self,
        offset: u64,
        length: u32,
        flags: u16,
    ) -> Result<Vec<Extent>, ClientError> {
        let answer = self
            .connection
            .call(Command::BlockStatus, flags, offset, length, Bytes::new(), Wanted::Status)
            .await?;
        let extents = answer.extents.iter().map(|(length, flags)| Extent {
            length: u64::from(*length),
            hole: flags & STATE_ZERO != 0,
        });
        Ok(extents.collect())
    }
}

async fn dial(path: &Path) -> Result<UnixStream, ClientError> {
    let failed = |source| ClientError::Connect { path: path.to_owned(), source };
    UnixStream::connect(path).await.map_err(failed)
}
