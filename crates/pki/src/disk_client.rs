use crate::files::{private_dir, write_public, write_secret};
use crate::{Certificate, PkiError};
use std::path::Path;

/// Writes a disk client's key and certificate under the names that QEMU (`tls-creds-x509`), libnbd
/// (`tls-certificates`) and nbdkit look for: `ca-cert.pem`, `client-cert.pem`, `client-key.pem`
/// (0600). A certificate that is there is replaced.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_disk_client(
    dir: &Path,
    key_pem: &str,
    certificate: &Certificate,
) -> Result<(), PkiError> {
    private_dir(dir)?;
    write_public(&dir.join("ca-cert.pem"), certificate.authority_pem.as_bytes())?;
    write_secret(&dir.join("client-key.pem"), key_pem.as_bytes())?;
    // Last: key and certificate that do not fit each other are refused by every program, and the
    // command can be repeated.
    write_public(&dir.join("client-cert.pem"), certificate.pem.as_bytes())
}
