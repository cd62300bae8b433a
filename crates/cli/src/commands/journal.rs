mod salvage;

use crate::args::JournalCommand;
use crate::exit::Status;
use crate::failure::Failure;
use crate::output::{self, Format, line};
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::{FsDir, KeyedDir, OverlayDir};
use landfall_crypt::KeySource;
use landfall_journal::JournalError;
use landfall_journal::inspect::{Depth, Inspection, Problem, inspect};
use landfall_types::{Epoch, LogId, Lsn, RecordKind, ReplicaId};
use landfall_volume::{StorageError, replica_key};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// `landfall journal`: reads a log beside whoever writes it, and changes nothing.
pub(super) fn journal(command: &JournalCommand, format: Format) -> Result<(), Failure> {
    match command {
        JournalCommand::Stat { path, key } => {
            let found = look(path, key.as_ref(), Depth::Records)?;
            output::print(format, &summary(&found), |_| found.to_string().trim_end().to_owned());
            Ok(())
        }
        JournalCommand::Dump { path, key } => {
            let found = look(path, key.as_ref(), Depth::Records)?;
            output::print(format, &records(&found), |_| {
                found.listing().to_string().trim_end().to_owned()
            });
            Ok(())
        }
        JournalCommand::Verify { path, key } => verify(path, key.as_ref(), format),
        JournalCommand::Salvage(args) => salvage::salvage_log(args, format),
    }
}

fn verify(path: &Path, key: Option<&KeySource>, format: Format) -> Result<(), Failure> {
    let found = look(path, key, Depth::Payloads)?;
    let summary = summary(&found);
    if format == Format::Json {
        output::print(format, &summary, |_| String::new());
    } else {
        for problem in &summary.problems {
            let sign = if problem.damage { "DAMAGED" } else { "note   " };
            line(&format!("{sign} {}", problem.what));
        }
        line(&format!("records after {} to {} were read", summary.base, summary.tail));
    }
    let damage: Vec<_> = found.problems().into_iter().filter(Problem::is_damage).collect();
    match damage.first() {
        None => Ok(()),
        Some(first) => {
            let cause = format!("{}: {first}; {} defects in all", path.display(), damage.len());
            let error = ApiError::new(&codes::CORRUPT, cause);
            debug_assert_eq!(Status::of(&error), Status::Corrupt);
            Err(Failure::Api(error))
        }
    }
}

fn look(path: &Path, key: Option<&KeySource>, depth: Depth) -> Result<Inspection, Failure> {
    let failed = |error: anyhow::Error| Failure::Other(error.context(path.display().to_string()));
    let dir = FsDir::open(path).map_err(|error| failed(error.into()))?;
    match inspect(&dir, depth) {
        Err(JournalError::KeyMissing) => {}
        other => return other.map_err(|error| failed(error.into())),
    }
    // The wrapped data key is in the superblock of the replica, one directory above.
    let refused = |error: StorageError| super::vault::storage(&error);
    let above = path.canonicalize().ok().and_then(|real| Some(real.parent()?.to_owned()));
    let above = above.ok_or_else(|| refused(JournalError::KeyMissing.into()))?;
    // Not to be written: another process may have it open.
    let above = OverlayDir::open(above).map_err(|error| failed(error.into()))?;
    let data_key = replica_key(&above, key).map_err(refused)?;
    let data_key = data_key.ok_or_else(|| refused(JournalError::KeyMissing.into()))?;
    let dir = KeyedDir::over(Arc::new(dir), data_key);
    inspect(&*dir, depth).map_err(|error| refused(error.into()))
}

/// What `stat` and `verify` say as JSON.
#[derive(Debug, Serialize)]
struct Summary {
    log: LogId,
    replica: ReplicaId,
    epoch: Epoch,
    base: Lsn,
    tail: Lsn,
    floor: Lsn,
    segment_bytes: u64,
    segments: Vec<Segment>,
    problems: Vec<Defect>,
}

#[derive(Debug, Serialize)]
struct Segment {
    file: String,
    sequence: u64,
    after: Lsn,
    last: Lsn,
    frames: usize,
    bytes: u64,
    sealed: bool,
}

#[derive(Debug, Serialize)]
struct Defect {
    what: String,
    /// False for what the next opening repairs, losing nothing that was acknowledged.
    damage: bool,
}

fn summary(found: &Inspection) -> Summary {
    let segments = found.segments.iter().map(|segment| Segment {
        file: segment.file.clone(),
        sequence: segment.sequence,
        after: segment.base.0,
        last: segment.last(),
        frames: segment.frames.len(),
        bytes: segment.end,
        sealed: segment.indexed,
    });
    let problems = found.problems();
    let problems = problems.iter();
    let problems = problems.map(|one| Defect { what: one.to_string(), damage: one.is_damage() });
    Summary {
        log: found.log,
        replica: found.replica,
        epoch: found.epoch,
        base: found.base,
        tail: found.tail(),
        floor: found.floor,
        segment_bytes: found.segment_bytes,
        segments: segments.collect(),
        problems: problems.collect(),
    }
}

/// What `dump` says as JSON, per record.
#[derive(Debug, Serialize)]
struct Line {
    lsn: Lsn,
    epoch: Epoch,
    kind: &'static str,
    disk: u16,
    offset: u64,
    length: u64,
    catch_up: bool,
    control: Option<String>,
}

fn records(found: &Inspection) -> Vec<Line> {
    let frames = found.segments.iter().flat_map(|segment| &segment.frames);
    let records = frames.flat_map(|frame| frame.records.iter().map(|record| (frame.epoch, record)));
    let line = |(epoch, record): (Epoch, &landfall_journal::inspect::RecordInspection)| Line {
        lsn: record.header.lsn,
        epoch,
        kind: match record.header.kind {
            RecordKind::Write => "write",
            RecordKind::Zero => "zero",
            RecordKind::Discard => "discard",
            RecordKind::Control => "control",
        },
        disk: record.header.disk.0,
        offset: record.header.offset,
        length: record.header.length,
        catch_up: record.header.catch_up,
        control: record.control.as_ref().map(|control| format!("{control:?}")),
    };
    records.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use landfall_journal::{Log, LogConfig, Stamp};
    use landfall_types::{Chain, DiskIndex, EpochId, Incarnation, Record};

    fn log(dir: &Path) {
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        let replica = ReplicaId::from_bytes([1; 16]);
        let config = LogConfig {
            log: LogId::from_bytes([2; 16]),
            replica,
            epoch,
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            segment_bytes: 1 << 20,
        };
        let log = Log::create(Arc::new(FsDir::open(dir).unwrap()), config).unwrap();
        let stamp = Stamp { epoch, incarnation: Incarnation::new(7), source_position: 0 };
        let payload = Bytes::from_static(&[0xa5; 4096]);
        let record = Record::write(Lsn::new(1), DiskIndex(0), 8192, payload);
        log.append(stamp, &[record]).unwrap();
        log.flush().unwrap();
    }

    #[test]
    fn a_log_is_counted_listed_and_verified_and_rot_is_found() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path());
        let found = look(dir.path(), None, Depth::Records).unwrap();
        assert_eq!(summary(&found).tail, Lsn::new(1));
        let lines = serde_json::to_value(records(&found)).unwrap();
        assert_eq!(lines[0]["kind"], "write");
        assert_eq!(lines[0]["offset"], 8192);
        verify(dir.path(), None, Format::Json).unwrap();

        rot(dir.path());
        let error = verify(dir.path(), None, Format::Table).unwrap_err();
        assert_eq!(error.status(), Status::Corrupt);
        assert!(error.to_string().contains("record 1"), "{error}");
    }

    /// Changes a byte in the one run of 4096 payload bytes that some file has.
    fn rot(dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(4096).position(|window| window == [0xa5; 4096]) {
                bytes[at + 100] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                return;
            }
        }
        panic!("no file has the payload");
    }

    #[test]
    fn a_look_makes_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing");
        assert!(look(&path, None, Depth::Records).is_err());
        assert!(!path.exists());
        assert!(look(dir.path(), None, Depth::Records).is_err(), "an empty directory is no log");
    }
}
