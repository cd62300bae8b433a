//! Loop devices: scratch disks for the self-test, and disks for tests and the demo.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_PARTSCAN: u32 = 8;
/// The major number of loop devices.
const MAJOR: u32 = 7;
/// Others may take a free number before we do.
const TRIES_MAX: u32 = 50;

/// How a loop device is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoopOptions {
    /// Look for partitions.
    pub scan_partitions: bool,
    /// Logical sector size in bytes; 0: 512.
    pub sector_bytes: u32,
}

/// `struct loop_info64` of the kernel.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of the kernel.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A loop device that goes away with its last user, also when the process is killed.
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `backing` to a free loop device.
    ///
    /// # Errors
    /// The system's answer; also when there is no free loop device.
    pub fn attach(backing: &File, options: LoopOptions) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..TRIES_MAX {
            // SAFETY: this request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            match Self::configure(number, backing, options) {
                Ok(device) => return Ok(device),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Attaches `backing` to the loop device of this number.
    ///
    /// # Errors
    /// The system's answer: `EBUSY` when it is taken.
    pub fn attach_to(number: i32, backing: &File, options: LoopOptions) -> io::Result<Self> {
        Self::configure(number, backing, options)
    }

    fn configure(number: i32, backing: &File, options: LoopOptions) -> io::Result<Self> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        ensure_node(&path, MAJOR, u32::try_from(number).unwrap_or(u32::MAX))?;
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        let flags = FLAG_AUTOCLEAR | if options.scan_partitions { FLAG_PARTSCAN } else { 0 };
        let fd = u32::try_from(backing.as_raw_fd()).expect("an open file's descriptor");
        // SAFETY: plain numbers, for which zero is a valid value.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = fd;
        config.block_size = options.sector_bytes;
        config.info.flags = flags;
        // SAFETY: the kernel reads a `struct loop_config`, which `config` is.
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { device, path })
    }

    /// A device over memory, all zeroes.
    ///
    /// # Errors
    /// The system's answer.
    pub fn scratch(bytes: u64, options: LoopOptions) -> io::Result<Self> {
        // SAFETY: a constant string that ends with 0.
        let fd = unsafe { libc::memfd_create(c"landfall-scratch".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the kernel gave us just now and that nobody else owns.
        let backing = unsafe { File::from_raw_fd(fd) };
        backing.set_len(bytes)?;
        Self::attach(&backing, options)
    }

    /// The device file of a partition, made if the system makes none.
    ///
    /// # Errors
    /// The system's answer; there is no such partition.
    pub fn partition(&self, number: u32) -> io::Result<PathBuf> {
        let path = PathBuf::from(format!("{}p{number}", self.path.display()));
        let name = path.file_name().expect("a device has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(format!("/sys/class/block/{name}/dev"))?;
        let mut parts = text.trim().split(':').map(str::parse::<u32>);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => ensure_node(&path, major, minor)?,
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
        Ok(path)
    }

    /// Its device file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Detaches it now, or, if it is still in use, with its last user.
    ///
    /// # Errors
    /// The system's answer.
    pub fn detach(self) -> io::Result<()> {
        // SAFETY: this request takes no argument.
        match unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A container's `/dev` may have no node for a device that was made just now.
fn ensure_node(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    if path.exists() {
        return Ok(());
    }
    let mode = Mode::RUSR | Mode::WUSR;
    match mknodat(CWD, path, FileType::BlockDevice, mode, makedev(major, minor)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
