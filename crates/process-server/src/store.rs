//! What a route keeps beside its spool: one small JSON file, replaced as a whole.

use crate::RelayError;
use landfall_blockdev::{DeviceError, Dir};
use landfall_types::{Epoch, Incarnation, InstanceId, Lineage, Lsn, ReplicaId, WindowId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FILE: &str = "route.json";
/// A route's file is some hundred bytes; one that is larger is not ours.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Everything that a route knows durably.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RouteFile {
    /// Format of this file: 1.
    pub version: u32,
    /// Whose log.
    pub replica: ReplicaId,
    /// `host:port`.
    pub next_hop: String,
    /// The instance that may send (trap T-11).
    pub instance: InstanceId,
    /// Whoever does not stand on this epoch or a higher one is refused for ever.
    pub floor: Epoch,
    /// Nothing more is taken (trap T-14).
    pub draining: bool,
    /// As whom this route sends: the sender that it served last.
    pub served: Option<Served>,
    /// Which directory is the spool; none before the first session, or after it was lost.
    pub spool: Option<SpoolFile>,
    /// Spools that can't be delivered any more.
    pub divergence: Vec<Divergence>,
    /// Number of the next spool directory.
    pub next_spool: u64,
}

/// See [`RouteFile::served`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The history of the spool's records.
    pub lineage: Lineage,
    /// The producer's run.
    pub incarnation: Incarnation,
}

/// A spool, and what its own records do not tell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SpoolFile {
    /// Name of its directory.
    pub dir: String,
    /// A position at or after its base.
    pub windows_at: Lsn,
    /// Windows that are open there.
    pub windows: Vec<WindowId>,
    /// The producer's run before its first record.
    pub base_incarnation: Incarnation,
    /// The producer's position before its first record.
    pub base_source_position: u64,
}

/// Records that were acknowledged here and refused by the next hop for good (trap T-14).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Divergence {
    /// Name of the directory: a journal.
    pub dir: String,
    /// The epoch that they were written in.
    pub epoch: Epoch,
    /// Up to here the next hop has acknowledged.
    pub delivered: Lsn,
    /// The last record.
    pub through: Lsn,
}

/// The directory of one route.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) dir: Arc<dyn Dir>,
}

impl Store {
    /// `None` when the route's making was cut off before its file was there.
    pub(crate) fn load(&self, replica: &str) -> Result<Option<RouteFile>, RelayError> {
        let failed = |source| RelayError::Store { doing: "read the file", source };
        let Some(bytes) = read_whole(&*self.dir, FILE).map_err(failed)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| RelayError::Damaged { replica: replica.into(), source })
    }

    /// Replaces the file; durable when this returns.
    pub(crate) fn save(&self, file: &RouteFile) -> Result<(), RelayError> {
        let bytes = serde_json::to_vec_pretty(file)
            .map_err(|source| RelayError::Damaged { replica: file.replica.to_string(), source })?;
        replace(&*self.dir, FILE, &bytes)
            .map_err(|source| RelayError::Store { doing: "write the file", source })
    }

    /// Removes spools that no file speaks of: their making, or their end, was cut off.
    pub(crate) fn sweep(&self, file: &RouteFile) -> Result<(), RelayError> {
        let failed = |source| RelayError::Store { doing: "remove an abandoned spool", source };
        let kept = |name: &String| {
            file.spool.as_ref().is_some_and(|spool| spool.dir == *name)
                || file.divergence.iter().any(|divergence| divergence.dir == *name)
        };
        for name in self.dir.list_subdirs().map_err(failed)? {
            if !kept(&name) {
                self.dir.remove_subdir(&name).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// The content of a small file; `None` where there is none.
pub(crate) fn read_whole(dir: &dyn Dir, name: &str) -> Result<Option<Vec<u8>>, DeviceError> {
    let file = match dir.open(name) {
        Ok(file) => file,
        Err(DeviceError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

/// Gives a small file another content, as a whole; durable when this returns.
pub(crate) fn replace(dir: &dyn Dir, name: &str, bytes: &[u8]) -> Result<(), DeviceError> {
    let partial_name = partial_of(name);
    match dir.remove(&partial_name) {
        Ok(()) | Err(DeviceError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let partial = dir.create(&partial_name)?;
    partial.write_at(0, bytes)?;
    // Were the name changed before the content is durable, a power cut could leave an empty file
    // under it.
    partial.sync_data()?;
    dir.rename(&partial_name, name)?;
    dir.sync()
}

fn partial_of(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{stem}.partial")
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_blockdev::FsDir;
    use landfall_types::EpochId;

    fn sample() -> RouteFile {
        let first = Epoch { number: 1, id: EpochId::new(0x1111), parent: None };
        let second = Epoch { number: 2, id: EpochId::new(0x2222), parent: Some(first.id) };
        let lineage = Lineage::root(first).extend(second, Lsn::new(50)).expect("rises");
        RouteFile {
            version: 1,
            replica: ReplicaId::from_bytes([1; 16]),
            next_hop: "target.example:4711".into(),
            instance: InstanceId::from_bytes([2; 16]),
            floor: second,
            draining: false,
            served: Some(Served { lineage, incarnation: Incarnation::new(0xabcd) }),
            spool: Some(SpoolFile {
                dir: "spool-2".into(),
                windows_at: Lsn::new(60),
                windows: vec![WindowId(7)],
                base_incarnation: Incarnation::NONE,
                base_source_position: 4200,
            }),
            divergence: vec![Divergence {
                dir: "spool-1".into(),
                epoch: first,
                delivered: Lsn::new(50),
                through: Lsn::new(80),
            }],
            next_spool: 3,
        }
    }

    /// The golden vector of `docs/formats/process-server.md`: a change here is a change of the
    /// format.
    #[test]
    fn golden_vector() {
        let golden = include_str!("../tests/golden/route.json");
        let text = serde_json::to_string_pretty(&sample()).expect("written");
        assert_eq!(text, golden.trim_end(), "it is written differently");
        let read: RouteFile = serde_json::from_str(golden).expect("read");
        assert_eq!(read, sample(), "it is read differently");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_abandoned_spools_are_swept() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir: Arc<dyn Dir> = Arc::new(FsDir::open(dir.path()).expect("opens"));
        let store = Store { dir: Arc::clone(&dir) };
        assert_eq!(store.load("x").expect("readable"), None);
        store.save(&sample()).expect("written");
        // A save that was cut off leaves its partial file.
        dir.create(&partial_of(FILE)).expect("free").write_at(0, b"{").expect("written");
        assert_eq!(store.load("x").expect("readable"), Some(sample()));
        let shorter = RouteFile { divergence: vec![], served: None, ..sample() };
        store.save(&shorter).expect("written");
        assert_eq!(store.load("x").expect("readable"), Some(shorter));
        for name in ["spool-1", "spool-2", "spool-3"] {
            dir.subdir(name).expect("made");
        }
        store.sweep(&sample()).expect("swept");
        assert_eq!(dir.list_subdirs().expect("listed"), ["spool-1", "spool-2"]);
    }

    #[test]
    fn a_damaged_file_is_named_instead_of_forgotten() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir: Arc<dyn Dir> = Arc::new(FsDir::open(dir.path()).expect("opens"));
        dir.create(FILE).expect("free").write_at(0, b"not json").expect("written");
        let error = Store { dir }.load("x").expect_err("damaged");
        assert_eq!(error.class(), landfall_types::Class::Corrupt);
    }
}
