use crate::{DeviceError, RankNow};
use landfall_crypt::DataKey;
use std::fmt;
use std::sync::Arc;

/// Most bytes of a file's name in a [`Dir`].
pub const NAME_BYTES_MAX: usize = 200;

/// A directory of flat files whose durability is explicit.
///
/// Names are single path components of at most [`NAME_BYTES_MAX`] bytes. A file that was created,
/// removed or renamed may be so, or may not, after a power cut that comes before [`Dir::sync`].
pub trait Dir: Send + Sync + fmt::Debug {
    /// A new, empty file.
    ///
    /// # Errors
    /// [`DeviceError::Exists`] and others.
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError>;
    /// An existing file, through a handle of its own.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others.
    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError>;
    /// Names of the files, sorted.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn list(&self) -> Result<Vec<String>, DeviceError>;
    /// Removes a file; open handles stay usable.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others.
    fn remove(&self, name: &str) -> Result<(), DeviceError>;
    /// Gives a file another name; a file that has that name is replaced.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others.
    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError>;
    /// Makes durable which names there are.
    ///
    /// # Errors
    /// [`DeviceError`]; this handle is poisoned from then on.
    fn sync(&self) -> Result<(), DeviceError>;
    /// A directory within, made if it is not there (durable after [`Dir::sync`] of this one).
    ///
    /// # Errors
    /// [`DeviceError`].
    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError>;
    /// Names of the directories within, sorted.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError>;
    /// Removes a directory within and everything in it.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] and others; part of its content may be gone then.
    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError>;
    /// The unit in bytes that a power cut can tear (512 or 4096): writes that must not damage their
    /// neighbors are aligned to it.
    fn sector_bytes(&self) -> u32;
    /// Bytes that can still be written here; `None` where that is unknown.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn free_bytes(&self) -> Result<Option<u64>, DeviceError>;
    /// Claims the directory for one writer, until the claim is dropped or the process ends, however
    /// it ends: two writers of one log would overwrite each other's records. A simulated directory
    /// has one process only, and always says yes.
    ///
    /// # Errors
    /// [`DeviceError::Busy`] while another claim holds, in this process or in another.
    fn claim(&self) -> Result<Claim, DeviceError> {
        Ok(Claim::none())
    }
    /// Whether work may be done here by threads of the callee's own, beside the caller's. False for
    /// a simulated medium, whose runs must repeat.
    fn takes_background_work(&self) -> bool {
        false
    }
    /// The key that the content of its files is sealed with; `None` where that stands as it is
    /// ([`crate::KeyedDir`]).
    fn data_key(&self) -> Option<DataKey> {
        None
    }
    /// The same directory with room by another rank; `None` where room is not handed out by rank.
    fn ranked(&self, rank: RankNow) -> Option<Arc<dyn Dir>> {
        let _ = rank;
        None
    }
}

/// Holds a directory for one writer ([`Dir::claim`]); dropping it gives the directory up.
#[derive(Debug)]
pub struct Claim {
    /// The lock lives as long as this handle is open.
    _held: Option<std::fs::File>,
}

impl Claim {
    /// Holds nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self { _held: None }
    }

    /// Lives as long as the lock of this handle.
    pub(crate) const fn held(handle: std::fs::File) -> Self {
        Self { _held: Some(handle) }
    }
}

/// An open file of a [`Dir`].
pub trait File: Send + Sync + fmt::Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn len(&self) -> Result<u64, DeviceError>;
    /// True when it has no bytes.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn is_empty(&self) -> Result<bool, DeviceError> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] when the file ends before, and others.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError>;
    /// Writes all of `data` at `offset`, growing the file if it ends before.
    ///
    /// # Errors
    /// [`DeviceError`]; any part of the range may then hold old or new bytes.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError>;
    /// Writes all of `parts`, one behind the other, from `offset` on: as [`File::write_at`] with
    /// the parts joined, and with fewer requests where the medium can take several at once.
    ///
    /// # Errors
    /// As [`File::write_at`].
    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DeviceError> {
        let mut at = offset;
        for part in parts {
            self.write_at(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }
    /// Cuts the file or extends it by zeroes.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn set_len(&self, length: u64) -> Result<(), DeviceError>;
    /// Reserves space for the range and grows the file to its end, so that writes into it don't
    /// fail for lack of room where the file system can promise that. Bytes that are there stay; new
    /// ones read as zeroes.
    ///
    /// # Errors
    /// [`DeviceError::Full`] and others.
    fn allocate(&self, offset: u64, length: u64) -> Result<(), DeviceError>;
    /// Makes the range read as zeroes without growing the file, and gives its space back where that
    /// is possible.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] when the file ends before, and others.
    fn punch(&self, offset: u64, length: u64) -> Result<(), DeviceError>;
    /// Makes content and length durable (not the name: that is [`Dir::sync`]).
    ///
    /// # Errors
    /// [`DeviceError`]; this handle is poisoned from then on.
    fn sync_data(&self) -> Result<(), DeviceError>;
}

/// Refuses what is not a plain file name: a name from outside must not lead out of its directory.
pub(crate) fn check_name(name: &str) -> Result<(), DeviceError> {
    let plain = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0']);
    if plain { Ok(()) } else { Err(DeviceError::BadName { name: name.to_owned() }) }
}
