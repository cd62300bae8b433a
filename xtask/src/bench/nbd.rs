//! A branch as an NBD export, and the server that is measured against.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use landfall_nbd::{Access, Change, Client, Content, Export, ExportError, Extent, Ticket};
use landfall_types::{DiskGeometry, DiskIndex, Lsn};
use landfall_volume::{Branch, View};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first disk of a view or branch, served as a master target serves it.
pub(super) enum Served {
    View(View),
    Branch(Arc<Branch>),
}

const DISK: DiskIndex = DiskIndex(0);

impl Served {
    fn geometry(&self) -> Option<DiskGeometry> {
        match self {
            Self::View(view) => view.geometry(DISK),
            Self::Branch(branch) => branch.geometry(DISK),
        }
    }

    fn fill(&self, offset: u64, out: &mut [u8]) -> Result<(), ExportError> {
        let read = match self {
            Self::View(view) => view.read(DISK, offset, out),
            Self::Branch(branch) => branch.read(DISK, offset, out),
        };
        read.map_err(failed)
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ExportError {
    ExportError::Io(Box::new(error))
}

#[async_trait]
impl Export for Served {
    fn size(&self) -> u64 {
        self.geometry().map_or(0, |geometry| geometry.size_bytes)
    }
    fn block_bytes(&self) -> u32 {
        self.geometry().map_or(512, |geometry| geometry.sector_bytes)
    }
    fn access(&self) -> Access {
        match self {
            Self::View(_) => Access::ReadOnly,
            Self::Branch(_) => Access::ReadWrite,
        }
    }
    fn revoked(&self) -> bool {
        match self {
            Self::View(_) => false,
            Self::Branch(branch) => branch.revoked(),
        }
    }
    fn read_here(&self, offset: u64, out: &mut [u8]) -> Option<Result<Content, ExportError>> {
        Some(self.fill(offset, out).map(|()| Content::Data))
    }
    fn change_here(&self, change: &Change) -> Option<Result<Ticket, ExportError>> {
        let Self::Branch(branch) = self else { return Some(Err(ExportError::ReadOnly)) };
        let taken = match change {
            Change::Write { offset, data } => branch.take_write(DISK, *offset, data),
            Change::Zero { offset, length } => branch.take_zero(DISK, *offset, *length),
            Change::Trim { offset, length } => branch.take_discard(DISK, *offset, *length),
        };
        Some(taken.map(|lsn| Ticket(lsn.get())).map_err(failed))
    }
    async fn settle(&self, ticket: Ticket) -> Result<(), ExportError> {
        let Self::Branch(branch) = self else { return Err(ExportError::ReadOnly) };
        let branch = Arc::clone(branch);
        let waiting = move || branch.wait_durable(Lsn::new(ticket.0));
        tokio::task::spawn_blocking(waiting).await.map_err(failed)?.map_err(failed)
    }
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        // What waits for the disk: on the client's thread, because the benchmarks read memory.
        let mut buffer = vec![0; length as usize];
        self.fill(offset, &mut buffer).map(|()| Bytes::from(buffer))
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

/// A peer's server of its own, ended when it is dropped.
pub(super) struct Server(Child);

impl Server {
    /// qemu-nbd on `image`; answers before the socket is there.
    pub(super) fn qemu(image: &Path, format: &str, socket: &Path) -> Result<Self> {
        Self::qemu_cached(image, format, socket, "writeback")
    }

    /// As [`Server::qemu`], with one of QEMU's ways to cache.
    pub(super) fn qemu_cached(
        image: &Path,
        format: &str,
        socket: &Path,
        cache: &str,
    ) -> Result<Self> {
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--format", format, "--export-name=peer"]);
        command.arg(format!("--cache={cache}"));
        command.arg("--socket").arg(socket).arg(image).stdin(Stdio::null());
        Ok(Self(command.spawn().context("start qemu-nbd")?))
    }

    /// nbdkit's file plugin on `image`, under the empty name.
    pub(super) fn nbdkit(image: &Path, socket: &Path) -> Result<Self> {
        let mut command = Command::new("nbdkit");
        command.arg("--foreground").arg("--unix").arg(socket).arg("file").arg(image);
        Ok(Self(command.stdin(Stdio::null()).spawn().context("start nbdkit")?))
    }

    /// Waits until somebody can connect.
    pub(super) fn wait(&mut self, socket: &Path) -> Result<()> {
        let began = Instant::now();
        while let Err(error) = UnixStream::connect(socket) {
            self.look(began).context(error)?;
        }
        Ok(())
    }

    /// Connects as soon as it answers.
    pub(super) async fn client(&mut self, socket: &Path) -> Result<Client> {
        let began = Instant::now();
        loop {
            match Client::connect_unix(socket, "peer").await {
                Ok(client) => return Ok(client),
                Err(error) => self.look(began).context(error)?,
            }
        }
    }

    /// Waits a moment, unless it has ended or taken too long.
    fn look(&mut self, began: Instant) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        if let Some(status) = self.0.try_wait().context("look at the peer's server")? {
            bail!("the peer's server ended with {status}");
        }
        if began.elapsed() > PATIENCE {
            bail!("the peer's server does not answer");
        }
        // Short against what is measured, and long enough to leave it the processor.
        std::thread::sleep(Duration::from_micros(200));
        Ok(())
    }
}

impl Drop for Server {
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
