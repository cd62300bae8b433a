//! Many threads on one log, on a real file system: order, durability and reading while it is
//! written and trimmed.

use landfall_blockdev::FsDir;
use landfall_journal::{JournalError, Log, LogConfig, Position, Stamp};
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Record, ReplicaId,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const THREADS: u64 = 4;
const APPENDS: u64 = 150;

fn dir(path: &Path) -> Arc<FsDir> {
    Arc::new(FsDir::open(path).expect("open the directory"))
}

fn config(segment_bytes: u64) -> LogConfig {
    LogConfig {
        log: LogId::generate(),
        replica: ReplicaId::generate(),
        epoch: stamp().epoch,
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        segment_bytes,
    }
}

fn create(path: &Path) -> Log {
    Log::create(dir(path), config(256 << 10)).expect("create")
}

fn stamp() -> Stamp {
    let epoch = Epoch { number: 1, id: EpochId::new(1), parent: None };
    Stamp { epoch, incarnation: Incarnation::new(1), source_position: 0 }
}

/// Content that tells its LSN, of a length that varies.
fn payload(lsn: Lsn) -> Vec<u8> {
    let length = 1 + usize::try_from(lsn.get() * 7919 % 5000).expect("small");
    lsn.get().to_le_bytes().into_iter().cycle().take(length).collect()
}

fn append_one(log: &Log) -> Result<Position, JournalError> {
    let (position, ()) = log.append_with(|tail| {
        let lsn = tail.lsn.next();
        let record = Record::write(lsn, DiskIndex(0), lsn.get() * 512, payload(lsn).into());
        Ok::<_, JournalError>((stamp(), vec![record], ()))
    })?;
    Ok(position)
}

/// Every acknowledged append is there after reopening, in one order without gaps; listeners hear
/// positions that only rise; readers never see anything but what was written, also while segments
/// are trimmed and their files used again.
#[test]
fn appends_flushes_reads_and_trims_at_once() {
    let temp = tempfile::tempdir().expect("tempdir");
    let log = create(temp.path());
    let heard = Arc::new(Mutex::new(vec![Lsn::ZERO]));
    let hearing = Arc::clone(&heard);
    log.on_durable(Box::new(move |position| {
        hearing.lock().expect("lock").push(position.lsn);
    }));
    let acknowledged = AtomicU64::new(0);
    let writing = AtomicU64::new(THREADS);
    let read = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..APPENDS {
                    let position = append_one(&log).expect("append");
                    let durable = log.wait_durable(position.lsn).expect("flush");
                    assert!(durable.lsn >= position.lsn);
                    acknowledged.fetch_max(position.lsn.get(), Ordering::SeqCst);
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while writing.load(Ordering::SeqCst) > 0 {
                read.fetch_add(read_all(&log), Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while writing.load(Ordering::SeqCst) > 0 {
                let tail = log.tail().lsn.get();
                log.trim(Lsn::new(tail.saturating_sub(200))).expect("trim");
            }
        });
    });
    assert_eq!(acknowledged.load(Ordering::SeqCst), THREADS * APPENDS);
    assert!(
        read.load(Ordering::SeqCst) > 0 && log.base().0 > Lsn::ZERO,
        "nothing was read or trimmed"
    );
    let heard = heard.lock().expect("lock");
    assert!(heard.is_sorted() && heard.last() == Some(&log.tail().lsn));
    let (tail, base) = (log.tail(), log.base());
    drop(log);
    let (log, _) = Log::open(dir(temp.path())).expect("open");
    assert_eq!((log.tail(), log.base()), (tail, base));
    assert_eq!(read_all(&log), tail.lsn.records_since(base.0));
}

/// Reads every kept record; how many.
fn read_all(log: &Log) -> u64 {
    let Ok(entries) = log.entries(log.base().0, log.tail().lsn) else { return 0 };
    let mut read = 0;
    for entry in &entries {
        match log.read(entry) {
            Ok(bytes) => {
                assert_eq!(bytes, payload(entry.header.lsn));
                read += 1;
            }
            Err(JournalError::Trimmed { .. }) => {}
            Err(error) => panic!("{}: {error}", entry.header.lsn),
        }
    }
    read
}

/// What is appended can be read before it is flushed: a branch reads its own writes.
#[test]
fn unflushed_records_can_be_read_but_not_sent() {
    let temp = tempfile::tempdir().expect("tempdir");
    let log = create(temp.path());
    for _ in 0..20 {
        append_one(&log).expect("append");
    }
    assert_eq!(read_all(&log), 20);
    assert_eq!(log.batch(Lsn::new(1), 1 << 20).expect("batch"), None, "not durable, so not sent");
    log.flush().expect("flush");
    let batch = log.batch(Lsn::new(5), 1 << 20).expect("batch").expect("records");
    assert_eq!(batch.records.len(), 16);
    assert_eq!(
        Some(batch.chain_before),
        log.position_at(Lsn::new(4)).expect("readable").map(|p| p.chain)
    );
    assert!(matches!(log.batch(Lsn::ZERO, 1), Err(JournalError::Trimmed { .. })));
    assert!(matches!(log.wait_durable(Lsn::new(21)), Err(JournalError::Beyond { .. })));
    assert!(matches!(log.entries(Lsn::ZERO, Lsn::new(21)), Err(JournalError::Beyond { .. })));
}

/// What the log refuses it does not take.
#[test]
fn wrong_records_are_refused() {
    let temp = tempfile::tempdir().expect("tempdir");
    let log = create(temp.path());
    append_one(&log).expect("append");
    let record = |lsn| Record::write(Lsn::new(lsn), DiskIndex(0), 0, vec![1; 10].into());
    let mut broken = record(2);
    broken.header.payload_crc ^= 1;
    let mut no_control = record(2);
    no_control.header.kind = landfall_types::RecordKind::Control;
    let old = Epoch { number: 0, id: EpochId::new(9), parent: None };
    let same_number = Epoch { number: 1, id: EpochId::new(9), parent: None };
    let refused = [
        (log.append(stamp(), &[record(3)]), "a gap"),
        (log.append(stamp(), &[record(1)]), "a duplicate"),
        (log.append(stamp(), &[record(2), record(2)]), "one twice"),
        (log.append(stamp(), &[broken]), "a wrong checksum"),
        (log.append(stamp(), &[no_control]), "a control record that is none"),
        (log.append(Stamp { epoch: old, ..stamp() }, &[record(2)]), "an epoch that is over"),
        (log.append(Stamp { epoch: same_number, ..stamp() }, &[record(2)]), "another epoch"),
    ];
    for (result, what) in refused {
        assert!(result.is_err(), "{what} was taken");
        assert_eq!(log.tail().lsn, Lsn::new(1), "{what} left something");
    }
    log.append(stamp(), &[]).expect("nothing is no error");
    let id = log.id();
    drop(log);
    assert!(matches!(
        Log::create(dir(temp.path()), config(256 << 10)),
        Err(JournalError::Exists(found)) if found == id
    ));
    for segment_bytes in [0, 512, 256 << 10 | 1, 2 << 30] {
        let temp = tempfile::tempdir().expect("tempdir");
        let refused = Log::create(dir(temp.path()), config(segment_bytes));
        assert!(matches!(refused, Err(JournalError::SegmentBytes { .. })), "{segment_bytes}");
    }
}

/// Records of the largest size, and more than one frame or segment takes.
#[test]
fn large_appends_are_split_and_come_back_whole() {
    let temp = tempfile::tempdir().expect("tempdir");
    let large = config(4 << 20);
    let log = Log::create(dir(temp.path()), large).expect("create");
    let record = |lsn: u64| {
        let data = vec![lsn.to_le_bytes()[0]; landfall_types::PAYLOAD_BYTES_MAX];
        Record::write(Lsn::new(lsn), DiskIndex(0), 0, data.into())
    };
    let records: Vec<Record> = (1..=40).map(record).collect();
    log.append(stamp(), &records).and_then(|()| log.flush()).expect("append");
    assert!(log.stat().segments.len() > 2);
    let mut found = Vec::new();
    while let Some(batch) = log.batch(Lsn::new(found.len() as u64 + 1), 3 << 20).expect("batch") {
        assert!(batch.records.len() <= 12, "at most the bytes that were asked for");
        found.extend(batch.records);
    }
    assert!(found == records);
    let small = config(64 << 10);
    let temp = tempfile::tempdir().expect("tempdir");
    let log = Log::create(dir(temp.path()), small).expect("create");
    assert!(matches!(log.append(stamp(), &[record(1)]), Err(JournalError::TooLong { .. })));
}

/// Two writers would cut off each other's records: the second is refused, and nothing is touched.
#[test]
fn one_writer_has_a_log() {
    let temp = tempfile::tempdir().expect("tempdir");
    let log = create(temp.path());
    append_one(&log).and_then(|_| log.flush()).expect("append");
    assert!(matches!(Log::open(dir(temp.path())), Err(JournalError::InUse { .. })));
    let refused = Log::create(dir(temp.path()), config(256 << 10));
    assert!(matches!(refused, Err(JournalError::InUse { .. })));
    append_one(&log).and_then(|_| log.flush()).expect("the first goes on");
    drop(log);
    let (log, _) = Log::open(dir(temp.path())).expect("the first has ended");
    assert_eq!(log.tail().lsn, Lsn::new(2));
}

/// Large appends are written by helpers while they are copied; whatever the order of their writes,
/// the log is whole at the flush, and no write comes after the log has been given up.
#[test]
fn what_helpers_write_is_whole_also_when_the_log_is_dropped_at_once() {
    let temp = tempfile::tempdir().expect("tempdir");
    let mut log = Log::create(dir(temp.path()), config(8 << 20)).expect("create");
    let mut durable = Lsn::ZERO;
    for round in 0..12_u8 {
        let first = log.tail().lsn;
        let records: Vec<Record> = (1..=20_u64)
            .map(|n| {
                let data = vec![round; landfall_types::PAYLOAD_BYTES_MAX];
                Record::write(first.plus(n), DiskIndex(0), n, data.into())
            })
            .collect();
        log.append(stamp(), &records).expect("append");
        if round % 3 == 0 {
            durable = log.flush().expect("flush").lsn;
        } else if round % 3 == 1 {
            drop(log);
            log = Log::open(dir(temp.path())).expect("open").0;
            assert!(log.tail().lsn >= durable);
        }
        for entry in log.entries(log.base().0, log.tail().lsn).expect("entries") {
            let bytes = log.read(&entry).expect("read");
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        }
    }
}

/// Small syncs in a large segment: the next segment's file is filled while this one is written, and
/// what is then written into it is there after another opening, also when that comes while the
/// filling is under way.
#[test]
fn segments_are_filled_ahead_where_syncs_are_small() {
    let temp = tempfile::tempdir().expect("tempdir");
    let mut log = Log::create(dir(temp.path()), config(4 << 20)).expect("create");
    let (mut filled, mut rolled) = (0, 0);
    for round in 0.. {
        append_one(&log).and_then(|_| log.flush()).expect("append");
        filled += usize::from(log.stat().spare_files > 0);
        if rolled < log.segments_kept() && filled > 0 {
            rolled = log.segments_kept();
        }
        if round % 331 == 330 {
            drop(log);
            log = Log::open(dir(temp.path())).expect("open").0;
        }
        if rolled > 3 && round > 1200 {
            break;
        }
        assert!(round < 20_000, "no file was filled ahead");
    }
    for entry in log.entries(log.base().0, log.tail().lsn).expect("entries") {
        assert_eq!(log.read(&entry).expect("read"), payload(entry.header.lsn));
    }
}
