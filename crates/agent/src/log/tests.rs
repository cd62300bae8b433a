use super::*;
use landfall_testkit::{Rng, seed};
use landfall_types::{EpochId, Lineage, MarkerKind};

const DISK: DiskIndex = DiskIndex(0);
const SIZE: u64 = 64 * 512;

fn epoch() -> Epoch {
    Epoch { number: 1, id: EpochId::new(1), parent: None }
}

fn log_at(lsn: u64) -> SourceLog {
    let mut log = SourceLog::new(epoch(), Tip { lsn: Lsn::new(lsn), chain: Chain::ROOT }, &[]);
    log.begin_incarnation(Incarnation::new(7));
    log
}

fn captured(kind: CapturedKind, offset: u64, length: u64) -> Captured {
    Captured { disk: DISK, kind, offset, length, ring_position: 0, time_ns: 0 }
}

fn write(offset: u64, data: &[u8]) -> Captured {
    captured(CapturedKind::Write(Bytes::copy_from_slice(data)), offset, data.len() as u64)
}

fn whole() -> BTreeMap<DiskIndex, RangeSet> {
    BTreeMap::from([(DISK, RangeSet::of(ByteRange { start: 0, end: SIZE }))])
}

fn all(log: &SourceLog) -> Vec<Record> {
    let first = log.base.lsn.next();
    log.read(first, usize::MAX).expect("it is here").map_or_else(Vec::new, |batch| batch.records)
}

/// What a receiver's disk holds after these records.
fn replay(image: &mut [u8], records: &[Record]) {
    for record in records {
        let Some(range) = record.header.range() else { continue };
        let place = &mut image[range.start as usize..range.end as usize];
        if record.payload.is_empty() {
            place.fill(0)
        } else {
            place.copy_from_slice(&record.payload)
        }
    }
}

fn position(lsn: Lsn, chain: Chain) -> ReceiverPosition {
    ReceiverPosition {
        lineage: Lineage::root(epoch()),
        incarnation: Incarnation::new(7),
        durable: lsn,
        chain,
        source_position: 0,
        durable_at_target: lsn,
        image_copy: None,
        open_windows: vec![],
    }
}

fn marker() -> Marker {
    Marker { kind: MarkerKind::CrashConsistent, time_unix_ns: 1, name: None, group: None }
}

/// Guards P2. T-2: a block is read, then written and logged; what was read must not land behind it.
#[test]
fn t2_what_was_read_never_covers_a_newer_write() {
    let mut log = log_at(0);
    log.open_window(WindowReason::NewIncarnation, WindowMode::Compare, false, whole());
    let read = Bytes::from(vec![1; 4096]);
    log.captured(write(1024, &[2; 512]));
    log.captured(captured(CapturedKind::Discard, 2048, 512));
    assert_eq!(log.append_read(DISK, 0, &read), 4096 - 1024);
    let mut image = vec![9; SIZE as usize];
    replay(&mut image, &all(&log));
    assert!(image[1024..1536].iter().all(|byte| *byte == 2), "the newer write stays");
    assert!(image[2048..2560].iter().all(|byte| *byte == 0), "the discard stays");
    assert!(image[..1024].iter().all(|byte| *byte == 1));
    assert_eq!(log.append_read(DISK, 0, &read), 0, "sent once");
}

/// Guards P2. T-2 with random interleavings: a disk that is written while it is caught up, with
/// every write in the log before or after the append of what was read, ends up equal at the
/// receiver.
#[test]
fn t2_random_interleavings_end_equal() {
    let mut rng = Rng::new(seed("t2 interleavings"));
    for _ in 0..300 {
        let mut disk = vec![0; SIZE as usize];
        rng.fill(&mut disk);
        let mut image = vec![0; SIZE as usize];
        let mut log = log_at(5);
        // What the ring holds and the log does not yet.
        let mut ring: VecDeque<Captured> = VecDeque::new();
        log.open_window(WindowReason::NewIncarnation, WindowMode::Copy, false, whole());
        let mut at = 0;
        while at < SIZE {
            let length = 512 * (1 + rng.below(8)).min((SIZE - at) / 512);
            let range = at as usize..(at + length) as usize;
            random_writes(&mut rng, &mut disk, &mut ring);
            let read = Bytes::copy_from_slice(&disk[range]);
            let head = ring.len();
            random_writes(&mut rng, &mut disk, &mut ring);
            // The rule: drained up to the head at the end of the read; perhaps further.
            let drain = head + rng.below((ring.len() - head + 1) as u64) as usize;
            ring.drain(..drain).for_each(|record| log.captured(record));
            log.append_read(DISK, at, &read);
            at += length;
        }
        ring.drain(..).for_each(|record| log.captured(record));
        log.close_windows();
        replay(&mut image, &all(&log));
        assert_eq!(image, disk);
        assert!(log.mark(marker()).is_some(), "the window is closed");
    }
}

fn random_writes(rng: &mut Rng, disk: &mut [u8], ring: &mut VecDeque<Captured>) {
    for _ in 0..rng.below(4) {
        let first = rng.below(SIZE / 512);
        let length = 512 * (1 + rng.below(4)).min(SIZE / 512 - first);
        let offset = first * 512;
        let place = &mut disk[offset as usize..(offset + length) as usize];
        if rng.one_in(4) {
            place.fill(0);
            ring.push_back(captured(CapturedKind::Zero, offset, length));
        } else {
            rng.fill(place);
            ring.push_back(write(offset, place));
        }
    }
}

/// Guards P1. T-1 at the sender: a receiver that has other records under the same positions, or
/// more than we have, or less than we still have, is never continued.
#[test]
fn t1_only_a_receiver_with_our_own_records_is_continued() {
    let mut log = log_at(10);
    assert!(log.check(&position(Lsn::new(10), Chain::ROOT)).is_ok());
    for n in 0..4 {
        log.captured(write(n * 512, &[n as u8; 512]));
    }
    let chains: Vec<Chain> = all(&log)
        .iter()
        .scan(Chain::ROOT, |c, r| {
            *c = r.chain(*c);
            Some(*c)
        })
        .collect();
    assert!(log.check(&position(Lsn::new(12), chains[1])).is_ok());
    let other = Chain::from_bytes([3; 16]);
    let lsn = Lsn::new(12);
    assert_eq!(log.check(&position(lsn, other)), Err(Mismatch::OtherChain { lsn }));
    let (durable, tail) = (Lsn::new(15), Lsn::new(14));
    assert_eq!(log.check(&position(durable, other)), Err(Mismatch::Ahead { durable, tail }));
    log.acknowledged(Durable { here: Lsn::new(13), at_target: Lsn::new(11) });
    assert!(log.check(&position(Lsn::new(13), chains[2])).is_ok());
    let (durable, base) = (Lsn::new(12), Lsn::new(13));
    assert_eq!(log.check(&position(durable, chains[1])), Err(Mismatch::Behind { durable, base }));
    assert_eq!(log.read(Lsn::new(13), 1), Err(Mismatch::Behind { durable, base }));
}

#[test]
fn batches_are_dense_bounded_and_of_one_incarnation() {
    let mut log = log_at(0);
    for n in 0..5 {
        log.captured(write(n * 512, &[1; 512]));
    }
    log.begin_incarnation(Incarnation::new(8));
    log.captured(write(0, &[2; 512]));
    let record_bytes = HEADER_BYTES + 512;
    let batch = log.read(Lsn::new(1), 2 * record_bytes).expect("here").expect("some");
    assert_eq!((batch.first(), batch.last()), (Lsn::new(1), Lsn::new(2)));
    let next = log.read(Lsn::new(3), usize::MAX).expect("here").expect("some");
    assert_eq!((next.first(), next.last()), (Lsn::new(3), Lsn::new(5)), "one incarnation");
    assert_eq!(next.chain_before, batch.chain_after());
    let last = log.read(Lsn::new(6), 1).expect("here").expect("at least one record");
    assert_eq!((last.incarnation, last.records.len()), (Incarnation::new(8), 1));
    assert_eq!(last.chain_after(), log.tail().chain);
    assert_eq!(log.read(Lsn::new(7), 1), Ok(None), "nothing yet");
    log.acknowledged(Durable { here: Lsn::new(6), at_target: Lsn::ZERO });
    assert_eq!(log.queued_bytes(), 0);
}

#[test]
fn markers_wait_for_every_window_also_those_of_others() {
    let base = Tip { lsn: Lsn::new(3), chain: Chain::ROOT };
    let mut log = SourceLog::new(epoch(), base, &[WindowId(1), WindowId(1)]);
    log.begin_incarnation(Incarnation::new(7));
    assert_eq!(log.mark(marker()), None);
    let id = log.open_window(WindowReason::NewIncarnation, WindowMode::Compare, false, whole());
    assert_eq!(id, WindowId(4), "named by its LSN");
    assert_eq!(log.mark(marker()), None);
    log.close_windows();
    let closings = all(&log)
        .iter()
        .filter(|r| matches!(Control::decode(&r.payload), Ok(Control::WindowClose(_))))
        .count();
    assert_eq!(closings, 3);
    assert!(log.mark(marker()).is_some());
}

/// A failed write: its range is read again in a window of its own.
#[test]
fn failed_writes_make_their_range_unknown_until_a_window_covers_it() {
    let mut log = log_at(0);
    log.captured(captured(CapturedKind::Failed, 512, 1024));
    let unknown = log.unknown().clone();
    assert_eq!(unknown[&DISK].bytes(), 1024);
    log.open_window(WindowReason::CaptureGap, WindowMode::Copy, false, unknown);
    assert!(log.unknown().is_empty());
    let read = Bytes::from(vec![5; 1024]);
    assert_eq!(log.append_read(DISK, 512, &read), 1024);
}

#[test]
fn zeroes_are_sent_as_such_and_large_reads_in_pieces() {
    let mut log = log_at(0);
    let size = 3 * PAYLOAD_BYTES_MAX as u64;
    let disk = BTreeMap::from([(DISK, RangeSet::of(ByteRange { start: 0, end: size }))]);
    log.open_window(WindowReason::NewIncarnation, WindowMode::Copy, false, disk);
    let mut data = vec![0; size as usize];
    data[PAYLOAD_BYTES_MAX] = 1;
    log.append_read(DISK, 0, &Bytes::from(data));
    let kinds: Vec<_> =
        all(&log)[1..].iter().map(|r| (r.payload.len(), r.header.catch_up)).collect();
    assert_eq!(kinds, [(0, true), (PAYLOAD_BYTES_MAX, true), (0, true)]);
}
