use crate::raw::{Cache, RawFile};
use crate::{Action, BlockDevice, DeviceError, range_check};
use rustix::fs::{FlockOperation, OFlags, flock, ioctl_blksszget};
use rustix::io::Errno;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Sector size of a disk in a raw file, where nothing says otherwise.
const FILE_SECTOR_BYTES: u32 = 512;

/// How a disk is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading, beside whoever has it.
    ReadOnly,
    /// For reading and writing, beside whoever has it.
    ReadWrite,
    /// For reading and writing, and by nobody else: a block device that is mounted, part of a stack
    /// or opened exclusively is refused (`O_EXCL`); for a raw file an advisory lock does what can
    /// be done (`flock`).
    Exclusive,
}

/// A disk in a raw file, or a block device of this machine.
#[derive(Debug)]
pub struct FileDevice {
    raw: RawFile,
    size: u64,
    sector_bytes: u32,
}

impl FileDevice {
    /// Opens a raw file or a block device; its size is asked once, here.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`], [`DeviceError::Busy`] (see [`OpenMode::Exclusive`]),
    /// [`DeviceError::NotADisk`] and others.
    pub fn open(path: impl AsRef<Path>, mode: OpenMode) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let target = path.display().to_string();
        let fail = |action| {
            let target = target.clone();
            move |error: std::io::Error| DeviceError::from_io(action, &target, error)
        };
        let kind = std::fs::metadata(path).map_err(fail(Action::Open))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DeviceError::NotADisk { target });
        }
        let writable = mode != OpenMode::ReadOnly;
        // Without O_CREAT, O_EXCL means "claim" for a block device, and nothing defined for a file.
        let claim = mode == OpenMode::Exclusive && kind.is_block_device();
        let flags = if claim { OFlags::EXCL } else { OFlags::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(writable);
        let raw = RawFile::open(path, &options, flags, writable, Cache::BypassWrites)
            .map_err(fail(Action::Open))?;
        if mode == OpenMode::Exclusive && kind.is_file() {
            match flock(raw.os(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(DeviceError::Busy { target }),
                Err(error) => return Err(fail(Action::Open)(error.into())),
            }
        }
        // Seeking to the end gives the size of both; a block device's metadata says 0.
        let size = raw.os().seek(SeekFrom::End(0)).map_err(fail(Action::Query))?;
        let sector_bytes = if kind.is_block_device() {
            ioctl_blksszget(raw.os()).map_err(|error| fail(Action::Query)(error.into()))?
        } else {
            FILE_SECTOR_BYTES
        };
        Ok(Self { raw, size, sector_bytes })
    }

    /// Makes a sparse raw file of `size` bytes and opens it exclusively. Its name is durable after
    /// the directory was synced.
    ///
    /// # Errors
    /// [`DeviceError::Exists`] and others.
    pub fn create(path: impl AsRef<Path>, size: u64) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let fail = |error| DeviceError::from_io(Action::Create, &path.display().to_string(), error);
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(fail)?;
        file.set_len(size).and_then(|()| file.sync_all()).map_err(fail)?;
        Self::open(path, OpenMode::Exclusive)
    }
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        range_check(self.raw.target(), self.size, offset, buf.len() as u64)?;
        self.raw.read_at(offset, buf).map_err(self.raw.fail(Action::Read))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        range_check(self.raw.target(), self.size, offset, data.len() as u64)?;
        self.raw.write_pages_at(offset, data)
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        range_check(self.raw.target(), self.size, offset, length)?;
        // A raw file stays as thin as its disk, and so does a thin volume: for a block device the
        // kernel makes a hole only where the device promises that it reads as zeroes, and refuses
        // else (trap T-23); then zeroes are written.
        self.raw.zero(offset, length)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        range_check(self.raw.target(), self.size, offset, length)?;
        self.raw.discard(offset, length)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.raw.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn zeroing_a_raw_file_gives_its_space_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("image");
        let device = FileDevice::create(&path, 1 << 40).expect("a thin image");
        device.write_at(1 << 20, &[7; 1 << 20]).expect("written");
        device.flush().expect("flushed");
        // 1 TiB of zeroes must not need 1 TiB of the volume.
        device.zero(0, 1 << 40).expect("zeroed");
        device.flush().expect("flushed");
        let mut buf = [1; 4096];
        device.read_at(1 << 20, &mut buf).expect("read");
        assert_eq!(buf, [0; 4096]);
        let allocated = std::fs::metadata(&path).expect("is there").blocks() * 512;
        assert!(allocated < 1 << 20, "{allocated} bytes are allocated");
    }
}
