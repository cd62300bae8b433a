use landfall_types::Class;
use std::path::PathBuf;

/// Why certificates, keys or their files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// Verb, for instance `read`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `node.json` is not what we write.
    #[error("{} is not a member's description", path.display())]
    Member {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A private key can be read by others.
    #[error("{} can be read by others (mode {mode:o}): it must be 0600", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate or key could not be made.
    #[error("{operation}")]
    Make {
        /// Verb and object.
        operation: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate signing request that is not one, is too long, or is not signed by its own key.
    #[error("the certificate signing request can't be used: {0}")]
    Request(&'static str),
    /// A certificate without exactly one name of the form `landfall://<role>/<node id>`.
    #[error("the certificate names no member of a fleet: {0}")]
    Identity(&'static str),
    /// Text that is not a fingerprint.
    #[error("a fingerprint is 64 hexadecimal digits, not {0:?}")]
    Fingerprint(String),
    /// The TLS library refuses keys or certificates.
    #[error("{operation}")]
    Tls {
        /// Verb and object.
        operation: &'static str,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The operating system gives no random numbers.
    #[error("get random numbers from the operating system")]
    Random(#[source] getrandom::Error),
}

impl PkiError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::File { .. } | Self::Random(_) => Class::Transient,
            Self::Damaged { .. } | Self::Member { .. } => Class::Corrupt,
            Self::Make { .. } => Class::Bug,
            Self::Exposed { .. }
            | Self::Request(_)
            | Self::Identity(_)
            | Self::Fingerprint(_)
            | Self::Tls { .. } => Class::Permanent,
        }
    }
}
