//! Disks in qcow2 files, through the crate `imago`. Why, and what it does not do by itself:
//! `docs/decisions/0012-qcow2-through-imago.md`.

use imago::file::File;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder as _, FormatDriverBuilder as _,
    Storage as _, StorageCreateOptions, StorageOpenOptions,
};
use landfall_blockdev::{Action, BlockDevice, DeviceError, OpenMode};
use std::fs::{File as OsFile, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Logical sectors: the format says nothing about them.
const SECTOR_BYTES: u32 = 512;

/// Where the disk's blocks get their place in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Qcow2Space {
    /// All at once, when the file is made (the data stay holes of the file system): a write never
    /// changes the file's own tables, so that a power cut can't tear them. For images.
    Mapped,
    /// When they are written: the file is small wherever it is copied to. For exports, which are
    /// made in one go and made again when they were cut off.
    Thin,
}

/// A disk in a qcow2 file of its own: no backing file, no snapshots, no encryption.
#[derive(Debug)]
pub struct Qcow2Device {
    access: FormatAccess<File>,
    target: String,
    writable: bool,
    poisoned: AtomicBool,
    /// Held open for its lock (`flock`).
    _claim: OsFile,
}

impl Qcow2Device {
    /// Makes a file whose disk reads as zeroes; one that is there is replaced. Its name is durable
    /// after the directory was synced.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn create(path: &Path, size_bytes: u64, space: Qcow2Space) -> Result<(), DeviceError> {
        let target = path.display().to_string();
        let made = || {
            let options = StorageCreateOptions::new().filename(path).size(0).overwrite(true);
            let file = File::create_open(options)?;
            let mode = match space {
                Qcow2Space::Mapped => PreallocateMode::FormatAllocate,
                Qcow2Space::Thin => PreallocateMode::None,
            };
            Qcow2::<File>::create_builder(file).size(size_bytes).preallocate(mode).create()?;
            OsFile::open(path)?.sync_all()
        };
        made().map_err(|error| DeviceError::from_io(Action::Create, &target, error))
    }

    /// Opens a file that depends on no other.
    ///
    /// # Errors
    /// [`DeviceError::Busy`] for [`OpenMode::Exclusive`] when someone holds it so,
    /// [`DeviceError`] otherwise.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self, DeviceError> {
        let target = path.display().to_string();
        let fail = |error| DeviceError::from_io(Action::Open, &target, error);
        let claim = OsFile::open(path).map_err(fail)?;
        // Two that write one file would each keep its own idea of the tables: any writer is the
        // only one.
        if mode != OpenMode::ReadOnly {
            claim.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => DeviceError::Busy { target: target.clone() },
                TryLockError::Error(error) => fail(error),
            })?;
        }
        let writable = mode != OpenMode::ReadOnly;
        let options = StorageOpenOptions::new().filename(path).write(writable);
        let file = File::open(options).map_err(fail)?;
        // What its header names (a backing file, a data file) is not opened: it could be any file
        // of this machine.
        let builder = Qcow2::<File>::builder(file).write(writable);
        let image = builder.open(DenyImplicitOpenGate::default()).map_err(fail)?;
        let access = FormatAccess::new(image);
        Ok(Self { access, target, writable, poisoned: AtomicBool::new(false), _claim: claim })
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let size = self.access.size();
        if offset.checked_add(length).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(DeviceError::OutOfRange { target: self.target.clone(), offset, length, size })
    }

    fn check_writable(&self) -> Result<(), DeviceError> {
        let target = || self.target.clone();
        match () {
            () if !self.writable => Err(DeviceError::ReadOnly { target: target() }),
            () if self.poisoned.load(Ordering::SeqCst) => {
                Err(DeviceError::Poisoned { target: target() })
            }
            () => Ok(()),
        }
    }

    fn fail(&self, action: Action) -> impl FnOnce(io::Error) -> DeviceError + '_ {
        move |error| DeviceError::from_io(action, &self.target, error)
    }
}

impl BlockDevice for Qcow2Device {
    fn size(&self) -> u64 {
        self.access.size()
    }

    fn sector_bytes(&self) -> u32 {
        SECTOR_BYTES
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.check(offset, buf.len() as u64)?;
        self.access.read(buf, offset).map_err(self.fail(Action::Read))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.check(offset, data.len() as u64)?;
        self.check_writable()?;
        self.access.write(data, offset).map_err(self.fail(Action::Write))
    }

    fn zero(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.check(offset, length)?;
        self.check_writable()?;
        self.access.write_zeroes(offset, length).map_err(self.fail(Action::Discard))
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.zero(offset, length)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        if !self.writable {
            return Ok(());
        }
        self.check_writable()?;
        let flushed = self.access.flush().and_then(|()| self.access.sync());
        flushed.map_err(|error| {
            self.poisoned.store(true, Ordering::SeqCst);
            self.fail(Action::Sync)(error)
        })
    }
}
