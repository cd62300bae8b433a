//! Which disks an order was carried out with, so that another disk under the same path is not taken
//! for one of them: after a restart of the machine the kernel may name its disks in another order,
//! and a comparison would make the replica of one disk equal to another.

use crate::state::{StateError, write_durably};
use landfall_api_types::order::AgentStart;
use landfall_api_types::{ApiError, codes};
use landfall_capture::Disk;
use landfall_types::{DiskIndex, Epoch, ReplicaId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "disk-serials.json";

/// The serial numbers of one order's disks; a disk that has none is left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Serials {
    replica: ReplicaId,
    epoch: Epoch,
    disks: BTreeMap<DiskIndex, String>,
}

impl Serials {
    /// The first disk that is another one than before. What has no serial number proves nothing.
    fn other(&self, before: &Self) -> Option<DiskIndex> {
        if (self.replica, self.epoch) != (before.replica, before.epoch) {
            return None; // Another order: it names its disks anew.
        }
        let differs = |disk: &&DiskIndex| {
            before
                .disks
                .get(disk)
                .is_some_and(|serial| self.disks.get(disk).is_some_and(|now| now != serial))
        };
        self.disks.keys().find(differs).copied()
    }
}

/// Refuses an order whose disks are not those that it was carried out with before; else notes them.
///
/// # Errors
/// `disk-replaced`; or the note in `dir` can't be read or written.
pub(crate) fn check(dir: &Path, start: &AgentStart) -> Result<(), ApiError> {
    let serials = start.disks.iter().filter_map(|disk| {
        let found = Disk::inspect(Path::new(&disk.path)).ok()?;
        Some((disk.index, serial_of(Path::new("/sys/block"), &found.name)?))
    });
    let (replica, epoch) = (start.replica, start.lineage.epoch());
    let mut now = Serials { replica, epoch, disks: serials.collect() };
    let file = dir.join(FILE);
    let failed = |error: StateError| ApiError::new(&codes::INTERNAL, error.to_string());
    let Some(before) = read(&file).map_err(failed)? else {
        return write(&file, &now).map_err(failed);
    };
    if let Some(disk) = now.other(&before) {
        let path = start.disks.iter().find(|one| one.index == disk).map(|one| one.path.as_str());
        let path = path.unwrap_or_default();
        let cause = format!("{path} is not the disk that is protected under this name");
        return Err(ApiError::new(&codes::DISK_REPLACED, cause)
            .detail("protected", &before.disks[&disk])
            .detail("found", &now.disks[&disk]));
    }
    if (now.replica, now.epoch) == (before.replica, before.epoch) {
        // A disk that is away, or whose serial can't be read today, is not forgotten.
        for (disk, serial) in &before.disks {
            now.disks.entry(*disk).or_insert_with(|| serial.clone());
        }
    }
    if now == before { Ok(()) } else { write(&file, &now).map_err(failed) }
}

/// What the kernel says of the disk `name`: the first of its worldwide name and its serial number
/// that it has.
fn serial_of(block: &Path, name: &str) -> Option<String> {
    ["wwid", "device/wwid", "serial", "device/serial"].iter().find_map(|attribute| {
        let text = fs::read_to_string(block.join(name).join(attribute)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| format!("{attribute}:{text}"))
    })
}

fn read(file: &Path) -> Result<Option<Serials>, StateError> {
    let path = || PathBuf::from(file);
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| StateError::Damaged { path: path(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::File { operation: "read", path: path(), source }),
    }
}

fn write(file: &Path, serials: &Serials) -> Result<(), StateError> {
    let text = serde_json::to_vec_pretty(serials)
        .map_err(|source| StateError::Damaged { path: file.to_owned(), source })?;
    write_durably(file, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::EpochId;

    fn serials(epoch: u64, disks: &[(u16, &str)]) -> Serials {
        let disks = disks.iter().map(|(disk, serial)| (DiskIndex(*disk), (*serial).to_owned()));
        Serials {
            replica: ReplicaId::from_bytes([1; 16]),
            epoch: Epoch { number: epoch, id: EpochId::new(epoch), parent: None },
            disks: disks.collect(),
        }
    }

    #[test]
    fn two_disks_that_have_changed_their_names_are_noticed() {
        let before = serials(1, &[(0, "a"), (1, "b")]);
        assert_eq!(before.other(&before), None);
        assert_eq!(serials(1, &[(0, "b"), (1, "a")]).other(&before), Some(DiskIndex(0)));
        assert_eq!(serials(1, &[(0, "a"), (1, "c")]).other(&before), Some(DiskIndex(1)));
        assert_eq!(serials(1, &[(0, "a")]).other(&before), None, "no serial, no proof");
        assert_eq!(serials(2, &[(0, "c")]).other(&before), None, "another order, other disks");
    }

    #[test]
    fn the_note_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(FILE);
        assert_eq!(read(&file).expect("none yet"), None);
        let noted = serials(3, &[(0, "wwid:naa.5")]);
        write(&file, &noted).expect("writable");
        assert_eq!(read(&file).expect("readable"), Some(noted));
        fs::write(&file, "{").expect("writable");
        assert!(matches!(read(&file), Err(StateError::Damaged { .. })), "not taken for none");
    }

    #[test]
    fn the_first_name_that_the_kernel_has_counts() {
        let block = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(block.path().join("sda/device")).expect("a directory");
        assert_eq!(serial_of(block.path(), "sda"), None);
        fs::write(block.path().join("sda/device/serial"), " 77 \n").expect("writable");
        assert_eq!(serial_of(block.path(), "sda").as_deref(), Some("device/serial:77"));
        fs::write(block.path().join("sda/device/wwid"), "naa.5\n").expect("writable");
        assert_eq!(serial_of(block.path(), "sda").as_deref(), Some("device/wwid:naa.5"));
    }
}
