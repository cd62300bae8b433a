//! The disks over NBD: views and branches by name, see `export_name.rs`.

use crate::blocking::blocking;
use crate::export_name::{ExportName, LATEST, What, export_name};
use crate::hosted::Hosted;
use crate::target::Target;
use async_trait::async_trait;
use bytes::Bytes;
use landfall_nbd::{
    Access, Change, Content, Export, ExportError, Exports, Extent, Server, ServerOptions, Ticket,
};
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, Lsn};
use landfall_volume::{Branch, ContentError, View};
use std::sync::{Arc, Weak};

/// The exports of a target.
pub struct TargetExports(Weak<Target>);

impl TargetExports {
    /// Of this target; held weakly, because the target holds the server that holds these.
    #[must_use]
    pub fn new(target: &Arc<Target>) -> Self {
        Self(Arc::downgrade(target))
    }

    fn find(&self, machine: &str) -> Vec<Arc<Hosted>> {
        let Some(target) = self.0.upgrade() else { return vec![] };
        let of_machine = |hosted: &Arc<Hosted>| {
            hosted.replica.status().is_ok_and(|status| status.machine_name == machine)
        };
        target.all().into_iter().filter(of_machine).collect()
    }
}

pub(crate) fn server(target: &Arc<Target>, options: ServerOptions) -> Server {
    Server::new(Arc::new(TargetExports::new(target)), options)
}

#[async_trait]
impl Exports for TargetExports {
    async fn list(&self) -> Vec<String> {
        let Some(target) = self.0.upgrade() else { return vec![] };
        let mut names = Vec::new();
        for hosted in target.all() {
            let Ok(status) = hosted.replica.status() else { continue };
            let mut kinds: Vec<String> =
                status.newest_legal.map(|_| LATEST.to_owned()).into_iter().collect();
            let branches = hosted.replica.branches();
            let open = branches.iter().filter(|branch| !branch.revoked());
            kinds.extend(open.map(|branch| branch.entry().name.clone()));
            for disk in &status.disks {
                names.extend(
                    kinds.iter().map(|kind| export_name(&status.machine_name, disk.index, kind)),
                );
            }
        }
        names
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Export>, ExportError> {
        let unknown = || ExportError::Unknown(name.to_owned());
        let asked = ExportName::parse(name).ok_or_else(unknown)?;
        let mut refusal = unknown();
        for hosted in self.find(&asked.machine) {
            let store = match &asked.what {
                What::Branch(branch) => hosted.replica.branch(branch).map(Store::Branch),
                What::View(point) => {
                    let point = point.clone();
                    match hosted.with(move |replica| replica.view(&point)).await {
                        Ok(view) => Some(Store::View(view)),
                        Err(error) => {
                            let (name, why) = (name.to_owned(), Box::new(error));
                            refusal = ExportError::Absent { name, why };
                            None
                        }
                    }
                }
            };
            let disk = asked.disk;
            let geometry = store.as_ref().and_then(|store| store.geometry(disk));
            if let (Some(store), Some(geometry)) = (store, geometry) {
                let fixed = asked.what.is_fixed();
                return Ok(Arc::new(DiskExport { store, disk, geometry, fixed }));
            }
        }
        Err(refusal)
    }
}

#[derive(Clone)]
enum Store {
    View(View),
    Branch(Arc<Branch>),
}

impl Store {
    fn geometry(&self, disk: DiskIndex) -> Option<DiskGeometry> {
        match self {
            Self::View(view) => view.geometry(disk),
            Self::Branch(branch) => branch.geometry(disk),
        }
    }

    fn read(&self, disk: DiskIndex, offset: u64, out: &mut [u8]) -> Result<(), ContentError> {
        match self {
            Self::View(view) => view.read(disk, offset, out),
            Self::Branch(branch) => branch.read(disk, offset, out),
        }
    }

    fn zeroes(&self, disk: DiskIndex, range: ByteRange) -> Vec<(ByteRange, bool)> {
        match self {
            Self::View(view) => view.zeroes(disk, range),
            Self::Branch(branch) => branch.zeroes(disk, range),
        }
    }
}

/// Reads from this size on are looked at for holes first.
const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// One disk of a view or branch.
struct DiskExport {
    store: Store,
    disk: DiskIndex,
    geometry: DiskGeometry,
    /// The name leads to this content for ever.
    fixed: bool,
}

impl DiskExport {
    fn branch(&self) -> Result<Arc<Branch>, ExportError> {
        match &self.store {
            Store::Branch(branch) => Ok(Arc::clone(branch)),
            Store::View(_) => Err(ExportError::ReadOnly),
        }
    }

    /// True when a range lies within the disk and reads as zeroes.
    fn is_zero(&self, range: ByteRange) -> bool {
        let inside = range.end <= self.geometry.size_bytes;
        let known = if inside { self.store.zeroes(self.disk, range) } else { vec![] };
        !known.is_empty() && known.iter().all(|(_, zero)| *zero)
    }

    async fn change(
        &self,
        work: impl FnOnce(&Branch, DiskIndex) -> Result<(), ContentError> + Send + 'static,
    ) -> Result<(), ExportError> {
        let (branch, disk) = (self.branch()?, self.disk);
        blocking(move || work(&branch, disk)).await.map_err(export_error)
    }
}

#[async_trait]
impl Export for DiskExport {
    fn size(&self) -> u64 {
        self.geometry.size_bytes
    }
    fn block_bytes(&self) -> u32 {
        self.geometry.sector_bytes
    }
    fn access(&self) -> Access {
        match self.store {
            Store::View(_) => Access::ReadOnly,
            Store::Branch(_) => Access::ReadWrite,
        }
    }
    fn multi_conn(&self) -> bool {
        // A branch is one object for all its connections.
        self.fixed || matches!(self.store, Store::Branch(_))
    }
    fn revoked(&self) -> bool {
        match &self.store {
            Store::View(_) => false,
            Store::Branch(branch) => branch.revoked(),
        }
    }

    fn read_here(&self, offset: u64, out: &mut [u8]) -> Option<Result<Content, ExportError>> {
        // Large reads of nothing are what copies of sparse disks consist of; small ones would pay
        // for a second look into the index.
        let range = ByteRange::at(offset, out.len() as u64);
        let large = range.filter(|range| range.len() >= HOLE_BYTES_MIN);
        if large.is_some_and(|range| self.is_zero(range)) {
            return Some(Ok(Content::Zeroes));
        }
        let read = self.store.read(self.disk, offset, out);
        Some(read.map(|()| Content::Data).map_err(export_error))
    }

    fn change_here(&self, change: &Change) -> Option<Result<Ticket, ExportError>> {
        let Store::Branch(branch) = &self.store else { return Some(Err(ExportError::ReadOnly)) };
        let taken = match change {
            Change::Write { offset, data } => branch.take_write(self.disk, *offset, data),
            Change::Zero { offset, length } => branch.take_zero(self.disk, *offset, *length),
            Change::Trim { offset, length } => branch.take_discard(self.disk, *offset, *length),
        };
        Some(taken.map(|lsn| Ticket(lsn.get())).map_err(export_error))
    }

    async fn settle(&self, ticket: Ticket) -> Result<(), ExportError> {
        self.change(move |branch, _| branch.wait_durable(Lsn::new(ticket.0))).await
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        let (store, disk) = (self.store.clone(), self.disk);
        let read = move || {
            let mut bytes = vec![0; usize::try_from(length).expect("a u32 fits into memory")];
            store.read(disk, offset, &mut bytes).map(|()| Bytes::from(bytes))
        };
        blocking(read).await.map_err(export_error)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ExportError> {
        self.change(move |branch, disk| branch.write(disk, offset, &data)).await
    }
    async fn zero(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.change(move |branch, disk| branch.zero(disk, offset, length)).await
    }
    async fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.change(move |branch, disk| branch.discard(disk, offset, length)).await
    }

    async fn flush(&self) -> Result<(), ExportError> {
        // Every write was durable when it was answered; what this adds is a sign of a log that has
        // failed since.
        match &self.store {
            Store::View(_) => Ok(()),
            Store::Branch(_) => self.change(|branch, _| branch.flush().map(drop)).await,
        }
    }

    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        let size = self.geometry.size_bytes;
        let range = ByteRange::at(offset, length).filter(|range| range.end <= size);
        let range = range.ok_or(ExportError::OutOfRange { offset, length, size })?;
        let (store, disk) = (self.store.clone(), self.disk);
        let zeroes = blocking(move || store.zeroes(disk, range)).await;
        Ok(zeroes.into_iter().map(|(piece, hole)| Extent { length: piece.len(), hole }).collect())
    }
}

fn export_error(error: ContentError) -> ExportError {
    match error {
        ContentError::Revoked => ExportError::Revoked,
        ContentError::OutOfRange { offset, length, size } => {
            ExportError::OutOfRange { offset, length, size }
        }
        ContentError::Storage(source) if source.is_full() => ExportError::NoSpace,
        other => {
            tracing::error!(error = crate::errors::chain(&other), "a disk could not be served");
            ExportError::Io(Box::new(other))
        }
    }
}
