use crate::{BlockDevice, DeviceError, Dir, File, range_check};
use std::sync::Arc;

/// A disk in a file of a [`Dir`]: the image of a replica, on a real or a simulated medium alike.
#[derive(Debug)]
pub struct DiskFile {
    file: Arc<dyn File>,
    name: String,
    size: u64,
    sector_bytes: u32,
}

impl DiskFile {
    /// A new file of `size` bytes, all zeroes and sparse where possible. Its name is durable after
    /// [`Dir::sync`].
    ///
    /// # Errors
    /// [`DeviceError::Exists`] and others.
    pub fn create(
        dir: &dyn Dir,
        name: &str,
        size: u64,
        sector_bytes: u32,
    ) -> Result<Self, DeviceError> {
        let file = dir.create(name)?;
        file.set_len(size)?;
        file.sync_data()?;
        Ok(Self { file, name: name.to_owned(), size, sector_bytes })
    }

    /// An existing file; its length is the disk's size.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others.
    pub fn open(dir: &dyn Dir, name: &str, sector_bytes: u32) -> Result<Self, DeviceError> {
        let file = dir.open(name)?;
        let size = file.len()?;
        Ok(Self { file, name: name.to_owned(), size, sector_bytes })
    }
}

impl BlockDevice for DiskFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        range_check(&self.name, self.size, offset, buf.len() as u64)?;
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        range_check(&self.name, self.size, offset, data.len() as u64)?;
        self.file.write_at(offset, data)
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        range_check(&self.name, self.size, offset, length)?;
        if length == 0 {
            return Ok(());
        }
        self.file.punch(offset, length)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.zero(offset, length)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.file.sync_data()
    }
}
