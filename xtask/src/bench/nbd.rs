//! A branch as an NBD export, and the server that is measured against.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use landfall_nbd::{Access, Client, Export, ExportError, Extent};
use landfall_types::DiskIndex;
use landfall_volume::Branch;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A branch's first disk, for reading: what B5 and B3 measure.
pub(super) struct ServedBranch(pub(super) Arc<Branch>);

const DISK: DiskIndex = DiskIndex(0);

#[async_trait]
impl Export for ServedBranch {
    fn size(&self) -> u64 {
        self.0.geometry(DISK).map_or(0, |geometry| geometry.size_bytes)
    }
    fn block_bytes(&self) -> u32 {
        self.0.geometry(DISK).map_or(512, |geometry| geometry.sector_bytes)
    }
    fn access(&self) -> Access {
        Access::ReadOnly
    }
    fn revoked(&self) -> bool {
        self.0.revoked()
    }
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        let branch = Arc::clone(&self.0);
        let reading = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; length as usize];
            branch.read(DISK, offset, &mut buffer).map(|()| Bytes::from(buffer))
        });
        match reading.await {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(error)) => Err(ExportError::Io(Box::new(error))),
            Err(error) => Err(ExportError::Io(Box::new(error))),
        }
    }
    async fn write(&self, _: u64, _: Bytes) -> Result<(), ExportError> {
        Err(ExportError::ReadOnly)
    }
    async fn zero(&self, _: u64, _: u64) -> Result<(), ExportError> {
        Err(ExportError::ReadOnly)
    }
    async fn trim(&self, _: u64, _: u64) -> Result<(), ExportError> {
        Err(ExportError::ReadOnly)
    }
    async fn flush(&self) -> Result<(), ExportError> {
        Ok(())
    }
    async fn extents(&self, _: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        Ok(vec![Extent { length, hole: false }])
    }
}

/// A `qemu-nbd` of its own, ended when it is dropped.
pub(super) struct QemuNbd(Child);

impl QemuNbd {
    /// Starts to serve `image`; answers before the socket is there.
    pub(super) fn start(image: &Path, format: &str, socket: &Path) -> Result<Self> {
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--format", format, "--export-name=peer"]);
        command.arg("--socket").arg(socket).arg(image).stdin(Stdio::null());
        Ok(Self(command.spawn().context("start qemu-nbd")?))
    }

    /// Connects as soon as it answers.
    pub(super) async fn client(&mut self, socket: &Path) -> Result<Client> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let began = Instant::now();
        loop {
            let error = match Client::connect_unix(socket, "peer").await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if let Some(status) = self.0.try_wait().context("look at qemu-nbd")? {
                bail!("qemu-nbd ended with {status}");
            }
            if began.elapsed() > PATIENCE {
                return Err(error).context("connect to qemu-nbd");
            }
            // Short against what is measured, and long enough to leave it the processor.
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        // It is our child and has not been waited for, so the number is still its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The block that B5 asks for, with something in it.
pub(super) const FIRST_BLOCK: &[u8; 4096] = &[0xb5; 4096];

/// Reads the first block and checks it.
pub(super) async fn first_block(client: &Client) -> Result<()> {
    let block = client.read(0, 4096).await.context("read the first block")?;
    if block != FIRST_BLOCK[..] {
        bail!("the first block is not what was written");
    }
    Ok(())
}
