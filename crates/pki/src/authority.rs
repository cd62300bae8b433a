use crate::files::{private_dir, read_public, read_secret, write_public, write_secret};
use crate::identity::{Fingerprint, PeerIdentity, Role};
use crate::{PkiError, names, request};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the authority's own certificate holds. There is no way yet to replace it in a running
/// fleet, so it outlives any machine that it is installed on.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
/// How long a member's certificate holds. It is renewed after two thirds of it (see
/// [`crate::Credentials::renewal_due`]), so a node may be switched off for four months and still
/// come back.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long a disk client's certificate holds. It can't be taken back, so it is shorter than a
/// member's; `landfall disk-client` makes the next one.
pub const DISK_CLIENT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How far the validity begins in the past: a node whose clock is behind, or is stepped back, still
/// accepts what was signed just now. Only the beginning needs it; nothing that is signed today was
/// valid for others before.
const NOT_BEFORE_SLACK: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// A certificate that the authority signed.
pub struct Certificate {
    /// The certificate, PEM.
    pub pem: String,
    /// The authority's certificate, PEM.
    pub authority_pem: String,
}

/// The fleet's certificate authority: key and self-signed certificate, kept by the configuration
/// server.
pub struct FleetAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

impl FleetAuthority {
    /// Opens the authority in `dir`, or makes it there if there is none.
    ///
    /// # Errors
    /// [`PkiError`]: unreadable, damaged or exposed files.
    pub fn open_or_create(dir: &Path, now: SystemTime) -> Result<Self, PkiError> {
        private_dir(dir)?;
        let (key_path, certificate_path) = (dir.join("key.pem"), dir.join("ca.pem"));
        if !certificate_path.exists() {
            let (key_pem, certificate_pem) = create(now)?;
            // The key comes first: a certificate without its key would be found here, and trusted
            // by people who wrote its fingerprint down, but could sign nothing. A key alone is
            // simply replaced.
            write_secret(&key_path, key_pem.as_bytes())?;
            write_public(&certificate_path, certificate_pem.as_bytes())?;
        }
        let damaged = |path: &Path, what| PkiError::Damaged { path: path.to_owned(), what };
        let certificate_pem = read_public(&certificate_path)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| damaged(&certificate_path, "it holds no certificate"))?;
        let key = KeyPair::from_pem(&read_secret(&key_path)?)
            .map_err(|_| damaged(&key_path, "it holds no key"))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_| damaged(&certificate_path, "it is no authority's certificate"))?;
        Ok(Self { issuer, certificate, certificate_pem })
    }

    /// What people compare and enrolment pins.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a certificate for `identity` over the public key of a request.
    ///
    /// # Errors
    /// [`PkiError::Request`] for requests that can't be used.
    pub fn sign(
        &self,
        request_pem: &str,
        identity: PeerIdentity,
        now: SystemTime,
    ) -> Result<Certificate, PkiError> {
        self.sign_named(request_pem, identity, &[], now)
    }

    /// As [`FleetAuthority::sign`], with names and addresses under which programs that were not
    /// written here reach the bearer: those compare what they dialed with the certificate. Members
    /// look at the identity alone.
    ///
    /// # Errors
    /// As [`FleetAuthority::sign`]; [`PkiError::Request`] for names that are none, or too many.
    pub fn sign_named(
        &self,
        request_pem: &str,
        identity: PeerIdentity,
        names: &[String],
        now: SystemTime,
    ) -> Result<Certificate, PkiError> {
        let key = request::public_key(request_pem)?;
        let mut params = leaf_params(identity, now)?;
        params.subject_alt_names.extend(names::alternative_names(names)?);
        let pem = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| PkiError::Make { operation: "sign a certificate", source })?
            .pem();
        Ok(Certificate { pem, authority_pem: self.certificate_pem.clone() })
    }
}

fn create(now: SystemTime) -> Result<(String, String), PkiError> {
    let make = |operation| move |source| PkiError::Make { operation, source };
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(make("generate the authority's key"))?;
    let mut params = base_params("Landfall fleet authority", now, AUTHORITY_LIFETIME)?;
    // No authorities below this one: whoever holds a member's certificate can't make members.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(make("sign the authority's certificate"))?;
    debug_assert!(!key.der_bytes().is_empty());
    Ok((key.serialize_pem(), certificate.pem()))
}

fn leaf_params(identity: PeerIdentity, now: SystemTime) -> Result<CertificateParams, PkiError> {
    let lifetime = match identity.role {
        Role::DiskClient => DISK_CLIENT_LIFETIME,
        _ => LEAF_LIFETIME,
    };
    let mut params = base_params(&identity.node.to_string(), now, lifetime)?;
    let uri = identity
        .uri()
        .try_into()
        .map_err(|source| PkiError::Make { operation: "write the member's URI", source })?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if identity.role == Role::DiskClient {
        // No elliptic key enciphers keys, but QEMU up to 10.0 refuses to show a certificate that
        // does not say so.
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    // Who never listens can't pose as a server even where a verifier forgets to look at the role.
    params.extended_key_usages = match identity.role {
        Role::Operator | Role::Agent | Role::DiskClient => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
        Role::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Role::ProcessServer | Role::MasterTarget => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn base_params(
    name: &str,
    now: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let not_before = now.checked_sub(NOT_BEFORE_SLACK).unwrap_or(SystemTime::UNIX_EPOCH);
    params.not_before = OffsetDateTime::from(not_before);
    params.not_after = OffsetDateTime::from(now + lifetime + DAY);
    let mut serial = [0_u8; 16];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    // Positive and not zero in DER, whatever the random bits.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}
