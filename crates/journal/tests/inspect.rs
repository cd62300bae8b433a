//! Listings of healthy and of damaged logs.

use landfall_blockdev::sim::{Rot, SimMedium};
use landfall_journal::inspect::{Depth, Problem, inspect};
use landfall_journal::{JournalError, Log, LogConfig, Stamp};
use landfall_types::{
    Chain, Control, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Record, ReplicaId,
    WindowClose, WindowId,
};

const SECTOR: u64 = 512;

fn log_of_three_segments() -> (SimMedium, Log) {
    let medium = SimMedium::new(512);
    let config = LogConfig {
        log: LogId::from_bytes([1; 16]),
        replica: ReplicaId::from_bytes([2; 16]),
        epoch: epoch(),
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        segment_bytes: 16 * SECTOR,
    };
    let log = Log::create(medium.root(), config).expect("create");
    for lsn in 1..=30 {
        let stamp =
            Stamp { epoch: epoch(), incarnation: Incarnation::new(5), source_position: lsn };
        let record = if lsn == 4 {
            let close = WindowClose { window: WindowId(1), exact: true };
            Record::control(Lsn::new(lsn), &Control::WindowClose(close))
        } else {
            Record::write(Lsn::new(lsn), DiskIndex(0), 512 * lsn, vec![7; 300].into())
        };
        log.append(stamp, &[record]).and_then(|()| log.flush()).expect("append");
    }
    assert!(log.stat().segments.len() >= 3);
    (medium, log)
}

fn epoch() -> Epoch {
    Epoch { number: 1, id: EpochId::new(1), parent: None }
}

fn problems(medium: &SimMedium) -> Vec<Problem> {
    inspect(&*medium.root(), Depth::Payloads).expect("inspect").problems()
}

#[test]
fn a_healthy_log_is_listed_and_has_no_problems() {
    let (medium, log) = log_of_three_segments();
    let before = medium.trace().ops().len();
    let found = inspect(&*medium.root(), Depth::Payloads).expect("inspect");
    assert_eq!(found.problems(), []);
    assert_eq!((found.base, found.tail()), (Lsn::ZERO, Lsn::new(30)));
    assert_eq!(found.segments.len(), log.stat().segments.len());
    assert!(found.segments[0].indexed && !found.segments[found.segments.len() - 1].indexed);
    let listing = found.listing().to_string();
    assert!(listing.contains("4 control") && listing.contains("exact: true"), "{listing}");
    assert!(listing.contains("30 write disk 0 at 15360 300 bytes"), "{listing}");
    assert_eq!(medium.trace().ops().len(), before, "looking at a log changed it");
    assert!(matches!(
        inspect(&*SimMedium::new(512).root(), Depth::Records),
        Err(JournalError::NotALog)
    ));
}

#[test]
fn damage_is_named() {
    let (healthy, log) = log_of_three_segments();
    let rotten = |path: &str, offset: u64| {
        let medium = healthy.fork();
        medium.rot(path, offset, Rot::Flip(300));
        problems(&medium)
    };
    // The first frame's payload lies behind its header of 160 bytes.
    assert_eq!(rotten("segment-00000000", SECTOR), [Problem::Payload { lsn: Lsn::new(1) }]);
    assert!(matches!(rotten("superblock", 0)[..], [Problem::Superblock(_)]));
    let sequence = 1;
    let trailer = 15 * SECTOR;
    let lost = healthy.fork();
    lost.rot("segment-00000000", trailer, Rot::Zero);
    assert_eq!(problems(&lost), [Problem::IndexLost { sequence }]);
    assert!(problems(&lost).iter().all(|problem| !problem.is_damage()));
    let short = healthy.fork();
    short.rot("segment-00000000", SECTOR, Rot::Zero);
    let expected = log.stat().segments[1].base;
    assert_eq!(problems(&short), [Problem::SegmentShort { sequence, found: Lsn::ZERO, expected }]);
    let missing = healthy.fork();
    missing.root().remove("segment-00000001").expect("remove");
    let after = expected;
    assert_eq!(problems(&missing), [Problem::SegmentMissing { after }]);
    assert!(problems(&missing).iter().all(Problem::is_damage));
    // Opening agrees; where the index is intact it can name the one record that is gone.
    assert!(matches!(Log::open(missing.root()), Err(JournalError::Corrupt { .. })));
    let (opened, _) = Log::open(short.root()).expect("open");
    let entries = opened.entries(Lsn::ZERO, Lsn::new(2)).expect("entries");
    let first = opened.read(&entries[0]);
    assert!(matches!(first, Err(JournalError::Corrupt { lsn, .. }) if lsn == Lsn::new(1)));
    opened.read(&entries[1]).expect("the next one is intact");
    log.close().expect("close");
    let ended = healthy.fork();
    let last = log.stat().segments[log.stat().segments.len() - 1];
    let at = last.used_bytes - SECTOR;
    ended.rot(&format!("segment-{:08x}", last.sequence - 1), at, Rot::Zero);
    assert!(
        matches!(problems(&ended)[..], [Problem::EndMissing { floor, .. }] if floor == Lsn::new(30))
    );
}
