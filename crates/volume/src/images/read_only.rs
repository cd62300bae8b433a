//! Images that are only looked at.

use super::{Images, is_qcow2};
use crate::body::ImageOwner;
use crate::images::qcow2::Qcow2Device;
use landfall_blockdev::{BlockDevice, DeviceError, FileDevice, OpenMode};
use landfall_types::DiskGeometry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The images that a retention volume names, opened for reading alone: for looking into a volume
/// without its master target. An image that is not there is no error before it is read: points that
/// lie whole in the journal can still be had, and everything can be listed.
#[derive(Clone, Debug, Default)]
pub struct ReadOnlyImages {
    /// Where the images are now, by their file names; none: where the volume says.
    pub folder: Option<PathBuf>,
}

impl ReadOnlyImages {
    fn place(&self, path: &str) -> PathBuf {
        match (&self.folder, Path::new(path).file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => PathBuf::from(path),
        }
    }
}

impl Images for ReadOnlyImages {
    fn open(&self, path: &str, _: ImageOwner) -> Result<Arc<dyn BlockDevice>, DeviceError> {
        let place = self.place(path);
        let found: Result<Arc<dyn BlockDevice>, DeviceError> = if is_qcow2(&place) {
            Qcow2Device::open(&place, OpenMode::ReadOnly).map(|image| Arc::new(image) as _)
        } else {
            FileDevice::open(&place, OpenMode::ReadOnly).map(|image| Arc::new(image) as _)
        };
        Ok(found.unwrap_or_else(|_| Arc::new(Missing { target: place.display().to_string() })))
    }

    fn create(&self, path: &str, _: DiskGeometry) -> Result<(), DeviceError> {
        refused(path)
    }

    fn grow(&self, path: &str, _: u64) -> Result<(), DeviceError> {
        refused(path)
    }

    fn remove(&self, path: &str) -> Result<(), DeviceError> {
        refused(path)
    }
}

fn refused(path: &str) -> Result<(), DeviceError> {
    Err(DeviceError::ReadOnly { target: path.to_owned() })
}

/// An image that can't be had; large enough for any disk, so that the reading says what is wrong.
#[derive(Debug)]
struct Missing {
    target: String,
}

impl Missing {
    fn error(&self) -> DeviceError {
        DeviceError::NotFound { target: self.target.clone() }
    }
}

impl BlockDevice for Missing {
    fn size(&self) -> u64 {
        u64::MAX
    }
    fn sector_bytes(&self) -> u32 {
        512
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), DeviceError> {
        Err(self.error())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), DeviceError> {
        Err(self.error())
    }
    fn zero(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Err(self.error())
    }
    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Err(self.error())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Err(self.error())
    }
}
