//! Where images come from: real files and devices, or simulated ones in tests.

mod qcow2;
mod read_only;
mod sealed;

pub use qcow2::{Qcow2Device, Qcow2Space};
pub use read_only::ReadOnlyImages;
pub(crate) use sealed::{SealedImage, raw_bytes};

use crate::body::ImageOwner;
use landfall_blockdev::{BlockDevice, DeviceError, FileDevice, OpenMode};
use landfall_types::DiskGeometry;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Opens and makes images.
pub trait Images: Send + Sync + fmt::Debug {
    /// Opens an image for reading and writing; one that is [`ImageOwner::Foreign`] exclusively
    /// (trap T-15).
    ///
    /// # Errors
    /// [`DeviceError`].
    fn open(&self, path: &str, owner: ImageOwner) -> Result<Arc<dyn BlockDevice>, DeviceError>;
    /// Makes an image of our own that reads as zeroes; one that is there is replaced.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn create(&self, path: &str, geometry: DiskGeometry) -> Result<(), DeviceError>;
    /// Makes an image of our own longer; the new bytes read as zeroes.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn grow(&self, path: &str, size_bytes: u64) -> Result<(), DeviceError>;
    /// Removes an image of our own; one that is gone is no error.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn remove(&self, path: &str) -> Result<(), DeviceError>;
}

/// True for the name of a qcow2 file: `….qcow2`.
pub(crate) fn is_qcow2(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "qcow2")
}

/// Raw files, qcow2 files (by their name, `….qcow2`) and block devices of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsImages;

impl Images for FsImages {
    fn open(&self, path: &str, owner: ImageOwner) -> Result<Arc<dyn BlockDevice>, DeviceError> {
        let mode = match owner {
            ImageOwner::Ours => OpenMode::ReadWrite,
            ImageOwner::Foreign => OpenMode::Exclusive,
        };
        let path = Path::new(path);
        if is_qcow2(path) {
            return Ok(Arc::new(Qcow2Device::open(path, mode)?));
        }
        Ok(Arc::new(FileDevice::open(path, mode)?))
    }

    fn create(&self, path: &str, geometry: DiskGeometry) -> Result<(), DeviceError> {
        let done = || {
            if let Some(folder) = Path::new(path).parent() {
                std::fs::create_dir_all(folder)?;
            }
            if is_qcow2(Path::new(path)) {
                let made =
                    Qcow2Device::create(Path::new(path), geometry.size_bytes, Qcow2Space::Mapped);
                made.map_err(std::io::Error::other)?;
            } else {
                let file = std::fs::File::create(path)?;
                file.set_len(geometry.size_bytes)?;
                file.sync_all()?;
            }
            if let Some(folder) = Path::new(path).parent() {
                std::fs::File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        done().map_err(|error| DeviceError::from_io(landfall_blockdev::Action::Create, path, error))
    }

    fn grow(&self, path: &str, size_bytes: u64) -> Result<(), DeviceError> {
        let done = || {
            if is_qcow2(Path::new(path)) {
                // Its tables would have to grow in a way that a power cut can tear.
                return Err(std::io::ErrorKind::Unsupported.into());
            }
            let file = std::fs::File::options().write(true).open(path)?;
            if file.metadata()?.len() < size_bytes {
                file.set_len(size_bytes)?;
                file.sync_all()?;
            }
            Ok(())
        };
        done().map_err(|error| DeviceError::from_io(landfall_blockdev::Action::Resize, path, error))
    }

    fn remove(&self, path: &str) -> Result<(), DeviceError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DeviceError::from_io(landfall_blockdev::Action::Remove, path, error))
            }
            _ => Ok(()),
        }
    }
}
