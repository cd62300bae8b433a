//! What the target is known to have durable, for the next process.
//!
//! The bitmap forgets what the target has. A target that later has less has lost acknowledged data:
//! the bitmap does not know what, and everything is compared (trap T-1). So the position is noted
//! before the bitmap forgets, in memory like the bitmap itself: a reboot ends both.

use crate::state::StateError;
use landfall_types::{ByteRange, DiskIndex, Epoch, Incarnation, Lsn, ReplicaId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The incarnations that the bits of this machine know of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ancestry {
    /// Some of the bits were kept over a restart of the machine.
    pub restored: bool,
    /// The newest last.
    pub incarnations: Vec<Incarnation>,
}

/// More than any life of a machine has.
const INCARNATIONS_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
struct Note {
    replica: ReplicaId,
    epoch: Epoch,
    lsn: Lsn,
}

/// The file, or none where the capture does not outlive the process.
#[derive(Clone, Debug, Default)]
pub struct SettledFile(pub Option<PathBuf>);

impl SettledFile {
    /// The position for this replica; [`Lsn::ZERO`] where none was noted: then nothing was
    /// forgotten.
    pub(crate) fn read(&self, replica: ReplicaId, epoch: Epoch) -> Lsn {
        let text = self.0.as_ref().and_then(|path| fs::read(path).ok());
        let note = text.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        note.filter(|note| (note.replica, note.epoch) == (replica, epoch))
            .map_or(Lsn::ZERO, |note| note.lsn)
    }

    /// Notes it, as a whole or not at all.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(crate) fn write(
        &self,
        replica: ReplicaId,
        epoch: Epoch,
        lsn: Lsn,
    ) -> Result<(), StateError> {
        let Some(path) = &self.0 else { return Ok(()) };
        replace(path, &Note { replica, epoch, lsn })
    }

    /// The incarnations that the bits know of.
    pub(crate) fn ancestry(&self) -> Ancestry {
        let path = self.0.as_ref().map(|path| path.with_extension("ancestry"));
        let text = path.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Notes them.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(crate) fn write_ancestry(&self, ancestry: &Ancestry) -> Result<(), StateError> {
        let Some(path) = &self.0 else { return Ok(()) };
        replace(&path.with_extension("ancestry"), ancestry)
    }

    /// Before the first record of an incarnation is sent.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(crate) fn note_incarnation(&self, incarnation: Incarnation) -> Result<(), StateError> {
        let mut ancestry = self.ancestry();
        if ancestry.incarnations.last() != Some(&incarnation) {
            ancestry.incarnations.push(incarnation);
            let surplus = ancestry.incarnations.len().saturating_sub(INCARNATIONS_MAX);
            ancestry.incarnations.drain(..surplus);
            self.write_ancestry(&ancestry)?;
        }
        Ok(())
    }

    /// What the capture leaves out, as it was noted last.
    pub(crate) fn excluded(&self) -> Vec<(DiskIndex, ByteRange)> {
        let path = self.0.as_ref().map(|path| path.with_extension("excluded"));
        let text = path.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let ranges: Vec<(u16, u64, u64)> = serde_json::from_slice(&text).unwrap_or_default();
        let range = |(disk, start, end)| (DiskIndex(disk), ByteRange { start, end });
        ranges.into_iter().map(range).collect()
    }

    /// Notes what the capture leaves out from now on; false when something of before is not among
    /// it any more. What was written there while no agent looked has neither record nor bit.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub(crate) fn note_excluded(
        &self,
        excluded: &[(DiskIndex, ByteRange)],
    ) -> Result<bool, StateError> {
        let Some(path) = self.0.as_ref().map(|path| path.with_extension("excluded")) else {
            return Ok(true);
        };
        let ranges = excluded.iter().map(|(disk, range)| (disk.0, range.start, range.end));
        let now: Vec<(u16, u64, u64)> = ranges.collect();
        let before = fs::read(&path).unwrap_or_default();
        let before: Vec<(u16, u64, u64)> = serde_json::from_slice(&before).unwrap_or_default();
        let text = serde_json::to_vec(&now)
            .map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        crate::state::write_durably(&path, &text)?;
        Ok(before.iter().all(|range| now.contains(range)))
    }
}

/// In memory: as a whole or not at all, but not durable.
fn replace(path: &Path, content: &impl Serialize) -> Result<(), StateError> {
    let failed = |operation| {
        let path = path.to_owned();
        move |source| StateError::File { operation, path, source }
    };
    let text = serde_json::to_vec(content);
    let text = text.map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
    let partial = path.with_added_extension("partial");
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("create"))?;
    }
    fs::write(&partial, text).map_err(failed("write"))?;
    fs::rename(&partial, path).map_err(failed("rename"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::EpochId;

    #[test]
    fn a_note_is_of_one_replica_and_epoch() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = SettledFile(Some(dir.path().join("run/settled")));
        let replica = ReplicaId::from_bytes([1; 16]);
        let epoch = |number| Epoch { number, id: EpochId::new(number), parent: None };
        assert_eq!(file.read(replica, epoch(1)), Lsn::ZERO);
        file.write(replica, epoch(1), Lsn::new(7)).expect("writes");
        assert_eq!(file.read(replica, epoch(1)), Lsn::new(7));
        assert_eq!(file.read(replica, epoch(2)), Lsn::ZERO);
        assert_eq!(file.read(ReplicaId::from_bytes([2; 16]), epoch(1)), Lsn::ZERO);
    }

    #[test]
    fn incarnations_are_noted_once_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = SettledFile(Some(dir.path().join("run/settled")));
        assert_eq!(file.ancestry(), Ancestry::default());
        let kept = Ancestry { restored: true, incarnations: vec![Incarnation::new(1)] };
        file.write_ancestry(&kept).expect("writes");
        for one in [2, 2, 3] {
            file.note_incarnation(Incarnation::new(one)).expect("writes");
        }
        let incarnations = [1, 2, 3].map(Incarnation::new).to_vec();
        assert_eq!(file.ancestry(), Ancestry { restored: true, incarnations });
        for one in 10..1000 {
            file.note_incarnation(Incarnation::new(one)).expect("writes");
        }
        let newest = file.ancestry().incarnations;
        assert_eq!((newest.len(), newest.last()), (256, Some(&Incarnation::new(999))));
    }

    #[test]
    fn what_is_captured_again_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = SettledFile(Some(dir.path().join("settled")));
        let swap = [(DiskIndex(0), ByteRange { start: 4096, end: 8192 })];
        assert!(file.note_excluded(&[]).expect("writes"));
        assert!(file.note_excluded(&swap).expect("writes"));
        assert!(file.note_excluded(&swap).expect("writes"));
        assert!(!file.note_excluded(&[]).expect("writes"), "no swap any more");
    }
}
