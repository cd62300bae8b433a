use crate::dir::check_name;
use crate::raw::{Cache, RawFile};
use crate::{Action, Claim, DeviceError, Dir, File};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatvfs};
use std::fs::{File as OsFile, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The sector size assumed where the system does not tell: the larger of the usual two, so that a
/// torn sector never holds a neighbor's bytes.
const SECTOR_BYTES_DEFAULT: u32 = 4096;

/// A [`Dir`] in a file system of this machine.
#[derive(Debug)]
pub struct FsDir {
    path: PathBuf,
    handle: OsFile,
    sector_bytes: u32,
    poisoned: AtomicBool,
}

impl FsDir {
    /// An existing directory.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        let path = path.as_ref().to_path_buf();
        let fail = |error| DeviceError::from_io(Action::Open, &path.display().to_string(), error);
        let flags = (OFlags::DIRECTORY | OFlags::CLOEXEC).bits().cast_signed();
        let handle = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(fail)?;
        let sector_bytes =
            handle.metadata().map(|m| physical_sector_bytes(m.dev())).map_err(fail)?;
        Ok(Self { path, handle, sector_bytes, poisoned: AtomicBool::new(false) })
    }

    /// A directory, made with its parents if it is not there, and durable.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let fail = |error| DeviceError::from_io(Action::Create, &path.display().to_string(), error);
        let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
        std::fs::create_dir_all(path).map_err(fail)?;
        // Each new directory's name is durable only after a sync of the directory that holds it.
        for parent in missing.iter().filter_map(|part| part.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            OsFile::open(parent).and_then(|dir| dir.sync_all()).map_err(fail)?;
        }
        Self::open(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> Result<(PathBuf, String), DeviceError> {
        check_name(name)?;
        let path = self.path.join(name);
        let target = path.display().to_string();
        Ok((path, target))
    }

    fn file(
        &self,
        name: &str,
        options: &OpenOptions,
        action: Action,
    ) -> Result<Arc<dyn File>, DeviceError> {
        let (path, target) = self.at(name)?;
        let raw = RawFile::open(&path, options, OFlags::NOFOLLOW, true, Cache::BypassAligned)
            .map_err(|error| DeviceError::from_io(action, &target, error))?;
        Ok(Arc::new(FsFile { raw }))
    }

    fn names(&self, wanted: fn(&std::fs::FileType) -> bool) -> Result<Vec<String>, DeviceError> {
        let target = self.path.display().to_string();
        let fail = |error| DeviceError::from_io(Action::List, &target, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if !wanted(&entry.file_type().map_err(fail)?) {
                continue;
            }
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Dir for FsDir {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        self.file(name, &options, Action::Create)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        self.file(name, OpenOptions::new().read(true).write(true), Action::Open)
    }

    fn list(&self) -> Result<Vec<String>, DeviceError> {
        self.names(std::fs::FileType::is_file)
    }

    fn remove(&self, name: &str) -> Result<(), DeviceError> {
        let (path, target) = self.at(name)?;
        std::fs::remove_file(path).map_err(|e| DeviceError::from_io(Action::Remove, &target, e))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError> {
        let (from, target) = self.at(from)?;
        let (to, _) = self.at(to)?;
        std::fs::rename(from, to).map_err(|e| DeviceError::from_io(Action::Rename, &target, e))
    }

    fn sync(&self) -> Result<(), DeviceError> {
        let target = self.path.display().to_string();
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(DeviceError::Poisoned { target });
        }
        self.handle.sync_all().map_err(|error| {
            self.poisoned.store(true, Ordering::SeqCst);
            DeviceError::from_io(Action::Sync, &target, error)
        })
    }

    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError> {
        let (path, target) = self.at(name)?;
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(DeviceError::from_io(Action::Create, &target, error));
            }
            _ => {}
        }
        Ok(Arc::new(Self::open(path)?))
    }

    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError> {
        self.names(std::fs::FileType::is_dir)
    }

    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError> {
        let (path, target) = self.at(name)?;
        std::fs::remove_dir_all(path).map_err(|e| DeviceError::from_io(Action::Remove, &target, e))
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        let stat = fstatvfs(&self.handle).map_err(|error| {
            DeviceError::from_io(Action::Query, &self.path.display().to_string(), error.into())
        })?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn claim(&self) -> Result<Claim, DeviceError> {
        let target = self.path.display().to_string();
        // A handle of its own: locks of one handle don't exclude each other. Not by path, which may
        // lead elsewhere by now.
        let own = rustix::fs::openat(
            &self.handle,
            ".",
            OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        );
        let own = own.map_err(|e| DeviceError::from_io(Action::Open, &target, e.into()))?;
        let own = OsFile::from(own);
        match own.try_lock() {
            Ok(()) => Ok(Claim::held(own)),
            Err(TryLockError::WouldBlock) => Err(DeviceError::Busy { target }),
            Err(TryLockError::Error(error)) => {
                Err(DeviceError::from_io(Action::Open, &target, error))
            }
        }
    }

    fn takes_background_work(&self) -> bool {
        true
    }
}

/// What a power cut can tear on the disk under a file system: its *physical* sector. A disk with
/// 4096-byte sectors that emulates 512 rewrites all of a sector to change an eighth of it.
pub(crate) fn physical_sector_bytes(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let base = format!("/sys/dev/block/{major}:{minor}");
    // A partition has no queue of its own: its disk, one level up, has.
    ["queue", "../queue"]
        .iter()
        .find_map(|queue| {
            std::fs::read_to_string(format!("{base}/{queue}/physical_block_size")).ok()
        })
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or(SECTOR_BYTES_DEFAULT, |bytes| if bytes <= 512 { 512 } else { SECTOR_BYTES_DEFAULT })
}

/// A file of an [`FsDir`].
#[derive(Debug)]
struct FsFile {
    raw: RawFile,
}

impl FsFile {
    fn check_range(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let size = self.len()?;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(DeviceError::OutOfRange {
                target: self.raw.target().to_owned(),
                offset,
                length,
                size,
            }),
        }
    }
}

impl File for FsFile {
    fn len(&self) -> Result<u64, DeviceError> {
        self.raw.os().metadata().map(|meta| meta.len()).map_err(self.raw.fail(Action::Query))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        match self.raw.read_at(offset, buf) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.check_range(offset, buf.len() as u64)?;
                Err(self.raw.fail(Action::Read)(error))
            }
            other => other.map_err(self.raw.fail(Action::Read)),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        self.raw.write_at(offset, data)
    }

    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DeviceError> {
        self.raw.write_parts(offset, parts)
    }

    fn set_len(&self, length: u64) -> Result<(), DeviceError> {
        self.raw.check_writable()?;
        self.raw.os().set_len(length).map_err(self.raw.fail(Action::Resize))
    }

    fn allocate(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.raw.check_writable()?;
        match fallocate(self.raw.os(), FallocateFlags::empty(), offset, length) {
            Ok(()) => Ok(()),
            // No such call in this file system: the length at least, space is then found missing by
            // the write.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let end = offset.saturating_add(length);
                if self.len()? < end { self.set_len(end) } else { Ok(()) }
            }
            Err(error) => Err(self.raw.fail(Action::Resize)(error.into())),
        }
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.check_range(offset, length)?;
        self.raw.zero(offset, length)
    }

    fn sync_data(&self) -> Result<(), DeviceError> {
        self.raw.sync()
    }
}
