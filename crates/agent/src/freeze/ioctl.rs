//! The two requests of the kernel that freeze and thaw a file system.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

// linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int).
const FIFREEZE: libc::c_ulong = 0xC004_5877;
const FITHAW: libc::c_ulong = 0xC004_5878;

/// Freezes the file system that `file` lies on: when this returns, its content on the disk is
/// complete and every write to it waits.
///
/// # Errors
/// `EBUSY`: somebody else has frozen it. `EOPNOTSUPP`: it can't be frozen.
pub(super) fn freeze(file: &File) -> io::Result<()> {
    call(file, FIFREEZE)
}

/// Thaws it.
///
/// # Errors
/// `EINVAL`: it is not frozen.
pub(super) fn thaw(file: &File) -> io::Result<()> {
    call(file, FITHAW)
}

fn call(file: &File, request: libc::c_ulong) -> io::Result<()> {
    // SAFETY: neither request reads or writes its argument.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
