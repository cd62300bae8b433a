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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, KeySource};

    /// `KEY_SPEC_PROCESS_KEYRING` of `linux/keyctl.h`: gone with this process.
    const PROCESS_KEYRING: libc::c_long = -2;

    fn add(description: &str, key: &[u8]) {
        let description = CString::new(description).expect("no zero byte");
        // SAFETY: the strings end with a zero byte, the key has the length that is given, and all
        // outlive the call; the kernel only reads them.
        let id = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                description.as_ptr(),
                key.as_ptr(),
                key.len(),
                PROCESS_KEYRING,
            )
        };
        assert!(id > 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn a_key_of_the_kernel_wraps_and_a_missing_one_is_told() {
        if !landfall_testkit::require(&["keyring"]) {
            return;
        }
        let name = format!("landfall-test-{}", std::process::id());
        let source = KeySource::Keyring(name.clone());
        let missing = Envelope::create(&source, "replica-1").map(|_| ());
        assert!(matches!(missing, Err(KeyError::Missing { .. })), "{missing:?}");
        add(&name, &[6; 32]);
        let (envelope, key) = Envelope::create(&source, "replica-1").expect("wrapped");
        assert_eq!(envelope.open("replica-1").expect("opened").check(b""), key.check(b""));
        add(&name, &[7; 32]);
        assert!(matches!(envelope.open("replica-1"), Err(KeyError::Wrong { .. })));
        add(&name, &[7; 2000]);
        assert!(matches!(envelope.open("replica-1"), Err(KeyError::Malformed { .. })));
    }
}
