//! TLS configurations: TLS 1.3 only, `aws-lc-rs` only, no host names.
//!
//! | who | configuration | verifies |
//! |---|---|---|
//! | listener of the data plane | [`data_server`] | client's chain and that its role is accepted |
//! | sender of the data plane | [`data_client`] | server's chain and that its role is expected |
//! | configuration server | [`rest_server`] | client's chain if it shows a certificate |
//! | listener of disks | [`disk_server`] | client's chain; a disk client or master target |
//! | enrolling node | [`enrolling_client`] | the pinned fingerprint, chain to it, role `server` |
//! | node or operator | [`rest_client`] | chain, role `server` |
//!
//! Sessions are never resumed: a resumed one would carry the peer's former certificate on, after it
//! was renewed and beyond its end.

mod verify;

pub use verify::{RoleRefused, UnpinnedAuthority, unpinned};

use crate::{Credentials, Fingerprint, PkiError, Role};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use verify::{MemberClientVerifier, MemberServerVerifier, Trust};

/// The one source of cryptography.
#[must_use]
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The name to hand to a TLS client where its library wants one; it is neither sent nor compared.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("landfall.invalid").expect("a valid DNS name")
}

/// For a listener of the data plane: the client must show a certificate of the fleet with one of
/// these roles.
///
/// Ask [`crate::peer_identity`] of the first of the connection's peer certificates who it is.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn data_server(
    credentials: &Credentials,
    accept: &[Role],
) -> Result<Arc<ServerConfig>, PkiError> {
    let inner = WebPkiClientVerifier::builder_with_provider(roots(credentials)?, provider())
        .build()
        .map_err(|_| tls("build the client verifier", "no roots"))?;
    server(credentials, Arc::new(MemberClientVerifier::new(inner, accept)))
}

/// For a listener of disks (NBD): disk clients, and other master targets.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn disk_server(credentials: &Credentials) -> Result<Arc<ServerConfig>, PkiError> {
    data_server(credentials, &[Role::DiskClient, Role::MasterTarget])
}

/// For a sender of the data plane: the server must show a certificate of the fleet with one of
/// these roles.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn data_client(
    credentials: &Credentials,
    expect: &[Role],
) -> Result<Arc<ClientConfig>, PkiError> {
    let trust = Trust::Authority(roots(credentials)?);
    client(trust, expect, Some(credentials))
}

/// For the configuration server: clients may show a certificate of the fleet; whoever enrols has
/// none yet.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn rest_server(credentials: &Credentials) -> Result<Arc<ServerConfig>, PkiError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(credentials)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|_| tls("build the client verifier", "no roots"))?;
    server(credentials, verifier)
}

/// For enrolment: trusts the authority with this fingerprint and nobody else.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn enrolling_client(pin: Fingerprint) -> Result<Arc<ClientConfig>, PkiError> {
    client(Trust::Pinned(pin), &[Role::Server], None)
}

/// For nodes and operators towards the configuration server.
///
/// # Errors
/// [`PkiError::Tls`].
pub fn rest_client(credentials: &Credentials) -> Result<Arc<ClientConfig>, PkiError> {
    data_client(credentials, &[Role::Server])
}

fn roots(credentials: &Credentials) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(credentials.authority().clone())
        .map_err(|source| PkiError::Tls { operation: "trust the authority", source })?;
    Ok(Arc::new(roots))
}

fn tls(operation: &'static str, why: &str) -> PkiError {
    PkiError::Tls { operation, source: rustls::Error::General(why.to_owned()) }
}

fn server(
    credentials: &Credentials,
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, PkiError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| PkiError::Tls { operation: "choose TLS 1.3", source })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(credentials.key()) as _);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client(
    trust: Trust,
    expect: &[Role],
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| PkiError::Tls { operation: "choose TLS 1.3", source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MemberServerVerifier::new(
            trust,
            expect,
            provider(),
        )));
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(Arc::clone(credentials.key()) as _),
        None => builder.with_no_client_auth(),
    };
    // There is no name to send: members are known by their URI.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
