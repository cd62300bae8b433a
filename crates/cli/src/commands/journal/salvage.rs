use crate::args::SalvageArgs;
use crate::failure::Failure;
use crate::output::{self, Format};
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::{BlockDevice as _, FileDevice, FsDir, OpenMode};
use landfall_journal::salvage::{DamagedRange, Salvage, salvage};
use landfall_types::{DiskIndex, LogId, Lsn, RecordKind, ReplicaId};
use serde::Serialize;
use std::path::Path;

/// What is left of a log.
#[derive(Debug, Serialize)]
struct Left {
    log: Option<LogId>,
    replica: Option<ReplicaId>,
    base: Lsn,
    records: usize,
    last: Option<Lsn>,
    /// First and last position of what is missing.
    damaged: Vec<(Lsn, Lsn)>,
    /// How far the copy was written, if one was asked for.
    onto: Option<Applied>,
}

#[derive(Debug, Serialize)]
struct Applied {
    through: Lsn,
    records: u64,
}

/// Reads a log that may be damaged; what is missing decides the exit status.
pub(super) fn salvage_log(args: &SalvageArgs, format: Format) -> Result<(), Failure> {
    let failed =
        |error: anyhow::Error| Failure::Other(error.context(args.path.display().to_string()));
    let dir = FsDir::open(&args.path).map_err(|error| failed(error.into()))?;
    let mut found = salvage(&dir).map_err(|error| failed(error.into()))?;
    found.verify(|_| ()).map_err(|error| failed(error.into()))?;
    let onto = args.onto.as_ref().map(|copy| {
        let applied = apply(&found, copy, args);
        applied.map_err(|error| Failure::Other(error.context(copy.display().to_string())))
    });
    let onto = onto.transpose()?;
    let left = Left {
        log: found.log,
        replica: found.replica,
        base: found.base,
        records: found.records().len(),
        last: found.records().last().map(|record| record.header.lsn),
        damaged: found.damaged.iter().map(|range| (range.first, range.last)).collect(),
        onto,
    };
    output::print(format, &left, text);
    match found.damaged.first() {
        None => Ok(()),
        Some(DamagedRange { first, last }) => {
            let cause = format!(
                "{}: records {first} to {last} can't be had; {} damaged ranges in all",
                args.path.display(),
                found.damaged.len()
            );
            Err(ApiError::new(&codes::CORRUPT, cause).into())
        }
    }
}

fn text(left: &Left) -> String {
    let last = left.last.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
    let mut text = format!("{} records behind {} up to {last}", left.records, left.base);
    for (first, last) in &left.damaged {
        text = format!("{text}\nMISSING {first} to {last}");
    }
    if let Some(onto) = &left.onto {
        text = format!("{text}\nthe copy is at {}: {} records written", onto.through, onto.records);
    }
    text
}

/// Writes the records of a disk in order onto a copy of its image, which holds everything up to
/// `after`. Ends before the first damaged range: what lies behind it would be put over content that
/// is missing a write.
fn apply(found: &Salvage, copy: &Path, args: &SalvageArgs) -> anyhow::Result<Applied> {
    let device = FileDevice::open(copy, OpenMode::ReadWrite)?;
    let (disk, after) = (DiskIndex(args.disk.unwrap_or(0)), args.after.unwrap_or(Lsn::ZERO));
    let damaged = || found.damaged.iter().filter(|range| range.last > after);
    let end = match damaged().next() {
        Some(range) if !args.past_damage => range.first,
        _ => Lsn::MAX,
    };
    let lost = |lsn: Lsn| damaged().any(|range| range.first <= lsn && lsn <= range.last);
    let mut applied = Applied { through: after, records: 0 };
    // Older ones are in the image, perhaps beneath newer ones that are missing here.
    let wanted = found.records().iter().filter(|record| record.header.lsn > after);
    for record in wanted.take_while(|record| record.header.lsn < end) {
        let header = &record.header;
        if lost(header.lsn) {
            continue;
        }
        applied.through = header.lsn;
        let Some(range) = header.range().filter(|_| header.disk == disk) else { continue };
        match header.kind {
            RecordKind::Write => device.write_at(range.start, &found.read(record)?)?,
            RecordKind::Zero | RecordKind::Discard => device.zero(range.start, range.len())?,
            RecordKind::Control => continue,
        }
        applied.records += 1;
    }
    device.flush()?;
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use landfall_journal::{Log, LogConfig, Stamp};
    use landfall_types::{Chain, Epoch, EpochId, Incarnation, Record};
    use std::os::unix::fs::FileExt as _;

    /// P5: up to the damage the copy is what the disk was; behind it nothing is guessed.
    #[test]
    fn a_copy_gets_what_the_log_still_has() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, copy) = (temp.path().join("log"), temp.path().join("copy"));
        let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
        let config = LogConfig {
            log: LogId::generate(),
            replica: ReplicaId::generate(),
            epoch,
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            segment_bytes: 1 << 20,
        };
        let log = Log::create(std::sync::Arc::new(FsDir::open_or_create(&folder).unwrap()), config)
            .unwrap();
        let stamp = Stamp { epoch, incarnation: Incarnation::new(1), source_position: 0 };
        for lsn in 1..=6_u8 {
            let data = Bytes::from(vec![0x50 + lsn; 4096]);
            let at = Lsn::new(lsn.into());
            let record = Record::write(at, DiskIndex(0), u64::from(lsn % 3) * 4096, data);
            log.append(stamp, &[record]).unwrap();
            log.flush().unwrap();
        }
        log.close().unwrap();
        drop(log);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(512).position(|window| window == [0x55; 512]) {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[0], at as u64 + 9).unwrap();
            }
        }
        let run = |past_damage| {
            std::fs::write(&copy, vec![0xee; 3 * 4096]).unwrap();
            let args = SalvageArgs {
                path: folder.clone(),
                disk: Some(0),
                onto: Some(copy.clone()),
                after: Some(Lsn::new(2)),
                past_damage,
            };
            let ended = salvage_log(&args, Format::Json).unwrap_err();
            assert!(ended.to_string().contains("5 to 5"), "{ended}");
            let bytes = std::fs::read(&copy).unwrap();
            bytes.chunks(4096).map(|block| block[0]).collect::<Vec<_>>()
        };
        assert_eq!(run(false), [0x53, 0x54, 0xee], "records 3 and 4");
        assert_eq!(run(true), [0x56, 0x54, 0xee], "and 6");
    }
}
