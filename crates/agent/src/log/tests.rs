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
    log.begin_incarnation(Incarnation::new(7), 0);
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
        rotten: vec![],
    }
}

fn marker() -> Marker {
    Marker { kind: MarkerKind::CrashConsistent, time_unix_ns: 1, name: None, group: None }
}

/// Guards P2. T-2: a block is read, then written and logged; what was read must not land behind it.
#[test]
fn t2_what_was_read_never_covers_a_newer_write() {
    let mut log = log_at(0);
    let window = open(&mut log, whole());
    let read = Bytes::from(vec![1; 4096]);
    log.captured(write(1024, &[2; 512]));
    log.captured(captured(CapturedKind::Discard, 2048, 512));
    assert_eq!(log.append_read(window, DISK, 0, &read), 4096 - 1024);
    let mut image = vec![9; SIZE as usize];
    replay(&mut image, &all(&log));
    assert!(image[1024..1536].iter().all(|byte| *byte == 2), "the newer write stays");
    assert!(image[2048..2560].iter().all(|byte| *byte == 0), "the discard stays");
    assert!(image[..1024].iter().all(|byte| *byte == 1));
    assert_eq!(log.append_read(window, DISK, 0, &read), 0, "sent once");
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
        let window = open(&mut log, whole());
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
            log.append_read(window, DISK, at, &read);
            at += length;
        }
        ring.drain(..).for_each(|record| log.captured(record));
        log.close_window(window, true).expect("it is the one that is caught up");
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
/// more than we have, or less than we and the bitmap still have, is never continued.
#[test]
fn t1_only_a_receiver_with_our_own_records_is_continued() {
    let mut log = log_at(10);
    let compare = ProducerResume::Compare;
    let follow = |log: &SourceLog, lsn, chain| log.follow(&position(lsn, chain), Lsn::new(12));
    assert_eq!(follow(&log, Lsn::new(10), Chain::ROOT), ProducerResume::Continue);
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
    assert_eq!(follow(&log, Lsn::new(12), chains[1]), ProducerResume::Continue);
    let other = Chain::from_bytes([3; 16]);
    let lsn = Lsn::new(12);
    assert_eq!(follow(&log, lsn, other), compare(Mismatch::OtherChain { lsn }));
    let (durable, tail) = (Lsn::new(15), Lsn::new(14));
    assert_eq!(follow(&log, durable, other), compare(Mismatch::Ahead { durable, tail }));
    log.acknowledged(Durable { here: Lsn::new(13), at_target: Lsn::new(12) });
    assert_eq!(follow(&log, Lsn::new(13), chains[2]), ProducerResume::Continue);
    assert_eq!(follow(&log, Lsn::new(12), chains[1]), ProducerResume::SendDirty);
    let (durable, base) = (Lsn::new(11), Lsn::new(13));
    let behind = Mismatch::Behind { durable, base };
    assert_eq!(follow(&log, durable, chains[0]), compare(behind), "bits were dropped since");
    let (durable, base) = (Lsn::new(12), Lsn::new(13));
    assert_eq!(log.read(Lsn::new(13), 1), Err(Mismatch::Behind { durable, base }));
}

#[test]
fn batches_are_dense_bounded_and_of_one_incarnation() {
    let mut log = log_at(0);
    for n in 0..5 {
        log.captured(write(n * 512, &[1; 512]));
    }
    log.begin_incarnation(Incarnation::new(8), 0);
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
    log.begin_incarnation(Incarnation::new(7), 0);
    assert_eq!(log.mark(marker()), None);
    let id = open(&mut log, whole());
    assert_eq!(id, WindowId(6), "named by its LSN");
    assert_eq!(log.mark(marker()), None);
    log.close_window(id, true).expect("open");
    assert_eq!(closings(&log), [(1, false), (1, false), (6, true)]);
    assert!(log.mark(marker()).is_some());
}

fn open(log: &mut SourceLog, ranges: BTreeMap<DiskIndex, RangeSet>) -> WindowId {
    log.open_window(WindowReason::NewIncarnation, WindowMode::Copy, CopyWindow::None, ranges)
}

/// Which windows closed, and whether exactly.
fn closings(log: &SourceLog) -> Vec<(u64, bool)> {
    let closing = |record: &Record| match Control::decode(&record.payload) {
        Ok(Control::WindowClose(close)) => Some((close.window.0, close.exact)),
        _ => None,
    };
    all(log).iter().filter_map(closing).collect()
}

/// Guards P3. T-4: a catch-up whose window was taken over by a later one can neither close the
/// later one nor put anything into the log.
#[test]
fn t4_work_for_a_window_that_was_taken_over_is_void() {
    let mut log = log_at(0);
    let first = open(&mut log, whole());
    let second = open(&mut log, whole());
    let read = Bytes::from(vec![1; 4096]);
    assert_eq!(log.append_read(first, DISK, 0, &read), 0);
    log.settle(first, DISK, ByteRange { start: 0, end: SIZE });
    assert_eq!(log.close_window(first, true), None);
    assert!(!log.legal());
    assert_eq!(log.append_read(second, DISK, 0, &read), 4096, "still pending for the second");
    assert!(log.close_window(second, true).is_some() && log.legal());
    assert_eq!(closings(&log), [(first.0, false), (second.0, true)]);
}

/// T-5: a catch-up that ended without byte capture leaves no recovery point, until an exact one.
#[test]
fn t5_no_marker_behind_an_inexact_closing() {
    let mut log = log_at(0);
    let fuzzy = open(&mut log, whole());
    log.close_window(fuzzy, false).expect("open");
    assert_eq!(log.mark(marker()), None);
    let none = BTreeMap::from([(DISK, RangeSet::new())]);
    let exact = open(&mut log, none);
    log.close_window(exact, true).expect("open");
    assert!(log.mark(marker()).is_some());
}

/// The pieces of a first copy name its window: it stays open while a later one goes on with it, and
/// closes with that one.
#[test]
fn the_window_of_a_first_copy_that_goes_on_stays_open() {
    let base = Tip { lsn: Lsn::new(3), chain: Chain::ROOT };
    let mut log = SourceLog::new(epoch(), base, &[WindowId(1), WindowId(2)]);
    log.begin_incarnation(Incarnation::new(7), 0);
    let (reason, mode) = (WindowReason::NewIncarnation, WindowMode::Compare);
    let id = log.open_window(reason, mode, CopyWindow::GoesOn(WindowId(1)), whole());
    assert_eq!(closings(&log), [(2, false)]);
    log.close_window(id, true).expect("open");
    assert_eq!(closings(&log), [(2, false), (1, true), (id.0, true)]);
    assert!(log.legal());
}

/// A failed write: no window closes before its range was read again.
#[test]
fn a_range_of_a_failed_write_is_read_again_before_the_window_closes() {
    let mut log = log_at(0);
    log.captured(captured(CapturedKind::Failed, 512, 1024));
    assert_eq!(log.unknown()[&DISK].bytes(), 1024);
    let window = open(&mut log, BTreeMap::new());
    assert_eq!(log.close_window(window, true), None);
    assert_eq!(log.take_unknown(window)[&DISK].bytes(), 1024);
    let read = Bytes::from(vec![5; 1024]);
    assert_eq!(log.append_read(window, DISK, 512, &read), 1024);
    assert!(log.close_window(window, true).is_some());
}

/// What is freed in the ring is what the next hop has.
#[test]
fn the_ring_is_acknowledged_up_to_the_last_durable_record() {
    let mut log = log_at(0);
    for n in 1..=3 {
        log.captured(Captured { ring_position: n * 100, ..write(0, &[1; 512]) });
    }
    assert_eq!((log.ring_position(), log.acknowledged_ring()), (300, 0));
    log.acknowledged(Durable { here: Lsn::new(2), at_target: Lsn::ZERO });
    assert_eq!(log.acknowledged_ring(), 200);
    log.begin_incarnation(Incarnation::new(8), 7);
    log.acknowledged(Durable { here: Lsn::new(3), at_target: Lsn::ZERO });
    assert_eq!(log.acknowledged_ring(), 7, "that record was of another ring");
}

#[test]
fn zeroes_are_sent_as_such_and_large_reads_in_pieces() {
    let mut log = log_at(0);
    let size = 3 * PAYLOAD_BYTES_MAX as u64;
    let disk = BTreeMap::from([(DISK, RangeSet::of(ByteRange { start: 0, end: size }))]);
    let window = open(&mut log, disk);
    let mut data = vec![0; size as usize];
    data[PAYLOAD_BYTES_MAX] = 1;
    log.append_read(window, DISK, 0, &Bytes::from(data));
    let kinds: Vec<_> =
        all(&log)[1..].iter().map(|r| (r.payload.len(), r.header.catch_up)).collect();
    assert_eq!(kinds, [(0, true), (PAYLOAD_BYTES_MAX, true), (0, true)]);
}
