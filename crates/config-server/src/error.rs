use landfall_api_types::{ApiError, codes};
use landfall_pki::PkiError;
use landfall_store::StoreError;
use landfall_types::Class;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the configuration server can't start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Certificates and secrets.
    #[error("certificates and secrets")]
    Pki(#[source] PkiError),
    /// The database.
    #[error("the database")]
    Store(#[source] StoreError),
    /// A file of the state directory.
    #[error("{operation} {}", path.display())]
    File {
        /// Verb.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The listener's address can't be used.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record of the database is not understood.
    #[error("a record of the database is not understood: {what}")]
    Record {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ServerError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Pki(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::File { .. } => Class::Transient,
            Self::Listen { .. } => Class::Permanent,
            Self::Record { .. } => Class::Corrupt,
        }
    }
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// For an API answer: the whole chain is told, because the operator of the server is who asks.
impl From<ServerError> for ApiError {
    fn from(error: ServerError) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            cause = format!("{cause}: {inner}");
            source = inner.source();
        }
        match error.class() {
            Class::Transient => {
                Self::new(&codes::SERVER_UNREACHABLE, cause).cure("try again; nothing was changed")
            }
            Class::Fenced => Self::new(&codes::FENCED, cause),
            _ => Self::new(&codes::INTERNAL, cause),
        }
    }
}
