//! Names and addresses in certificates, for programs that compare what they dialed.

use crate::PkiError;
use rcgen::SanType;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Most names and addresses of one certificate.
pub const NAMES_MAX: usize = 16;

/// As a certificate carries them.
pub(crate) fn alternative_names(names: &[String]) -> Result<Vec<SanType>, PkiError> {
    const NO_NAME: PkiError = PkiError::Request("a name is neither a DNS name nor an IP address");
    if names.len() > NAMES_MAX {
        return Err(PkiError::Request("it has too many names"));
    }
    let one = |name: &String| match ServerName::try_from(name.as_str()) {
        Ok(ServerName::IpAddress(address)) => Ok(SanType::IpAddress(address.into())),
        // Wildcards are no names here: one master target would speak for others.
        Ok(ServerName::DnsName(_)) => {
            name.as_str().try_into().map(SanType::DnsName).map_err(|_| NO_NAME)
        }
        Ok(_) | Err(_) => Err(NO_NAME),
    };
    names.iter().map(one).collect()
}

/// The names and addresses in a certificate; none for what is no certificate.
pub(crate) fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return vec![] };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return vec![] };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}
