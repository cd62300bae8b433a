//! A file that is written past its file system: the only place that is still there when everything
//! is unmounted, and that is found again before anything is mounted for writing.
//!
//! Its blocks are allocated and written once, while the file system is in use. Later its content is
//! exchanged on the device beneath, where the file system has said that the blocks are. So it works
//! only where a block of a file has one place that the file system does not move or check: ext4 and
//! XFS.

use super::RebootError;
use landfall_capture::AlignedBuffer;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Size of an area: some hundred thousand dirty ranges.
pub const AREA_BYTES: u64 = 4 << 20;
/// What is written as one: the seal, and any other piece.
const PIECE_BYTES: usize = 4096;

const EXT_MAGIC: u64 = 0xef53;
const XFS_MAGIC: u64 = 0x5846_5342;

/// Part of the file: where it is on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
}

/// An area whose place is known.
pub struct Area {
    path: PathBuf,
    device: File,
    extents: Vec<Extent>,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RebootError {
    let path = path.to_owned();
    move |source| RebootError::Area { operation, path, source }
}

/// Makes the area at `path`, or finds that it is there, and breaks its seal: whoever kept something
/// there, the file system is in use by now.
///
/// # Errors
/// [`RebootError::Unfit`] on file systems that don't keep blocks in place; [`RebootError::Area`].
pub fn prepare(path: &Path) -> Result<(), RebootError> {
    if fs::metadata(path).is_ok_and(|found| found.len() == AREA_BYTES) {
        let file = OpenOptions::new().write(true).open(path).map_err(failed("open", path))?;
        // Through the file system, which is mounted: past it two would write the same device.
        let broken = file.write_all_at(&[0; PIECE_BYTES], 0).and_then(|()| file.sync_all());
        broken.map_err(failed("write", path))?;
        return Area::locate(path).map(drop);
    }
    let partial = path.with_extension("partial");
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let mut file = File::create(&partial).map_err(failed("create", &partial))?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..AREA_BYTES / (1 << 20) {
        // Written, not only allocated: a block that was never written reads as zeroes for ever.
        file.write_all(&zeros).map_err(failed("write", &partial))?;
    }
    file.sync_all().map_err(failed("sync", &partial))?;
    drop(file);
    // Only a file that can be used gets the name.
    Area::locate(&partial).inspect_err(|_| {
        let _gone = fs::remove_file(&partial);
    })?;
    fs::rename(&partial, path).map_err(failed("rename", &partial))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

impl Area {
    /// Finds where the file at `path` lies; its file system is mounted, for reading at least.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn locate(path: &Path) -> Result<Self, RebootError> {
        let unfit = |why| RebootError::Unfit { path: path.to_owned(), why };
        let file = File::open(path).map_err(failed("open", path))?;
        let metadata = file.metadata().map_err(failed("look at", path))?;
        if metadata.len() != AREA_BYTES {
            return Err(unfit("it has another size"));
        }
        let found = rustix::fs::fstatfs(&file)
            .map_err(|errno| failed("ask the file system of", path)(errno.into()))?;
        #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
        let kind = found.f_type as u64;
        if kind != EXT_MAGIC && kind != XFS_MAGIC {
            return Err(unfit("only ext4 and XFS keep the blocks of a file in their place"));
        }
        let extents = fiemap::extents(&file, AREA_BYTES)
            .map_err(failed("ask for the blocks of", path))?
            .ok_or_else(|| unfit("some of its blocks have no place of their own"))?;
        if !covers(&extents, AREA_BYTES) {
            return Err(unfit("some of it has no blocks"));
        }
        let device =
            device_of(metadata.dev()).ok_or_else(|| unfit("it lies on no block device"))?;
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let opened = OpenOptions::new().read(true).write(true).custom_flags(direct).open(&device);
        let device = opened.map_err(failed("open", &device))?;
        Ok(Self { path: path.to_owned(), device, extents })
    }

    /// All of it, as it is on the device.
    ///
    /// # Errors
    /// [`RebootError::Area`].
    pub fn read(&self) -> Result<Vec<u8>, RebootError> {
        let mut content = Vec::new();
        for extent in &self.extents {
            let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
            let mut buffer = AlignedBuffer::zeroed(length).map_err(failed("read", &self.path))?;
            let read = self.device.read_exact_at(&mut buffer, extent.physical);
            read.map_err(failed("read", &self.path))?;
            content.extend_from_slice(&buffer);
        }
        Ok(content)
    }

    /// Writes `content` at `offset`, and makes it durable, past the disk's cache too.
    ///
    /// # Errors
    /// [`RebootError::Area`].
    ///
    /// # Panics
    /// When it does not fit, or `offset` is no multiple of 4096.
    pub fn write(&self, offset: u64, content: &[u8]) -> Result<(), RebootError> {
        assert!(offset.is_multiple_of(PIECE_BYTES as u64), "written in whole pieces");
        let mut buffer = AlignedBuffer::zeroed(PIECE_BYTES).map_err(failed("write", &self.path))?;
        for (piece, at) in content.chunks(PIECE_BYTES).zip((offset..).step_by(PIECE_BYTES)) {
            buffer.fill(0);
            buffer[..piece.len()].copy_from_slice(piece);
            let place = place(&self.extents, at).expect("within the area");
            let written = self.device.write_all_at(&buffer, place);
            written.map_err(failed("write", &self.path))?;
        }
        self.device.sync_all().map_err(failed("sync", &self.path))
    }
}

/// Where byte `at` of the file is on the device.
fn place(extents: &[Extent], at: u64) -> Option<u64> {
    let inside = |one: &&Extent| (one.logical..one.logical + one.length).contains(&at);
    extents.iter().find(inside).map(|one| one.physical + (at - one.logical))
}

/// True when the extents are the whole file, in order, in pieces that can be written as such.
fn covers(extents: &[Extent], bytes: u64) -> bool {
    let piece = PIECE_BYTES as u64;
    let whole = |one: &Extent| {
        // A device offset that is no multiple of a piece is fine: only sectors count there.
        one.logical.is_multiple_of(piece)
            && one.length.is_multiple_of(piece)
            && one.physical.is_multiple_of(512)
    };
    let end = extents.iter().try_fold(0, |end, one| (one.logical == end).then(|| end + one.length));
    extents.iter().all(whole) && end == Some(bytes)
}

/// The device node of a file system's number. File systems of several devices have a number that
/// no device has.
fn device_of(number: u64) -> Option<PathBuf> {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let uevent = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

/// The request that tells where the blocks of a file are.
#[allow(unsafe_code)]
mod fiemap {
    use super::Extent;
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;

    // linux/fs.h: _IOWR('f', 11, struct fiemap).
    const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
    const FLAG_SYNC: u32 = 1;
    const EXTENT_LAST: u32 = 1;
    const EXTENT_MERGED: u32 = 0x1000;
    const EXTENTS_MAX: usize = 256;

    /// linux/fiemap.h
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Found {
        logical: u64,
        physical: u64,
        length: u64,
        reserved: [u64; 2],
        flags: u32,
        reserved_more: [u32; 3],
    }

    #[repr(C)]
    struct Request {
        start: u64,
        length: u64,
        flags: u32,
        mapped: u32,
        count: u32,
        reserved: u32,
        extents: [Found; EXTENTS_MAX],
    }

    /// The extents of the first `bytes`; `None` when one of them is anything but plain written
    /// blocks: delayed, in line, compressed, shared, not written yet.
    pub(super) fn extents(file: &File, bytes: u64) -> io::Result<Option<Vec<Extent>>> {
        let mut request = Box::new(Request {
            start: 0,
            length: bytes,
            flags: FLAG_SYNC,
            mapped: 0,
            count: u32::try_from(EXTENTS_MAX).expect("fits"),
            reserved: 0,
            extents: [Found::default(); EXTENTS_MAX],
        });
        // SAFETY: the structure has the kernel's layout, and room for as many extents as it says.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *request) };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        let found = &request.extents[..request.mapped as usize];
        let plain = |one: &Found| one.flags & !(EXTENT_LAST | EXTENT_MERGED) == 0;
        Ok(found.iter().all(plain).then(|| {
            let extent = |one: &Found| Extent {
                logical: one.logical,
                physical: one.physical,
                length: one.length.min(bytes.saturating_sub(one.logical)),
            };
            found.iter().map(extent).filter(|one| one.length > 0).collect()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(logical: u64, physical: u64, length: u64) -> Extent {
        Extent { logical, physical, length }
    }

    #[test]
    fn extents_have_to_be_the_whole_file() {
        let two = [extent(0, 512, 8192), extent(8192, 1 << 20, 4096)];
        assert!(covers(&two, 12288));
        assert!(!covers(&two, 16384) && !covers(&two[1..], 4096) && !covers(&[], 4096));
        assert!(!covers(&[extent(0, 100, 4096)], 4096), "no sector begins there");
        assert_eq!(place(&two, 4096), Some(4608));
        assert_eq!(place(&two, 8192), Some(1 << 20));
        assert_eq!(place(&two, 12288), None);
    }
}
