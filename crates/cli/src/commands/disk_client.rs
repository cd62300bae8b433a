use super::Remote;
use crate::args::DiskClientArgs;
use crate::failure::Failure;
use crate::output;
use landfall_api_types::request::NewDiskClient;
use landfall_pki::{Certificate, KeyAndRequest, write_disk_client};
use serde::Serialize;
use std::path::PathBuf;

/// What was made.
#[derive(Serialize)]
struct Made {
    /// Names the certificate in logs.
    id: String,
    /// Where it is.
    dir: PathBuf,
}

/// `landfall disk-client`.
pub(super) async fn disk_client(remote: &Remote, args: &DiskClientArgs) -> Result<(), Failure> {
    let made = KeyAndRequest::generate().map_err(anyhow::Error::new)?;
    let ask = NewDiskClient { csr_pem: made.request_pem };
    let client = remote.client.disk_client(&ask).await?;
    let certificate = Certificate { pem: client.certificate_pem, authority_pem: client.ca_pem };
    write_disk_client(&args.dir, &made.key_pem, &certificate).map_err(anyhow::Error::new)?;
    let made = Made { id: client.id.to_string(), dir: args.dir.clone() };
    output::print(remote.format, &made, |made| {
        let dir = made.dir.display();
        format!(
            "disk client {}: certificates in {dir}\n  \
             libnbd, nbdkit: ?tls-certificates={dir}\n  \
             QEMU:           --object tls-creds-x509,id=tls0,endpoint=client,dir={dir}",
            made.id
        )
    });
    Ok(())
}
