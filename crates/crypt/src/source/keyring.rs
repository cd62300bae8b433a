//! The kernel's key rings, by the two system calls that are needed.
#![allow(unsafe_code)]

use crate::KeyError;
use std::ffi::CString;
use std::io;
use zeroize::Zeroizing;

/// More than any key has.
const BYTES_MAX: usize = 1 << 10;
/// `KEYCTL_READ` of `linux/keyctl.h`.
const KEYCTL_READ: libc::c_long = 11;

/// Finds a key of type `user` in the key rings of this process (thread, process, session, user) and
/// reads it.
pub(crate) fn read(name: &str, description: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let missing = |what: String| KeyError::Missing { name: name.to_owned(), what };
    let wanted =
        CString::new(description).map_err(|_| KeyError::BadName { name: name.to_owned() })?;
    // SAFETY: both strings end with a zero byte and outlive the call; the kernel only reads them.
    // No call-out information: nothing is made when the key is not there.
    let id = unsafe {
        libc::syscall(
            libc::SYS_request_key,
            c"user".as_ptr(),
            wanted.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0 as libc::c_long,
        )
    };
    if id < 0 {
        return Err(missing(io::Error::last_os_error().to_string()));
    }
    let mut bytes = Zeroizing::new(vec![0; BYTES_MAX]);
    // SAFETY: the kernel writes at most `BYTES_MAX` bytes to a buffer of that size, which outlives
    // the call.
    let length = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_READ, id, bytes.as_mut_ptr(), BYTES_MAX, 0)
    };
    match usize::try_from(length) {
        Ok(length) if length <= BYTES_MAX => {
            bytes.truncate(length);
            Ok(bytes)
        }
        // The kernel tells the length of a longer key, and copies nothing.
        Ok(_) => Err(KeyError::Malformed { name: name.to_owned() }),
        Err(_) => Err(missing(io::Error::last_os_error().to_string())),
    }
}
