//! The disks over NBD: `<machine>/<disk>@latest`, `@<lsn>` (views) and `@<branch>` (branches).

use crate::blocking::blocking;
use crate::hosted::Hosted;
use crate::target::Target;
use async_trait::async_trait;
use bytes::Bytes;
use landfall_nbd::{Access, Export, ExportError, Exports, Extent, Server, ServerOptions};
use landfall_types::{ByteRange, DiskGeometry, DiskIndex, Lsn};
use landfall_volume::{Branch, ContentError, PointSelector, View};
use std::sync::{Arc, Weak};

/// Names a view of the newest recovery point.
pub(crate) const LATEST: &str = "latest";

/// The name of an export.
pub(crate) fn export_name(machine: &str, disk: DiskIndex, what: &str) -> String {
    format!("{machine}/{disk}@{what}")
}

/// True when a branch can have this name: it must not be taken for a position.
pub(crate) fn branch_name_fits(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let length = (1..=64).contains(&name.len());
    length && name.bytes().all(plain) && name != LATEST && name.parse::<Lsn>().is_err()
}

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
        let (disk, what) = name.rsplit_once('@').ok_or_else(unknown)?;
        let (machine, disk) = disk.rsplit_once('/').ok_or_else(unknown)?;
        let disk = DiskIndex(disk.parse().map_err(|_| unknown())?);
        for hosted in self.find(machine) {
            if let Some(branch) = hosted.replica.branch(what) {
                let geometry = branch.geometry(disk).ok_or_else(unknown)?;
                let store = Store::Branch(branch);
                return Ok(Arc::new(DiskExport { store, disk, geometry }));
            }
            let point = match what {
                LATEST => PointSelector::Newest,
                lsn => PointSelector::Lsn(lsn.parse().map_err(|_| unknown())?),
            };
            let Ok(view) = hosted.with(move |replica| replica.view(&point)).await else { continue };
            let geometry = view.geometry(disk).ok_or_else(unknown)?;
            return Ok(Arc::new(DiskExport { store: Store::View(view), disk, geometry }));
        }
        Err(unknown())
    }
}

#[derive(Clone)]
enum Store {
    View(View),
    Branch(Arc<Branch>),
}

/// One disk of a view or branch.
struct DiskExport {
    store: Store,
    disk: DiskIndex,
    geometry: DiskGeometry,
}

impl DiskExport {
    fn branch(&self) -> Result<Arc<Branch>, ExportError> {
        match &self.store {
            Store::Branch(branch) => Ok(Arc::clone(branch)),
            Store::View(_) => Err(ExportError::ReadOnly),
        }
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
    fn revoked(&self) -> bool {
        match &self.store {
            Store::View(_) => false,
            Store::Branch(branch) => branch.revoked(),
        }
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        let (store, disk) = (self.store.clone(), self.disk);
        let read = move || {
            let mut bytes = vec![0; usize::try_from(length).expect("a u32 fits into memory")];
            match store {
                Store::View(view) => view.read(disk, offset, &mut bytes),
                Store::Branch(branch) => branch.read(disk, offset, &mut bytes),
            }
            .map(|()| Bytes::from(bytes))
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
        let zeroes = match &self.store {
            Store::View(view) => view.zeroes(self.disk, range),
            Store::Branch(branch) => branch.zeroes(self.disk, range),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_never_taken_for_a_position() {
        for name in ["epoch-2", "test-1", "a.b_c"] {
            assert!(branch_name_fits(name), "{name}");
        }
        for name in ["", "latest", "17", "a b", "a@b", "a/b", &"x".repeat(65)] {
            assert!(!branch_name_fits(name), "{name}");
        }
    }
}
