//! Verifiers that ask for a role instead of a host name; the chain itself is checked by rustls' own
//! code.

use crate::{Fingerprint, PeerIdentity, Role, peer_identity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;

/// The peer is a member of the fleet, but not of a role that has business here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} {} is not accepted here", found.role, found.node)]
pub struct RoleRefused {
    /// Who it is.
    pub found: PeerIdentity,
}

/// The server shows no certificate of the pinned authority: perhaps somebody answers in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server's authority is not the pinned one")]
pub struct UnpinnedAuthority {
    /// What was expected.
    pub expected: Fingerprint,
    /// Of the last certificate that the server showed.
    pub found: Option<Fingerprint>,
}

/// Finds [`UnpinnedAuthority`] in a TLS error.
#[must_use]
pub fn unpinned(error: &Error) -> Option<&UnpinnedAuthority> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn check_role(certificate: &CertificateDer<'_>, accept: &[Role]) -> Result<(), Error> {
    let found = peer_identity(certificate).map_err(other)?;
    if accept.contains(&found.role) { Ok(()) } else { Err(other(RoleRefused { found })) }
}

/// Whom a client believes.
#[derive(Debug)]
pub(super) enum Trust {
    /// The authority of its credentials.
    Authority(Arc<RootCertStore>),
    /// An authority known by its fingerprint only, whose certificate the server shows.
    Pinned(Fingerprint),
}

impl Trust {
    fn roots(&self, shown: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        let expected = match self {
            Self::Authority(roots) => return Ok(Arc::clone(roots)),
            Self::Pinned(expected) => *expected,
        };
        let pinned = shown.iter().find(|certificate| Fingerprint::of(certificate) == expected);
        let pinned = pinned.ok_or_else(|| {
            other(UnpinnedAuthority { expected, found: shown.last().map(Fingerprint::of) })
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        Ok(Arc::new(roots))
    }
}

#[derive(Debug)]
pub(super) struct MemberServerVerifier {
    trust: Trust,
    expect: Vec<Role>,
    provider: Arc<CryptoProvider>,
}

impl MemberServerVerifier {
    pub(super) fn new(trust: Trust, expect: &[Role], provider: Arc<CryptoProvider>) -> Self {
        Self { trust, expect: expect.to_vec(), provider }
    }
}

impl ServerCertVerifier for MemberServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.trust.roots(intermediates)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        check_role(end_entity, &self.expect)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
pub(super) struct MemberClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    accept: Vec<Role>,
}

impl MemberClientVerifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, accept: &[Role]) -> Self {
        Self { inner, accept: accept.to_vec() }
    }
}

impl ClientCertVerifier for MemberClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        check_role(end_entity, &self.accept)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
