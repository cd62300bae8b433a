//! Which running copy of a machine this is (trap T-11).

use crate::state::{StateError, write_durably};
use landfall_types::InstanceId;
use serde::{Deserialize, Serialize};
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

/// What tells a machine from a copy of its disks: the firmware's UUID of the machine, and the
/// addresses of its network cards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hardware {
    uuid: String,
    cards: Vec<String>,
}

/// Kept in the state directory: which instance this was, and on which hardware.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Witness {
    instance: InstanceId,
    hardware: Hardware,
}

impl Hardware {
    /// Of this machine; `None` where it can't be told from others.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").ok()?;
        let uuid = uuid.trim().to_ascii_lowercase();
        // Firmware that was never told one has all digits alike.
        let mut digits = uuid.chars().filter(char::is_ascii_hexdigit);
        let first = digits.next()?;
        if digits.all(|digit| digit == first) {
            return None;
        }
        let entries = fs::read_dir("/sys/class/net").ok()?;
        let cards = entries.flatten().map(|entry| entry.path());
        // Cards, not what was made of them: that has names and addresses of its own.
        let cards = cards.filter(|card| card.join("device").exists());
        let address = |card: std::path::PathBuf| fs::read_to_string(card.join("address")).ok();
        let mut cards: Vec<String> =
            cards.filter_map(address).map(|text| text.trim().to_owned()).collect();
        cards.sort();
        Some(Self { uuid, cards })
    }
}

/// The instance of this machine: what [`instance`] reads, and after a reboot, which empties memory,
/// the former one if the hardware is the same. A copy of the disks that was started elsewhere has
/// other hardware: it gets an instance of its own.
///
/// # Errors
/// [`StateError::File`].
pub fn instance_of(
    path: &Path,
    state_dir: &Path,
    hardware: Option<&Hardware>,
) -> Result<InstanceId, StateError> {
    let kept = state_dir.join("witness.json");
    let witness = fs::read(&kept).ok();
    let witness: Option<Witness> = witness.and_then(|text| serde_json::from_slice(&text).ok());
    if !path.exists()
        && let Some(witness) = witness.filter(|witness| Some(&witness.hardware) == hardware)
    {
        tracing::info!(instance = %witness.instance, "the machine was started anew");
        write_durably(path, format!("{}\n", witness.instance).as_bytes())?;
    }
    let instance = instance(path)?;
    if let Some(hardware) = hardware {
        let witness = Witness { instance, hardware: hardware.clone() };
        let text = serde_json::to_vec_pretty(&witness)
            .map_err(|source| StateError::Damaged { path: kept.clone(), source })?;
        write_durably(&kept, &text)?;
    }
    Ok(instance)
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

    /// T-11: a reboot keeps the instance, a copy of the disks does not.
    #[test]
    fn t11_a_reboot_keeps_the_instance_and_a_copy_gets_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/instance");
        let hardware = |uuid: &str| Hardware { uuid: uuid.to_owned(), cards: vec![] };
        let (ours, other) = (hardware("a"), hardware("b"));
        let made = instance_of(&path, dir.path(), Some(&ours)).expect("is made");
        let reboot = || fs::remove_file(&path).expect("was there");
        reboot();
        assert_eq!(instance_of(&path, dir.path(), Some(&ours)).expect("is kept"), made);
        reboot();
        let copy = instance_of(&path, dir.path(), Some(&other)).expect("is made");
        assert_ne!(copy, made);
        reboot();
        assert_eq!(instance_of(&path, dir.path(), Some(&other)).expect("is kept"), copy);
        reboot();
        // Hardware that can't be told from other: never taken for the same.
        let unknown = instance_of(&path, dir.path(), None).expect("is made");
        assert!(unknown != copy && unknown != made);
    }
}
