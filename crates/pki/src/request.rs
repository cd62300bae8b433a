use crate::{Fingerprint, PkiError};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKey, PublicKeyData};

/// Most bytes of a certificate signing request (PEM) that the authority looks at.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A fresh private key and the request for its certificate.
pub struct KeyAndRequest {
    /// PKCS #8, PEM; stays on this machine.
    pub key_pem: String,
    /// PKCS #10, PEM; sent to the authority.
    pub request_pem: String,
}

impl KeyAndRequest {
    /// A new ECDSA P-256 key with its request.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the library refuses.
    pub fn generate() -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| PkiError::Make { operation: "generate a key", source })?;
        let request_pem = sign(&key)?;
        Ok(Self { key_pem: key.serialize_pem(), request_pem })
    }
}

/// A request over a key that exists already.
pub(crate) fn request_for(key_pem: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key_pem)
        .map_err(|source| PkiError::Make { operation: "load the key", source })?;
    sign(&key)
}

fn sign(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    // Who the certificate is for is decided by the authority, not by the request.
    params.distinguished_name = DistinguishedName::new();
    params
        .serialize_request(key)
        .and_then(|request| request.pem())
        .map_err(|source| PkiError::Make { operation: "sign a request", source })
}

/// Names the public key of a request: SHA-256 over it. Equal for every request over the same key.
///
/// # Errors
/// [`PkiError::Request`].
pub fn request_key(request_pem: &str) -> Result<Fingerprint, PkiError> {
    let key = public_key(request_pem)?;
    Ok(Fingerprint::of_bytes(key.der_bytes()))
}

/// The public key of a request, after its own signature was verified: the only thing that is taken
/// from it.
pub(crate) fn public_key(request_pem: &str) -> Result<PublicKey, PkiError> {
    if request_pem.len() > REQUEST_BYTES_MAX {
        return Err(PkiError::Request("it is too long"));
    }
    let request = rcgen::CertificateSigningRequestParams::from_pem(request_pem);
    let request = request.map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => {
            PkiError::Request("its signature is wrong")
        }
        _ => PkiError::Request("it can't be decoded"),
    })?;
    if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(PkiError::Request("its key is not ECDSA P-256"));
    }
    Ok(request.public_key)
}
