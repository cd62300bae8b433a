//! What a review of locks, roles and restarts found: each test is the sequence of events that went
//! wrong.

mod common;

use bytes::Bytes;
use common::*;
use landfall_blockdev::sim::{CutOptions, SimMedium, for_each_power_cut};
use landfall_types::{
    BranchId, Chain, Control, DiskIndex, Lsn, Record, WindowId, WindowMode, WindowOpen,
    WindowReason,
};
use landfall_volume::{
    Frame, ImagePiece, NewAuthority, NewTestBranch, PointSelector, Replica, Role,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Longer than any of these takes on a slow machine; a deadlock takes for ever.
const STUCK: Duration = Duration::from_secs(20);

fn authority(n: u8, point: PointSelector) -> NewAuthority {
    NewAuthority {
        id: BranchId::from_bytes([n; 16]),
        name: format!("epoch-{n}"),
        point,
        epoch: epoch(u64::from(n)),
    }
}

fn test_branch(n: u8) -> NewTestBranch {
    let id = BranchId::from_bytes([n; 16]);
    NewTestBranch { id, name: format!("test-{n}"), point: PointSelector::Newest }
}

/// Runs `work` on threads of their own; fails when one of them does not end.
fn all_end(work: Vec<Box<dyn FnOnce() + Send>>) {
    let (ended, ends) = mpsc::channel();
    let count = work.len();
    for (n, work) in work.into_iter().enumerate() {
        let ended = ended.clone();
        std::thread::spawn(move || {
            work();
            ended.send(n).expect("the test waits");
        });
    }
    drop(ended);
    for _ in 0..count {
        ends.recv_timeout(STUCK).expect("a thread waits for ever, or failed");
    }
}

/// Lock order: a frame with control records looks at the superblock while it holds the log, a view
/// at the newest position looks at the log while it holds the superblock.
#[test]
fn views_at_the_tail_do_not_stop_control_records() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let replica = Arc::new(replica);
    let done = Arc::new(AtomicBool::new(false));
    let (viewed, viewing) = (Arc::clone(&replica), Arc::clone(&done));
    let views = move || {
        while !viewing.load(Ordering::Relaxed) {
            drop(viewed.view(&PointSelector::Newest).expect("legal"));
        }
    };
    let ingest = move || {
        for _ in 0..2_000 {
            let geometry = landfall_types::control::Geometry {
                disk: 0,
                id: [10; 16],
                size_bytes: DISKS[0],
                sector_bytes: 512,
            };
            producer.push(|lsn| Record::control(lsn, &Control::Geometry(geometry)));
            producer.send(&replica);
        }
        done.store(true, Ordering::Relaxed);
    };
    all_end(vec![Box::new(views), Box::new(ingest)]);
}

/// Lock order: a write that begins within a sector reads under the log's append lock, while a view
/// at the newest position waits for that lock, and a fold for the view.
#[test]
fn views_writes_and_folds_of_a_committed_branch_go_on() {
    let medium = SimMedium::new(512);
    let (replica, _) = protected(&medium);
    replica.freeze().expect("frozen");
    let branch = replica.promote(&authority(2, PointSelector::Newest)).expect("promoted");
    replica.commit().expect("committed");
    let replica = Arc::new(replica);
    let done = Arc::new(AtomicBool::new(false));
    let until_done = |work: fn(&Replica)| -> Box<dyn FnOnce() + Send> {
        let (replica, done) = (Arc::clone(&replica), Arc::clone(&done));
        Box::new(move || {
            while !done.load(Ordering::Relaxed) {
                work(&replica);
            }
        })
    };
    let views = until_done(|replica| drop(replica.view(&PointSelector::Newest).expect("legal")));
    let folds = until_done(|replica| {
        if let Some(to) = replica.fold_limit(Lsn::MAX).expect("readable") {
            // A view may have been opened in between: then it is pinned.
            let _pinned = replica.fold(to);
        }
    });
    let writes = Box::new(move || {
        for n in 0..2_000_u64 {
            branch.write(DiskIndex(0), n % 500, &Bytes::from_static(b"abc")).expect("written");
        }
        done.store(true, Ordering::Relaxed);
    });
    all_end(vec![views, folds, writes]);
}

/// Lock order: a test branch is thrown away while it is written and the image is folded.
#[test]
fn test_branches_are_dropped_while_they_are_written() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let replica = Arc::new(replica);
    let done = Arc::new(AtomicBool::new(false));
    let (folded, folding) = (Arc::clone(&replica), Arc::clone(&done));
    let ingest_and_fold = move || {
        while !folding.load(Ordering::Relaxed) {
            producer.marker(1, None);
            producer.send(&folded);
            if let Some(to) = folded.fold_limit(Lsn::MAX).expect("readable") {
                let _pinned = folded.fold(to);
            }
        }
    };
    let branches = move || {
        for round in 0..300_u64 {
            let branch = replica.test_branch(&test_branch(1)).expect("made");
            let writers: Vec<_> = (0..2_u64)
                .map(|writer| {
                    let branch = Arc::clone(&branch);
                    std::thread::spawn(move || {
                        let at = writer * 512 + round % 500;
                        let bytes = Bytes::from_static(b"abc");
                        while branch.write(DiskIndex(0), at, &bytes).is_ok() {}
                    })
                })
                .collect();
            replica.drop_test_branch("test-1").expect("dropped");
            writers.into_iter().for_each(|writer| writer.join().expect("ended"));
        }
        done.store(true, Ordering::Relaxed);
    };
    all_end(vec![Box::new(ingest_and_fold), Box::new(branches)]);
}

/// T-4, T-6: another caller's flush makes the records of a frame durable before the frame's windows
/// were followed: the newest recovery point must not lie in them.
#[test]
fn t4_a_window_counts_before_its_records_are_durable() {
    let medium = SimMedium::new(512);
    let (replica, producer) = protected(&medium);
    let replica = Arc::new(replica);
    let done = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (looked_at, looking, found) = (Arc::clone(&replica), Arc::clone(&done), Arc::clone(&seen));
    let look = move || {
        while !looking.load(Ordering::Relaxed) {
            looked_at.flush().expect("flushed");
            let newest = looked_at.newest_legal().expect("readable").expect("one");
            found.lock().expect("not poisoned").insert(newest);
        }
    };
    let windows = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&windows);
    let ingest = move || {
        let (mut lsn, mut chain): (Lsn, Chain) = (producer.lsn(), producer.chain());
        for round in 0..60 {
            let mut records: Vec<Record> = Vec::new();
            for n in 0..2_000 {
                lsn = lsn.next();
                records.push(Record::zero(lsn, DiskIndex(0), n % 12 * 512, 512));
            }
            let open = lsn.next();
            records.push(Record::control(open, &window_open(100 + round, false)));
            records.push(Record::zero(open.next(), DiskIndex(0), 0, 512));
            lsn = open.plus(2);
            noted.lock().expect("not poisoned").push((open, lsn));
            let close = [Record::control(lsn, &window_close(100 + round, true))];
            for records in [&records[..], &close[..]] {
                let frame =
                    Frame { chain_before: chain, records, ..producer.frame(producer.lsn()) };
                replica.ingest(frame).expect("ingested");
                chain = records.iter().fold(chain, |chain, record| record.chain(chain));
            }
            replica.flush().expect("flushed");
        }
        done.store(true, Ordering::Relaxed);
    };
    all_end(vec![Box::new(look), Box::new(ingest)]);
    let seen = seen.lock().expect("not poisoned");
    for (open, close) in &*windows.lock().expect("not poisoned") {
        let inside = seen.range(*open..*close).next();
        assert_eq!(inside, None, "a position in the window {open:?} .. {close:?} was offered");
    }
}

/// T-9: a disk that grew before the failover keeps its size when the branch was committed, folded,
/// and opened again.
#[test]
fn t9_a_disk_that_grew_keeps_its_size_behind_a_commit() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let size_bytes = DISKS[0] + 1024;
    let geometry =
        landfall_types::control::Geometry { disk: 0, id: [10; 16], size_bytes, sector_bytes: 512 };
    producer.push(|lsn| Record::control(lsn, &Control::Geometry(geometry)));
    producer.send(&replica);
    replica.freeze().expect("frozen");
    let branch = replica.promote(&authority(2, PointSelector::Newest)).expect("promoted");
    branch.write(DiskIndex(0), DISKS[0], &Bytes::from(vec![7; 512])).expect("within the disk");
    replica.commit().expect("committed");
    replica.fold(branch.head()).expect("folded");
    drop((branch, replica));
    let replica = open_replica(&medium);
    let branch = replica.authority().expect("writable");
    assert_eq!(branch.geometry(DiskIndex(0)).expect("there").size_bytes, size_bytes);
    let mut tail = vec![0; 512];
    branch.read(DiskIndex(0), DISKS[0], &mut tail).expect("readable");
    assert_eq!(tail, vec![7; 512]);
}

/// P3: a view on what becomes divergence pins the image also when the divergence is discarded while
/// it is open.
#[test]
fn a_view_outlives_the_commit_that_leaves_it_behind() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &[1; 512]);
    let point = producer.marker(1, None).header.lsn;
    producer.write(0, 0, &[2; 512]);
    producer.write(0, 512, &[2; 512]);
    producer.send(&replica);
    let view = replica.view(&PointSelector::Newest).expect("legal");
    replica.freeze().expect("frozen");
    let promoted = replica.promote(&authority(2, PointSelector::Lsn(point)));
    let branch = promoted.expect("promoted");
    replica.commit().expect("committed");
    let names: Vec<String> =
        replica.status().expect("status").divergence.into_iter().map(|entry| entry.name).collect();
    replica.discard_divergence(&names).expect("discarded");
    for n in 0..4 {
        branch.write(DiskIndex(0), n * 512, &Bytes::from(vec![9; 512])).expect("written");
    }
    if let Some(to) = replica.fold_limit(Lsn::MAX).expect("readable") {
        replica.fold(to).expect("folded");
    }
    let _pinned = replica.fold(branch.head());
    assert_same(&read_view(&view), producer.content(), "the view at the end of the old log");
    drop(view);
    replica.fold(branch.head()).expect("nothing pins any more");
}

/// P6: opening a replica repairs its superblock; a power cut during that must not take the role
/// back.
#[test]
fn a_cut_while_opening_does_not_take_the_role_back() {
    let medium = SimMedium::new(512);
    let (replica, _) = protected(&medium);
    replica.freeze().expect("frozen");
    drop(replica);
    medium.root().sync().expect("synced");
    medium.restart_trace();
    drop(open_replica(&medium));
    let stat = for_each_power_cut(&medium.trace(), CutOptions::THOROUGH, |cut| {
        let replica = open_replica(&cut.medium);
        assert_eq!(replica.status().expect("status").role, Role::Frozen, "step {}", cut.step);
    });
    assert!(stat.cuts > 0);
}

/// RQ-FO: divergence is discarded by name, so each has its own, also when a branch's name was used
/// before.
#[test]
fn divergence_has_names_of_its_own() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.marker(1, None);
    producer.send(&replica);
    replica.freeze().expect("frozen");
    for n in 2..6 {
        let name = ["even", "odd"][usize::from(n % 2)].to_owned();
        let new = NewAuthority { name, ..authority(n, PointSelector::Newest) };
        replica.promote(&new).expect("another point");
    }
    let divergence = replica.status().expect("status").divergence;
    let names: BTreeSet<&String> = divergence.iter().map(|entry| &entry.name).collect();
    assert_eq!((divergence.len(), names.len()), (3, 3), "{names:?}");
}

fn piece(window: u64, byte: &[u8]) -> ImagePiece<'_> {
    let length = byte.len() as u64;
    ImagePiece { window: WindowId(window), disk: DiskIndex(0), offset: 0, length, data: Some(byte) }
}

/// Design section 14.5, P3: once there are recovery points nothing is copied into the image beneath
/// them.
#[test]
fn a_second_copy_into_the_image_is_refused() {
    let medium = SimMedium::new(512);
    let (replica, producer) = protected(&medium);
    let view = replica.view(&PointSelector::Newest).expect("legal");
    replica.image_write(piece(1, &[0; 512])).expect("a duplicate is no error");
    let refused = replica.image_write(piece(9, &[9; 512]));
    assert!(refused.is_err(), "the image was written beneath a recovery point");
    assert_same(&read_view(&view), producer.content(), "the first recovery point");
}

/// T-5: a first copy that another run of the agent replaced by a comparison can be closed, and
/// makes nothing legal.
#[test]
fn a_first_copy_that_was_given_up_can_be_closed() {
    let medium = SimMedium::new(512);
    let replica = new_replica(&medium);
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, blank(), false);
    producer.window_open(1, true);
    producer.send(&replica);
    // The agent ends before a piece is durable. The next run compares everything, in a window of
    // its own.
    let compare = Control::WindowOpen(WindowOpen {
        window: WindowId(2),
        reason: WindowReason::NewIncarnation,
        mode: WindowMode::Compare,
        disks: vec![0, 1],
        into_image: false,
    });
    producer.push(|lsn| Record::control(lsn, &compare));
    producer.write(0, 0, &[1; 512]);
    producer.window_close(1, true);
    producer.send(&replica);
    assert_eq!(replica.newest_legal().expect("readable"), None);
    producer.window_close(2, true);
    producer.send(&replica);
    assert_eq!(replica.newest_legal().expect("readable"), Some(producer.lsn()));
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), producer.content(), "the first recovery point");
}

/// P6: a freeze that is given up while the disks are handed over: either the one or the other.
#[test]
fn a_release_and_a_thaw_exclude_each_other() {
    for _ in 0..50 {
        let medium = SimMedium::new(512);
        let (replica, producer) = protected(&medium);
        replica.freeze().expect("frozen");
        let replica = Arc::new(replica);
        let (one, two) = (Arc::clone(&replica), Arc::clone(&replica));
        let (at, chain) = (producer.lsn(), producer.chain());
        all_end(vec![
            Box::new(move || drop(one.release(at, chain, epoch(3)))),
            Box::new(move || drop(two.thaw())),
        ]);
        let mut next = producer.clone();
        next.marker(5, None);
        let taken = replica.ingest(next.frame(next.lsn())).is_ok();
        let released = replica.status().expect("status").role == Role::Released;
        assert!(!(taken && released), "a released replica takes frames");
    }
}

/// A power cut during the repair of a log's superblock, after a cut that had left one intact copy:
/// that one stays.
#[test]
fn a_second_cut_during_a_logs_repair_leaves_it_readable() {
    let medium = SimMedium::new(512);
    let config = landfall_journal::LogConfig {
        log: landfall_types::LogId::from_bytes([5; 16]),
        replica: replica_id(),
        epoch: epoch(1),
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        segment_bytes: SEGMENT_BYTES,
    };
    let log = landfall_journal::Log::create(medium.root(), config).expect("created");
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, blank(), true);
    producer.marker(1, None);
    let stamp = landfall_journal::Stamp {
        epoch: producer.epoch,
        incarnation: producer.incarnation,
        source_position: 0,
    };
    log.append(stamp, &producer.records).expect("appended");
    log.flush().expect("flushed");
    medium.root().sync().expect("synced");
    medium.restart_trace();
    log.close().expect("both copies of the superblock are written anew");
    let open = |medium: &SimMedium| landfall_journal::Log::open(medium.root()).map(|(log, _)| log);
    for_each_power_cut(&medium.trace(), CutOptions::THOROUGH, |first| {
        let medium = first.medium.clone();
        medium.restart_trace();
        drop(open(&medium).expect("one copy is intact"));
        for_each_power_cut(&medium.trace(), CutOptions::THOROUGH, |second| {
            let log = open(&second.medium).unwrap_or_else(|error| {
                panic!(
                    "cut at {} {}, then {} {}: {error}",
                    first.step, first.mask, second.step, second.mask
                )
            });
            assert_eq!(log.tail().lsn, producer.lsn());
        });
    });
}

/// T-13: a release that was cut off behind its fold and given up leaves nothing in the way of the
/// next one.
#[test]
fn a_release_that_was_given_up_can_be_made_later() {
    // Images that are encrypted are not handed over.
    let medium = SimMedium::new(512).with_key(None);
    let (replica, mut producer) = protected(&medium);
    let early = producer.lsn();
    producer.write(0, 0, &[1; 512]);
    producer.send(&replica);
    replica.freeze().expect("frozen");
    replica.fold_with_undo(producer.lsn()).expect("the first half of a release");
    drop(replica);
    let replica = open_replica(&medium);
    replica.thaw().expect("given up");
    assert_same(&read_images(&medium), producer.content_at(early), "the old content is back");
    producer.write(0, 512, &[2; 512]);
    producer.send(&replica);
    replica.freeze().expect("frozen");
    replica.release(producer.lsn(), producer.chain(), epoch(3)).expect("released");
    assert_same(&read_images(&medium), producer.content(), "the disks");
}
