//! Making and removing replicas, and looking at disks that are to become images.

use super::Outcome;
use crate::blocking::blocking;
use crate::errors;
use crate::export_name::export_name;
use crate::hosted::Hosted;
use crate::reverse::ReverseSpec;
use crate::target::Target;
use landfall_api_types::order::{InspectedDisk, MtCreate, OrderOutcome};
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::{BlockDevice, DeviceError, FileDevice, OpenMode};
use landfall_crypt::{KeyError, KeySource};
use landfall_types::{DiskGeometry, Lsn, ReplicaId};
use landfall_volume::{ImageOwner, OldContent, ReplicaConfig, ReplicaDisk, Role};
use std::path::PathBuf;
use std::sync::Arc;

impl Target {
    pub(super) async fn inspect(self: &Arc<Self>, disks: Vec<String>) -> Outcome {
        let mut taken: Vec<(PathBuf, String)> = Vec::new();
        for hosted in self.all() {
            let Ok(status) = hosted.replica.status() else { continue };
            let held = status.disks.into_iter().filter(|_| status.role != Role::Released);
            taken.extend(held.map(|disk| (real(&disk.image), status.machine_name.clone())));
        }
        let look = move |path: String| {
            let machine = taken.iter().find(|(image, _)| *image == real(&path));
            let disk = match machine {
                Some((_, machine)) => {
                    let cause = format!("{path} is an image of machine {machine:?}");
                    Err(ApiError::new(&codes::DISK_TAKEN, cause))
                }
                None => geometry(&path),
            };
            InspectedDisk { path, disk }
        };
        let disks = blocking(move || disks.into_iter().map(look).collect()).await;
        Ok(OrderOutcome::Inspected { disks })
    }

    pub(super) async fn create(self: &Arc<Self>, create: MtCreate) -> Outcome {
        let _making = self.making.lock().await;
        if let Some(hosted) = self.find(create.replica) {
            let status = hosted.replica.status().map_err(|error| errors::storage(&error))?;
            if status.machine == create.machine && create.lineage.is_prefix_of(&status.lineage) {
                return Ok(OrderOutcome::Done);
            }
            let cause = format!("replica {} is here with another history", create.replica);
            return Err(ApiError::new(&codes::NAME_TAKEN, cause));
        }
        let key = self.key(&create)?;
        let config = self.config(create)?;
        let target = Arc::clone(self);
        let made = blocking(move || target.vault.create_encrypted(config, key.as_ref())).await;
        let replica = made.map_err(|error| errors::storage(&error))?;
        self.insert(Arc::new(Hosted::new(replica)));
        Ok(OrderOutcome::Done)
    }

    /// The key that a replica is to be encrypted with. An image that someone else has made would
    /// not be: then there is no replica rather than one that is encrypted in part. Disks that come
    /// home are the machine's own, and only what lies beside them is encrypted.
    fn key(&self, create: &MtCreate) -> Result<Option<KeySource>, ApiError> {
        let bad = |error: KeyError| ApiError::new(&codes::BAD_REQUEST, errors::chain(&error));
        let named = create.encrypt.as_deref().map(KeySource::parse).transpose().map_err(bad)?;
        let key = named.or_else(|| self.options.encrypt.clone());
        let foreign = create.images.iter().flatten().next();
        match (&key, foreign) {
            (Some(_), Some(image)) if create.base == Lsn::ZERO => {
                let cause = format!("{image} would not be encrypted");
                let error = ApiError::new(&codes::NOT_SUPPORTED, cause);
                Err(error.cure("let the master target make the images, or leave encryption out"))
            }
            _ => Ok(key),
        }
    }

    fn config(&self, create: MtCreate) -> Result<ReplicaConfig, ApiError> {
        if create.images.len() != create.disks.len() {
            let cause = format!("{} images for {} disks", create.images.len(), create.disks.len());
            return Err(ApiError::new(&codes::BAD_REQUEST, cause));
        }
        let disk = |(disk, image): (landfall_api_types::resource::Disk, Option<String>)| {
            let (image, owner) = match image {
                Some(path) => (path, ImageOwner::Foreign),
                None => (self.own_image(create.replica, disk.index.0), ImageOwner::Ours),
            };
            ReplicaDisk { index: disk.index, id: disk.id, geometry: disk.geometry, image, owner }
        };
        // Without a position before it, it is a first copy: what the disks hold is to be
        // overwritten. With one they are disks that come home, and may hold the only copy of
        // something (trap T-15).
        let first_copy = create.base == Lsn::ZERO;
        Ok(ReplicaConfig {
            replica: create.replica,
            machine: create.machine,
            machine_name: create.machine_name,
            instance: create.instance,
            disks: create.disks.into_iter().zip(create.images).map(disk).collect(),
            lineage: create.lineage,
            base: create.base,
            base_chain: create.base_chain,
            old_content: if first_copy { OldContent::Expendable } else { OldContent::Kept },
            retention: create.retention,
            segment_bytes: self.options.segment_bytes,
            encryption: None,
        })
    }

    fn own_image(&self, replica: ReplicaId, disk: u16) -> String {
        let folder = self.options.state_dir.join("images");
        folder.join(format!("{replica}-{disk}.img")).to_string_lossy().into_owned()
    }

    pub(super) async fn remove(self: &Arc<Self>, replica: ReplicaId, images: bool) -> Outcome {
        let _making = self.making.lock().await;
        let mut own_images = Vec::new();
        if let Some(hosted) = self.take(replica) {
            if let Some(reverse) = hosted.reverse.lock().await.take() {
                reverse.stop().await;
            }
            // Sessions and exports that still hold it are ended before its files go.
            crate::hosted::lock(&hosted.sessions).newest += 1;
            if let Ok(status) = hosted.replica.status() {
                let names: Vec<String> = status
                    .disks
                    .iter()
                    .map(|disk| export_name(&status.machine_name, disk.index, ""))
                    .collect();
                self.nbd()
                    .disconnect_matching(|name| names.iter().any(|start| name.starts_with(start)))
                    .await;
                let own = status.disks.iter().filter(|disk| disk.owner == ImageOwner::Ours);
                own_images.extend(own.map(|disk| disk.image.clone()));
            }
        }
        ReverseSpec::remove(&self.reverse_folder(), replica).await;
        let target = Arc::clone(self);
        let removed = blocking(move || {
            target.vault.remove(replica)?;
            // Behind the replica: one that names images which are gone could not be opened.
            for image in own_images.iter().filter(|_| images) {
                target.vault.remove_image(image)?;
            }
            Ok(())
        });
        removed.await.map_err(|error: landfall_volume::StorageError| errors::storage(&error))?;
        Ok(OrderOutcome::Done)
    }
}

fn real(path: &str) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path))
}

/// Opens the disk as it would be opened as an image, and lets it go.
fn geometry(path: &str) -> Result<DiskGeometry, ApiError> {
    let unusable = |error: DeviceError| {
        ApiError::new(&codes::DISK_UNUSABLE, errors::chain(&error)).detail("path", path)
    };
    let device = FileDevice::open(path, OpenMode::Exclusive).map_err(unusable)?;
    Ok(DiskGeometry { size_bytes: device.size(), sector_bytes: device.sector_bytes() })
}
