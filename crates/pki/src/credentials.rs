use crate::files::{private_dir, read_public, read_secret, write_public, write_secret};
use crate::live::LiveKey;
use crate::names::names_in;
use crate::{
    Certificate, Fingerprint, KeyAndRequest, PeerIdentity, PkiError, Role, peer_identity, tls,
};
use landfall_types::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `node.json`: who the credentials are for and which server they belong to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The ID that the configuration server gave.
    pub id: NodeId,
    /// What it does.
    pub role: Role,
    /// Its unique name.
    pub name: String,
    /// `https://host:port` of the configuration server.
    pub server_url: String,
}

/// The credentials of one member: a directory of `ca.pem`, `cert.pem`, `key.pem` (0600) and
/// `node.json`.
///
/// Cheap to clone; clones see a renewal at once.
#[derive(Clone, Debug)]
pub struct Credentials {
    dir: PathBuf,
    member: Member,
    authority: CertificateDer<'static>,
    key: Arc<LiveKey>,
}

impl Credentials {
    /// True when the directory holds complete credentials.
    #[must_use]
    pub fn exist(dir: &Path) -> bool {
        dir.join("node.json").exists()
    }

    /// The key of credentials in the making, with a request over it: made durable at the first
    /// call, found again by later ones, so that a repeated enrolment is recognized by its key.
    /// Gives key and request, PEM.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn key_and_request(dir: &Path) -> Result<(String, String), PkiError> {
        private_dir(dir)?;
        let path = dir.join("key.pem");
        if !path.exists() {
            write_secret(&path, KeyAndRequest::generate()?.key_pem.as_bytes())?;
        }
        let key_pem = read_secret(&path)?;
        let request = crate::request::request_for(&key_pem)
            .map_err(|_| PkiError::Damaged { path, what: "it holds no key" })?;
        Ok((key_pem, request))
    }

    /// Writes new credentials and opens them.
    ///
    /// # Errors
    /// [`PkiError`]: files, or a certificate that does not fit the key or the member.
    pub fn create(
        dir: &Path,
        member: &Member,
        key_pem: &str,
        certificate: &Certificate,
    ) -> Result<Self, PkiError> {
        private_dir(dir)?;
        write_secret(&dir.join("key.pem"), key_pem.as_bytes())?;
        write_public(&dir.join("cert.pem"), certificate.pem.as_bytes())?;
        write_public(&dir.join("ca.pem"), certificate.authority_pem.as_bytes())?;
        // Last, because it is what says that the directory is complete: after a crash in between,
        // the node enrols again instead of failing for ever on half of its credentials.
        write_member(dir, member)?;
        Self::open(dir)
    }

    /// Writes another description of the same member: name or server address.
    ///
    /// # Errors
    /// [`PkiError::Identity`] for another member.
    pub fn change_member(&self, member: &Member) -> Result<Self, PkiError> {
        if (member.id, member.role) != (self.member.id, self.member.role) {
            return Err(PkiError::Identity("the description is another member's"));
        }
        write_member(&self.dir, member)?;
        Ok(Self { member: member.clone(), ..self.clone() })
    }

    /// Opens a directory of credentials.
    ///
    /// # Errors
    /// [`PkiError`]: missing, damaged or exposed files, or a certificate of somebody else.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("node.json");
        let member: Member = serde_json::from_str(&read_public(&path)?)
            .map_err(|source| PkiError::Member { path, source })?;
        let authority_path = dir.join("ca.pem");
        let authority =
            CertificateDer::from_pem_slice(read_public(&authority_path)?.as_bytes()).map_err(
                |_| PkiError::Damaged { path: authority_path, what: "it holds no certificate" },
            )?;
        let key = load_key(dir, &member, &authority)?;
        Ok(Self { dir: dir.to_owned(), member, authority, key: Arc::new(LiveKey::new(key)) })
    }

    /// Who they are for.
    #[must_use]
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// As it stands in the certificate.
    #[must_use]
    pub const fn identity(&self) -> PeerIdentity {
        PeerIdentity { role: self.member.role, node: self.member.id }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Of the authority.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    /// Names and addresses that the certificate in use carries, for programs that compare them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.key.current().cert.first().map(names_in).unwrap_or_default()
    }

    /// True once two thirds of the certificate's life are over: time to call
    /// [`Credentials::renew`].
    #[must_use]
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        let key = self.key.current();
        let Some(validity) = key.cert.first().and_then(validity) else { return true };
        let life = validity.1.duration_since(validity.0).unwrap_or_default();
        now > validity.0 + life * 2 / 3
    }

    /// Takes a renewed certificate over the *same key* into use, durably and for running listeners
    /// too.
    ///
    /// # Errors
    /// [`PkiError`]; the former certificate stays in use then.
    pub fn renew(&self, certificate_pem: &str) -> Result<(), PkiError> {
        let key_pem = read_secret(&self.dir.join("key.pem"))?;
        let key = certified_key(&self.dir, &key_pem, certificate_pem, &self.authority)?;
        check_member(&key, &self.member)?;
        write_public(&self.dir.join("cert.pem"), certificate_pem.as_bytes())?;
        self.key.replace(key);
        Ok(())
    }

    /// A request over the key in use, for a renewal.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn renewal_request(&self) -> Result<String, PkiError> {
        let path = self.dir.join("key.pem");
        crate::request::request_for(&read_secret(&path)?)
            .map_err(|_| PkiError::Damaged { path, what: "it holds no key" })
    }

    pub(crate) const fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    pub(crate) const fn key(&self) -> &Arc<LiveKey> {
        &self.key
    }
}

fn write_member(dir: &Path, member: &Member) -> Result<(), PkiError> {
    let path = dir.join("node.json");
    let text = serde_json::to_vec_pretty(member)
        .map_err(|source| PkiError::Member { path: path.clone(), source })?;
    write_public(&path, &text)
}

fn load_key(
    dir: &Path,
    member: &Member,
    authority: &CertificateDer<'static>,
) -> Result<CertifiedKey, PkiError> {
    let key_pem = read_secret(&dir.join("key.pem"))?;
    let key = certified_key(dir, &key_pem, &read_public(&dir.join("cert.pem"))?, authority)?;
    check_member(&key, member)?;
    Ok(key)
}

fn certified_key(
    dir: &Path,
    key_pem: &str,
    certificate_pem: &str,
    authority: &CertificateDer<'static>,
) -> Result<CertifiedKey, PkiError> {
    let damaged = |file: &str, what| PkiError::Damaged { path: dir.join(file), what };
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|_| damaged("cert.pem", "it holds no certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| damaged("key.pem", "it holds no key"))?;
    let signing = tls::provider().key_provider.load_private_key(key);
    let signing =
        signing.map_err(|source| PkiError::Tls { operation: "load the private key", source })?;
    // The authority's certificate goes along: an enrolling client finds the pinned fingerprint in
    // it.
    let key = CertifiedKey::new(vec![certificate, authority.clone()], signing);
    key.keys_match()
        .map_err(|source| PkiError::Tls { operation: "compare key and certificate", source })?;
    Ok(key)
}

fn check_member(key: &CertifiedKey, member: &Member) -> Result<(), PkiError> {
    let certificate = key.cert.first().ok_or(PkiError::Identity("there is none"))?;
    let identity = peer_identity(certificate)?;
    if identity != (PeerIdentity { role: member.role, node: member.id }) {
        return Err(PkiError::Identity("it is another member's than node.json says"));
    }
    Ok(())
}

/// Beginning and end of a certificate's life; `None` for what is no certificate.
fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let time = |seconds: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    let validity = parsed.validity();
    let (begin, end) =
        (time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?);
    (begin < end).then_some((begin, end))
}
