//! Which running copy of a machine this is (trap T-11).

use crate::state::{StateError, write_durably};
use landfall_types::InstanceId;
use std::path::Path;
use std::{fs, io};

/// Where the nonce is kept by default: in memory, never on a protected disk.
pub const INSTANCE_FILE: &str = "/run/landfall/instance";

/// Reads the instance's nonce, or makes one. A clone or a recovered machine has the disk's content,
/// but not this file: it gets another nonce, and with it no authority.
///
/// # Errors
/// [`StateError::File`]; a damaged file is an error, because a new nonce would silently end the
/// protection.
pub fn instance(path: &Path) -> Result<InstanceId, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| StateError::File {
            operation: "parse",
            path: path.to_owned(),
            source: io::ErrorKind::InvalidData.into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let instance = InstanceId::generate();
            write_durably(path, format!("{instance}\n").as_bytes())?;
            Ok(instance)
        }
        Err(source) => Err(StateError::File { operation: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_made_once_and_damage_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/instance");
        let made = instance(&path).expect("is made");
        assert_eq!(instance(&path).expect("is read"), made);
        fs::write(&path, "x").expect("writes");
        assert!(instance(&path).is_err());
    }
}
