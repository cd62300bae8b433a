//! Who a certificate speaks for, and the fingerprint that an authority is pinned by.

use crate::PkiError;
use landfall_types::NodeId;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::str::FromStr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a member of the fleet does; part of its certificate.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The configuration server.
    Server,
    /// On a protected machine.
    Agent,
    /// Relays the log.
    ProcessServer,
    /// Owns images and journals.
    MasterTarget,
    /// A person's client.
    Operator,
    /// Uses disks over NBD: a hypervisor, a backup program.
    DiskClient,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Server,
        Self::Agent,
        Self::ProcessServer,
        Self::MasterTarget,
        Self::Operator,
        Self::DiskClient,
    ];

    /// As it stands in certificates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::ProcessServer => "process-server",
            Self::MasterTarget => "master-target",
            Self::Operator => "operator",
            Self::DiskClient => "disk-client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The bearer of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerIdentity {
    /// What it does.
    pub role: Role,
    /// Which one it is.
    pub node: NodeId,
}

impl PeerIdentity {
    /// The URI that its certificate carries.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("landfall://{}/{}", self.role, self.node)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.node)
    }
}

impl FromStr for PeerIdentity {
    type Err = PkiError;
    fn from_str(uri: &str) -> Result<Self, PkiError> {
        let rest = uri.strip_prefix("landfall://").ok_or(PkiError::Identity("another scheme"))?;
        let (role, node) = rest.split_once('/').ok_or(PkiError::Identity("no node ID"))?;
        let role = Role::ALL.into_iter().find(|known| known.name() == role);
        let role = role.ok_or(PkiError::Identity("an unknown role"))?;
        let node = node.parse().map_err(|_| PkiError::Identity("a node ID that is no UUID"))?;
        Ok(Self { role, node })
    }
}

/// Who a certificate speaks for. It does not verify the certificate: TLS has done that before.
///
/// # Errors
/// [`PkiError::Identity`] unless it carries exactly one URI, of our form. Never panics, whatever
/// the bytes.
pub fn peer_identity(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, PkiError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| PkiError::Identity("it can't be decoded"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| PkiError::Identity("its names can't be decoded"))?
        .ok_or(PkiError::Identity("it has no alternative names"))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    // Two URIs would leave it to the reader which one counts.
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse(),
        _ => Err(PkiError::Identity("it has not exactly one URI")),
    }
}

/// SHA-256 of the authority's certificate (DER): what people compare and what enrolment pins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self::of_bytes(certificate)
    }

    pub(crate) fn of_bytes(content: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fingerprint:{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = PkiError;
    /// 64 hexadecimal digits; colons between them, as other tools print, are skipped.
    fn from_str(text: &str) -> Result<Self, PkiError> {
        let wrong = || PkiError::Fingerprint(text.chars().take(100).collect());
        let digits: Vec<u32> = text
            .trim()
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_their_uri_and_others_are_refused() {
        for role in Role::ALL {
            let identity = PeerIdentity { role, node: NodeId::generate() };
            assert_eq!(identity.uri().parse::<PeerIdentity>().expect("ours"), identity);
        }
        for wrong in ["", "landfall://", "landfall://agent", "landfall://chief/x", "http://agent/1"]
        {
            assert!(wrong.parse::<PeerIdentity>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn fingerprints_survive_text_with_and_without_colons() {
        let fingerprint = Fingerprint::of(&CertificateDer::from(vec![1, 2, 3]));
        let text = fingerprint.to_string();
        assert_eq!(text, "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81");
        assert_eq!(text.parse::<Fingerprint>().expect("hex"), fingerprint);
        let colons = text.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair));
        let colons = colons.collect::<Vec<_>>().join(":").to_uppercase();
        assert_eq!(colons.parse::<Fingerprint>().expect("hex"), fingerprint);
        assert!(text[1..].parse::<Fingerprint>().is_err());
        assert!("é".repeat(64).parse::<Fingerprint>().is_err());
    }

    #[test]
    fn bytes_that_are_no_certificate_name_nobody() {
        for bytes in [vec![], vec![0x30], vec![0x30, 0x82, 0xff, 0xff], vec![0; 1000]] {
            assert!(peer_identity(&CertificateDer::from(bytes)).is_err());
        }
    }
}
