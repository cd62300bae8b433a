//! Encryption of a replica: its data key, and which of its images are sealed.

use super::Replica;
use crate::body::{Body, ImageOwner, ReplicaDisk};
use crate::error::StorageError;
use crate::images::{Images, SealedImage, is_qcow2, raw_bytes};
use crate::store::{Found, Store};
use crate::sync::lock;
use landfall_blockdev::{BlockDevice, Dir, KeyedDir};
use landfall_crypt::{DataKey, Envelope, KeySource};
use landfall_types::{DiskGeometry, DiskIndex, ReplicaId};
use std::path::Path;
use std::sync::Arc;

/// What a replica's data key is wrapped for: the envelope of one opens no other one.
pub(crate) fn key_context(replica: ReplicaId) -> String {
    format!("replica-{replica}")
}

/// The directory with the data key, where the superblock says that there is one.
pub(super) fn unlock(dir: Arc<dyn Dir>, body: &Body) -> Result<Arc<dyn Dir>, StorageError> {
    match &body.encryption {
        Some(envelope) if dir.data_key().is_none() => {
            Ok(KeyedDir::over(dir, envelope.open(&key_context(body.replica))?))
        }
        _ => Ok(dir),
    }
}

/// Images of our own are sealed; disks of someone else are what they are.
pub(super) fn is_sealed(dir: &dyn Dir, disk: &ReplicaDisk) -> bool {
    disk.owner == ImageOwner::Ours && dir.data_key().is_some()
}

/// Makes an image of our own.
pub(super) fn create_image(
    dir: &dyn Dir,
    images: &dyn Images,
    disk: &ReplicaDisk,
) -> Result<(), StorageError> {
    let device = || StorageError::device("create image");
    let Some(key) = dir.data_key() else {
        return images.create(&disk.image, disk.geometry).map_err(device());
    };
    if is_qcow2(Path::new(&disk.image)) {
        return Err(StorageError::NotSealable { image: disk.image.clone() });
    }
    let size_bytes = raw_bytes(disk.geometry.size_bytes);
    images.create(&disk.image, DiskGeometry { size_bytes, ..disk.geometry }).map_err(device())?;
    SealedImage::create(dir, &key, disk.index.0, disk.geometry.size_bytes).map_err(device())
}

/// The data key of the replica whose directory this is, with the key that its envelope names, or
/// with another one; `None` where the replica is not encrypted.
///
/// # Errors
/// [`StorageError::Key`], [`StorageError`] of its superblock.
pub fn replica_key(
    dir: &dyn Dir,
    key: Option<&KeySource>,
) -> Result<Option<DataKey>, StorageError> {
    let Found::Replica(store) = Store::open(dir)? else { return Ok(None) };
    let body = store.body()?;
    let Some(envelope) = &body.encryption else { return Ok(None) };
    let context = key_context(body.replica);
    Ok(Some(match key {
        Some(key) => envelope.open_with(key, &context)?,
        None => envelope.open(&context)?,
    }))
}

/// An image as its replica reads it: opened where it is sealed. For whoever looks at one beside the
/// replica; not while that is open, which keeps what is not flushed in memory.
///
/// # Errors
/// [`StorageError`].
pub fn open_image(
    dir: &dyn Dir,
    images: &dyn Images,
    disk: &ReplicaDisk,
) -> Result<Arc<dyn BlockDevice>, StorageError> {
    if let Some(image) = open_sealed(dir, images, disk)? {
        return Ok(image);
    }
    images.open(&disk.image, disk.owner).map_err(StorageError::device("open image"))
}

/// Opens an image that is sealed; `None` for one that is not.
pub(super) fn open_sealed(
    dir: &dyn Dir,
    images: &dyn Images,
    disk: &ReplicaDisk,
) -> Result<Option<Arc<SealedImage>>, StorageError> {
    let device = || StorageError::device("open image");
    let Some(key) = dir.data_key().filter(|_| is_sealed(dir, disk)) else { return Ok(None) };
    let raw = images.open(&disk.image, disk.owner).map_err(device())?;
    let image = SealedImage::open(dir, &key, disk.index.0, raw, &disk.image).map_err(device())?;
    Ok(Some(Arc::new(image)))
}

impl Replica {
    /// Lets an image of our own follow its disk if it is sealed; false if it is not.
    pub(super) fn grow_sealed(&self, disk: &ReplicaDisk, size: u64) -> Result<bool, StorageError> {
        let image = lock(&self.sealed_images).get(&disk.index).cloned();
        let Some(image) = image else { return Ok(false) };
        let device = || StorageError::device("grow image");
        self.images.grow(&disk.image, raw_bytes(size)).map_err(device())?;
        let raw = self.images.open(&disk.image, disk.owner).map_err(device())?;
        image.grow(raw, size).map_err(device())?;
        Ok(true)
    }

    /// A disk whose image can't be handed over, because only Landfall can read it.
    pub(super) fn sealed_disk(&self, body: &Body) -> Option<DiskIndex> {
        body.disks.iter().find(|disk| is_sealed(&*self.dir, disk)).map(|disk| disk.index)
    }

    /// Wraps the data key with another key-encryption key, durably. Nothing else is written: what
    /// was sealed stays as it is.
    ///
    /// # Errors
    /// [`StorageError::NotEncrypted`], [`StorageError::Key`], storage errors.
    pub fn rekey(&self, from: Option<&KeySource>, to: &KeySource) -> Result<(), StorageError> {
        let mut core = lock(&self.core);
        let body = core.store.body()?.clone();
        let envelope = body.encryption.as_ref().ok_or(StorageError::NotEncrypted)?;
        let envelope = rewrapped(envelope, from, to, body.replica)?;
        core.store.write(Body { encryption: Some(envelope), ..body })
    }
}

/// The same data key under another key-encryption key; `from`: where the old one is not where the
/// envelope says.
pub(crate) fn rewrapped(
    envelope: &Envelope,
    from: Option<&KeySource>,
    to: &KeySource,
    replica: ReplicaId,
) -> Result<Envelope, StorageError> {
    let named = KeySource::parse(&envelope.key)?;
    Ok(envelope.rewrap(from.unwrap_or(&named), to, &key_context(replica))?)
}
