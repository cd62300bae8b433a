//! The traps that a replica closes, each as the sequence of events that would lose or mix data.

mod common;

use bytes::Bytes;
use common::*;
use landfall_blockdev::sim::{Rot, SimMedium};
use landfall_types::{
    BranchId, Chain, Class, Control, DiskGeometry, DiskIndex, InstanceId, Lsn, Record, UnixNanos,
    WindowId,
};
use landfall_volume::{
    ContentError, FoldError, ImageOwner, ImagePiece, IngestError, NewAuthority, NewTestBranch,
    OLD_DISKS, PointError, PointSelector, Replica, Role, RoleError,
};

fn lsn(n: u64) -> Lsn {
    Lsn::new(n)
}
fn authority(n: u8, point: PointSelector) -> NewAuthority {
    NewAuthority {
        id: BranchId::from_bytes([n; 16]),
        name: format!("epoch-{n}"),
        point,
        epoch: epoch(u64::from(n)),
    }
}
fn test_branch(n: u8, point: PointSelector) -> NewTestBranch {
    NewTestBranch { id: BranchId::from_bytes([100 + n; 16]), name: format!("test-{n}"), point }
}
fn data(byte: u8) -> Vec<u8> {
    vec![byte; SECTOR as usize]
}

/// T-1, P3: records under positions that were used already are no duplicates unless their chain is
/// the same.
#[test]
fn t1_a_renumbered_record_is_refused() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let before = producer.clone();
    producer.write(0, 0, &data(1));
    producer.write(0, 512, &data(2));
    producer.send(&replica);
    // The sender lost its memory of them, and numbers other writes the same.
    let mut revenant = before.clone();
    revenant.write(0, 0, &data(9));
    let refused = replica.ingest(revenant.frame(before.lsn().next()));
    assert!(matches!(refused, Err(IngestError::ChainMismatch { .. })), "{refused:?}");
    // The same records again are dropped, also together with new ones.
    producer.write(1, 0, &data(3));
    replica.ingest(producer.frame(before.lsn().next())).expect("duplicates and one new record");
    replica.flush().expect("flushed");
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), producer.content(), "after duplicates");
    let gap = replica.ingest(landfall_volume::Frame {
        records: &[Record::zero(producer.lsn().plus(2), DiskIndex(0), 0, 512)],
        ..producer.frame(producer.lsn())
    });
    assert!(matches!(gap, Err(IngestError::Gap { .. })), "{gap:?}");
}

/// T-4, P3: the interior of overlapping windows can't be viewed, branched or folded to.
#[test]
fn t4_nothing_is_made_inside_windows() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.window_open(5, false);
    producer.window_open(6, false);
    producer.write(0, 0, &data(1));
    producer.window_close(6, true);
    let inside = producer.write(0, 512, &data(2)).header.lsn;
    producer.window_close(5, true);
    producer.send(&replica);
    let point = PointSelector::Lsn(inside);
    let in_window = |error: RoleError| {
        assert!(matches!(error, RoleError::Point(PointError::InWindow { .. })), "{error:?}");
        assert_eq!(error.code(), "point-in-window");
    };
    in_window(replica.view(&point).expect_err("inside"));
    in_window(replica.test_branch(&test_branch(1, point.clone())).expect_err("inside"));
    replica.freeze().expect("frozen");
    in_window(replica.promote(&authority(2, point)).expect_err("inside"));
    let refused = replica.fold(inside);
    assert!(matches!(refused, Err(FoldError::NotLegal(_))), "{refused:?}");
    replica.fold(producer.lsn()).expect("its end is legal");
}

/// T-5, P3: before the first exact window has closed there is no recovery point, and none after an
/// inexact one.
#[test]
fn t5_no_point_before_an_exact_window() {
    let medium = SimMedium::new(512);
    let replica = new_replica(&medium);
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, blank(), false);
    producer.window_open(1, false);
    producer.write(0, 0, &data(1));
    producer.marker(1, None);
    producer.window_close(1, false);
    producer.marker(2, None);
    producer.send(&replica);
    assert_eq!(replica.newest_legal().expect("readable"), None);
    assert_eq!(replica.choices().expect("readable"), landfall_volume::Choices::default());
    let none = replica.view(&PointSelector::Newest).expect_err("no point");
    assert_eq!(none.code(), "no-point-yet");
    producer.window_open(2, false);
    producer.window_close(2, true);
    producer.marker(3, None);
    producer.send(&replica);
    let choices = replica.choices().expect("readable");
    assert_eq!(choices.points.len(), 1);
    assert_eq!(choices.legal, [(producer.lsn().prev(), producer.lsn())]);
    // The verdict is the log's, not the process's.
    drop(replica);
    let replica = open_replica(&medium);
    assert_eq!(replica.choices().expect("readable"), choices);
}

/// T-5, design section 14.5: a first copy can't close exactly before the image durably has all of
/// it.
#[test]
fn t5_a_first_copy_closes_only_with_the_whole_image() {
    let medium = SimMedium::new(512);
    let replica = new_replica(&medium);
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, blank(), false);
    producer.window_open(1, true);
    producer.send(&replica);
    let piece = |disk, offset, length| ImagePiece {
        window: WindowId(1),
        disk: DiskIndex(disk),
        offset,
        length,
        data: None,
    };
    replica.image_write(piece(0, 0, DISKS[0])).expect("in order");
    let gap = replica.image_write(piece(1, 512, 512));
    assert!(matches!(gap, Err(IngestError::Piece(_))), "{gap:?}");
    replica.image_flush().expect("flushed");
    let mut early = producer.clone();
    early.window_close(1, true);
    let refused = replica.ingest(early.frame(early.lsn()));
    assert!(matches!(refused, Err(IngestError::ImageIncomplete { .. })), "{refused:?}");
    replica.image_write(piece(1, 0, DISKS[1])).expect("in order");
    // Written but not durable is not enough.
    let refused = replica.ingest(early.frame(early.lsn()));
    assert!(matches!(refused, Err(IngestError::ImageIncomplete { .. })), "{refused:?}");
    replica.image_flush().expect("flushed");
    early.send(&replica);
    assert_eq!(replica.newest_legal().expect("readable"), Some(early.lsn()));
}

/// T-6, P3: fold never passes the newest recovery point, nor what a view or branch needs.
#[test]
fn t6_fold_stops_at_recovery_points_and_pins() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &data(1));
    let legal = producer.marker(1, None).header.lsn;
    producer.window_open(9, false);
    producer.write(0, 0, &data(2));
    producer.send(&replica);
    // The retention would take everything; the window is open.
    assert_eq!(replica.fold_limit(Lsn::MAX).expect("readable"), Some(legal));
    let refused = replica.fold(producer.lsn());
    assert!(matches!(refused, Err(FoldError::NotLegal(_))), "{refused:?}");
    let early = replica.view(&PointSelector::Lsn(legal.prev())).expect("legal");
    let expected = producer.content_at(early.at()).clone();
    let refused = replica.fold(legal);
    assert!(matches!(refused, Err(FoldError::Pinned { .. })), "{refused:?}");
    assert_same(&read_view(&early), &expected, "a pinned view");
    drop(early);
    replica.fold(legal).expect("nothing pins it");
    assert_same(&read_images(&medium), producer.content_at(legal), "image");
    // The newest recovery point is the image itself now, and stays one.
    assert_eq!(replica.newest_legal().expect("readable"), Some(legal));
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), producer.content_at(legal), "folded view");
    let gone = replica.view(&PointSelector::Lsn(legal.prev())).expect_err("folded away");
    assert_eq!(gone.code(), "no-such-point");
}

/// T-9, P5: a write outside the disk is refused with all of its frame, and nothing that was there
/// is lost.
#[test]
fn t9_a_write_outside_the_disk_is_refused() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &data(1));
    producer.send(&replica);
    let before = producer.clone();
    for make in [
        |lsn| Record::write(lsn, DiskIndex(0), DISKS[0] - 512, Bytes::from(vec![1; 1024])),
        |lsn| Record::zero(lsn, DiskIndex(1), DISKS[1], 512),
        |lsn| Record::discard(lsn, DiskIndex(1), u64::MAX - 512, 512),
    ] {
        let inside = Record::write(before.lsn().next(), DiskIndex(0), 512, data(2).into());
        let records = [inside, make(before.lsn().plus(2))];
        let frame = landfall_volume::Frame { records: &records, ..before.frame(before.lsn()) };
        let frame = landfall_volume::Frame { chain_before: before.chain(), ..frame };
        let refused = replica.ingest(frame);
        assert!(matches!(refused, Err(IngestError::OutOfBounds { .. })), "{refused:?}");
    }
    let unknown = [Record::zero(before.lsn().next(), DiskIndex(2), 0, 512)];
    let frame = landfall_volume::Frame { records: &unknown, ..before.frame(before.lsn()) };
    let refused = replica.ingest(landfall_volume::Frame { chain_before: before.chain(), ..frame });
    assert!(matches!(refused, Err(IngestError::UnknownDisk { .. })), "{refused:?}");
    assert_eq!(replica.flush().expect("flushed").lsn, before.lsn());
    producer.write(0, 512, &data(3));
    producer.send(&replica);
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), producer.content(), "after the refusals");
}

/// T-9: a disk's size is part of the point: old points keep the old size, new ones have the new
/// one, also after a fold and a restart.
#[test]
fn t9_the_size_is_part_of_the_point() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let old = producer.write(0, 0, &data(1)).header.lsn;
    let grown = DISKS[0] + 1024;
    let geometry = landfall_types::control::Geometry {
        disk: 0,
        id: [10; 16],
        size_bytes: grown,
        sector_bytes: 512,
    };
    producer.push(|lsn| Record::control(lsn, &Control::Geometry(geometry.clone())));
    producer.send(&replica);
    let size = |replica: &Replica, point| {
        replica.view(&point).expect("legal").geometry(DiskIndex(0)).expect("there")
    };
    let expected = |size_bytes| DiskGeometry { size_bytes, sector_bytes: 512 };
    assert_eq!(size(&replica, PointSelector::Lsn(old)), expected(DISKS[0]));
    assert_eq!(size(&replica, PointSelector::Newest), expected(grown));
    let frame_at = producer.lsn();
    let beyond = Record::write(frame_at.next(), DiskIndex(0), DISKS[0], data(7).into());
    let frame = landfall_volume::Frame {
        records: std::slice::from_ref(&beyond),
        ..producer.frame(frame_at)
    };
    replica
        .ingest(landfall_volume::Frame { chain_before: producer.chain(), ..frame })
        .expect("fits now");
    replica.flush().expect("flushed");
    let mut tail = vec![0; 1024];
    let check = |replica: &Replica, tail: &mut Vec<u8>| {
        let view = replica.view(&PointSelector::Newest).expect("legal");
        view.read(DiskIndex(0), DISKS[0], tail).expect("readable");
        assert_eq!(tail[..512], data(7)[..]);
        assert_eq!(tail[512..], [0; 512]);
    };
    check(&replica, &mut tail);
    replica.fold(frame_at.next()).expect("folds");
    check(&replica, &mut tail);
    drop(replica);
    let replica = open_replica(&medium);
    assert_eq!(size(&replica, PointSelector::Newest), expected(grown));
    check(&replica, &mut tail);
    let mut coarse = geometry;
    coarse.sector_bytes = 4096;
    let record = Record::control(frame_at.plus(2), &Control::Geometry(coarse));
    let frame = landfall_volume::Frame {
        epoch: epoch(1),
        incarnation: producer.incarnation,
        source_position: 0,
        chain_before: replica.flush().expect("flushed").chain,
        records: std::slice::from_ref(&record),
    };
    assert!(matches!(replica.ingest(frame), Err(IngestError::Geometry { .. })));
}

/// T-10, P2: a branch's write is answered only when no power cut can take it back.
#[test]
fn t10_an_answered_write_survives_a_power_cut() {
    let medium = SimMedium::new(512);
    let (replica, producer) = protected(&medium);
    let mut expected = producer.content().clone();
    replica.freeze().expect("frozen");
    let branch = replica.promote(&authority(2, PointSelector::Newest)).expect("promoted");
    for (n, offset) in [(1, 0), (2, 512), (3, 256)] {
        branch.write(DiskIndex(0), offset, &Bytes::from(data(n))).expect("answered");
        expected[0][offset as usize..][..512].fill(n);
        // Nothing that was not synced survives.
        let after = open_replica(&medium.fork_durable());
        let branch = after.branch("epoch-2").expect("served again");
        assert_same(&read_branch(&branch), &expected, "after the cut");
    }
    branch.zero(DiskIndex(0), 100, 300).expect("answered");
    expected[0][100..400].fill(0);
    branch.discard(DiskIndex(1), 0, 512).expect("answered");
    let after = open_replica(&medium.fork_durable());
    assert_same(&read_branch(&after.branch("epoch-2").expect("there")), &expected, "zeroes");
}

/// T-11, section 7: another instance, another history and an epoch that is over are refused before
/// any position is compared.
#[test]
fn t11_another_instance_is_refused() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let other = InstanceId::from_bytes([8; 16]);
    let refused = replica.greet(&lineage(), other);
    assert!(matches!(refused, Err(IngestError::OtherInstance(_))), "{refused:?}");
    assert_eq!(refused.expect_err("refused").class(), Class::Fenced);
    replica.greet(&lineage(), instance()).expect("ours");
    let foreign = landfall_types::Lineage::root(epoch(1).number_plus_random());
    let refused = replica.greet(&foreign, instance());
    assert!(matches!(refused, Err(IngestError::Diverged { .. })), "{refused:?}");
    producer.epoch = epoch(3);
    producer.write(0, 0, &data(1));
    let refused = replica.ingest(producer.frame(producer.lsn()));
    assert!(matches!(refused, Err(IngestError::Fenced { .. })), "{refused:?}");
}

trait OtherEpoch {
    fn number_plus_random(self) -> Self;
}
impl OtherEpoch for landfall_types::Epoch {
    /// The same number with another random half (trap T-17).
    fn number_plus_random(self) -> Self {
        Self { id: landfall_types::EpochId::new(99), ..self }
    }
}

/// T-15: old disks are not touched before the window has closed and what they held was discarded by
/// name; then they can be put back.
#[test]
fn t15_old_disks_stay_untouched_until_discarded_by_name() {
    let medium = SimMedium::new(512);
    let old: Content = DISKS.iter().map(|size| vec![0x77; *size as usize]).collect();
    for (index, bytes) in old.iter().enumerate() {
        let disk = config(ImageOwner::Ours, lineage(), Lsn::ZERO, Chain::ROOT).disks[index].clone();
        images(&medium).create(&disk.image, disk.geometry).expect("made");
        let device = images(&medium).open(&disk.image, ImageOwner::Foreign).expect("opened");
        device.write_at(0, bytes).expect("written");
        device.flush().expect("flushed");
    }
    let base = lsn(40);
    let base_chain = Chain::from_bytes([3; 16]);
    let config = config(ImageOwner::Foreign, lineage(), base, base_chain);
    let replica = create(&medium, config);
    medium.root().sync().expect("synced");
    let mut producer = Producer::new(epoch(1), base, base_chain, old.clone(), false);
    producer.window_open(1, false);
    producer.write(0, 512, &data(1));
    producer.push(|lsn| Record::zero(lsn, DiskIndex(1), 0, 1024).as_catch_up());
    producer.send(&replica);
    assert_eq!(replica.newest_legal().expect("readable"), None, "no point before the closing");
    assert_eq!(replica.fold_limit(Lsn::MAX).expect("readable"), None);
    producer.window_close(1, true);
    producer.marker(1, None);
    producer.send(&replica);
    let end = (producer.lsn(), producer.chain());
    replica.freeze().expect("frozen");
    let kept = replica.release(end.0, end.1, epoch(2)).expect_err("not discarded");
    assert_eq!(kept.code(), "divergence-kept");
    assert_same(&read_images(&medium), &old, "old disks");
    let unknown = replica.discard_divergence(&["nothing".to_owned()]);
    assert!(matches!(unknown, Err(RoleError::UnknownDivergence(_))));
    replica.discard_divergence(&[OLD_DISKS.to_owned()]).expect("by name");
    let wrong = replica.release(end.0, Chain::from_bytes([9; 16]), epoch(2));
    assert!(matches!(wrong, Err(RoleError::OtherPosition { .. })), "another history (T-17)");
    // Only then can it be told later that nobody else has written.
    replica.scrub(&landfall_volume::Unpaced, 1).expect("scrubbed");
    let released = replica.release(end.0, end.1, epoch(2)).expect("released");
    assert_eq!(released.disks, ["disk-0", "disk-1"]);
    assert_same(&read_images(&medium), producer.content(), "home's disks");
    assert_eq!(replica.release(end.0, end.1, epoch(2)).expect("again"), released);
    replica.unrelease().expect("nothing wrote there");
    assert_same(&read_images(&medium), &old, "put back");
    assert_eq!(replica.status().expect("status").role, Role::Frozen);
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), producer.content(), "still in the journal");
    // Released again, and written by the machine: undo would leave its writes in (T-13).
    replica.release(end.0, end.1, epoch(3)).expect("a higher epoch");
    let device = images(&medium).open("disk-0", ImageOwner::Foreign).expect("opened");
    device.write_at(700, b"the machine's").expect("written");
    let refused = replica.unrelease();
    let Err(RoleError::Fold(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, FoldError::ForeignWrite { .. }), "{error:?}");
    assert_eq!(replica.status().expect("status").role, Role::Released);
}

/// T-17, P6: an epoch number makes one branch writable once; the former export is revoked before
/// the new one exists; a change of point is refused after commit; all of it survives restarts.
#[test]
fn t17_one_branch_writes_per_epoch() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &data(1));
    let early = producer.marker(1_000, None).header.lsn;
    producer.write(0, 0, &data(2));
    producer.marker(2_000, None);
    producer.send(&replica);
    let running = replica.promote(&authority(2, PointSelector::Newest));
    assert!(matches!(running, Err(RoleError::WrongRole { .. })), "frames still come");
    replica.freeze().expect("frozen");
    let frames = replica.ingest(producer.frame(producer.lsn()));
    assert!(matches!(frames, Err(IngestError::NotReplicating(Role::Frozen))));
    let first = replica.promote(&authority(2, PointSelector::Newest)).expect("promoted");
    first.write(DiskIndex(1), 0, &Bytes::from(data(5))).expect("has authority");
    let again =
        replica.promote(&authority(2, PointSelector::Newest)).expect("the same order again");
    assert_eq!(again.entry().log, first.entry().log);
    for number in [1, 2] {
        let mut stale = authority(9, PointSelector::Lsn(early));
        stale.epoch = epoch(number);
        let refused = replica.promote(&stale).expect_err("used");
        assert!(matches!(refused, RoleError::EpochNotHigher { .. }), "{refused:?}");
        assert_eq!(refused.class(), Class::Fenced);
    }
    first.write(DiskIndex(1), 512, &Bytes::from(data(6))).expect("still has authority");

    let second = replica.promote(&authority(3, PointSelector::Lsn(early))).expect("another point");
    assert!(first.revoked() && !second.revoked());
    let refused = first.write(DiskIndex(1), 0, &Bytes::from(data(7)));
    assert!(matches!(refused, Err(ContentError::Revoked)));
    assert_same(&read_branch(&second), producer.content_at(early), "the other point");
    let parent = second.entry().lineage.clone().expect("has authority");
    assert_eq!(parent.entries().len(), 2);
    assert_eq!(parent.epoch().parent, Some(epoch(1).id), "forked from the replicated history");
    let lost = replica.divergence_view("epoch-2").expect("readable");
    let mut expected = producer.content().clone();
    expected[1][..512].fill(5);
    expected[1][512..1024].fill(6);
    assert_same(&read_view(&lost), &expected, "divergence");
    drop(lost);

    drop(replica);
    let replica = open_replica(&medium);
    assert!(replica.branch("epoch-2").is_none());
    let back = replica.promote(&authority(4, PointSelector::Newest)).expect("latest again");
    assert_same(&read_branch(&back), producer.content(), "latest");
    replica.commit().expect("committed");
    replica.commit().expect("twice is no error");
    let refused = replica.promote(&authority(5, PointSelector::Newest)).expect_err("committed");
    assert_eq!(refused.code(), "point-change-refused");
    assert!(!back.revoked());
    drop(replica);
    let replica = open_replica(&medium);
    assert!(replica.authority().is_some(), "served again without the configuration server");
    assert_eq!(replica.status().expect("status").lineage.epoch().number, 4);
}

/// T-17: a demotion ends the export for good and gives the same receipt when asked again; following
/// takes frames of the next epoch only.
#[test]
fn t17_demote_and_follow() {
    let medium = SimMedium::new(512);
    let (replica, producer) = protected(&medium);
    replica.freeze().expect("frozen");
    let branch = replica.promote(&authority(2, PointSelector::Newest)).expect("promoted");
    branch.write(DiskIndex(0), 0, &Bytes::from(data(1))).expect("written");
    assert!(matches!(replica.demote(UnixNanos(1)), Err(RoleError::NotCommitted)));
    replica.commit().expect("committed");
    let receipt = replica.demote(UnixNanos(1)).expect("demoted");
    assert_eq!(replica.demote(UnixNanos(2)).expect("again"), receipt);
    assert!(matches!(
        branch.write(DiskIndex(0), 0, &Bytes::from(data(2))),
        Err(ContentError::Revoked)
    ));
    let branch = replica.undemote().expect("given up");
    branch.write(DiskIndex(0), 512, &Bytes::from(data(3))).expect("writable again");
    let receipt = replica.demote(UnixNanos(3)).expect("demoted");
    drop(replica);
    let replica = open_replica(&medium);
    assert!(replica.authority().is_none());
    assert_eq!(replica.demote(UnixNanos(4)).expect("again"), receipt);
    assert!(matches!(replica.thaw(), Err(RoleError::Demoted { .. })));
    let early = replica.follow(epoch(3), receipt.lsn.prev(), instance());
    assert!(matches!(early, Err(RoleError::OtherPosition { .. })));
    let stale = replica.follow(epoch(2), receipt.lsn, instance());
    assert!(matches!(stale, Err(RoleError::EpochNotHigher { .. })));
    let home = InstanceId::from_bytes([9; 16]);
    replica.follow(epoch(3), receipt.lsn, home).expect("follows");
    replica.follow(epoch(3), receipt.lsn, home).expect("twice is no error");
    let lineage = replica.status().expect("status").lineage;
    assert!(replica.greet(&lineage, instance()).is_err(), "the old instance");
    let standing = replica.greet(&lineage, home).expect("home");
    assert_eq!((standing.durable.lsn, standing.durable.chain), (receipt.lsn, receipt.chain));
    let mut content = producer.content().clone();
    content[0][..512].fill(1);
    content[0][512..1024].fill(3);
    let mut home = Producer::new(epoch(3), receipt.lsn, receipt.chain, content, true);
    home.write(1, 512, &data(4));
    home.marker(9, None);
    home.send(&replica);
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), home.content(), "after the return");
    home.epoch = epoch(2);
    home.write(1, 0, &data(8));
    let refused = replica.ingest(home.frame(home.lsn()));
    assert!(matches!(refused, Err(IngestError::Fenced { .. })), "{refused:?}");
}

/// P7: a test branch changes nothing beside itself, runs beside replication, and is gone when
/// dropped.
#[test]
fn p7_a_test_branch_is_harmless() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &data(1));
    producer.send(&replica);
    let at = producer.content().clone();
    let branch = replica.test_branch(&test_branch(1, PointSelector::Newest)).expect("made");
    let taken = NewTestBranch {
        id: BranchId::from_bytes([55; 16]),
        ..test_branch(1, PointSelector::Newest)
    };
    assert!(matches!(replica.test_branch(&taken), Err(RoleError::NameTaken(_))));
    branch.write(DiskIndex(0), 0, &Bytes::from(data(9))).expect("written");
    producer.write(0, 0, &data(2));
    producer.write(1, 0, &data(3));
    producer.send(&replica);
    let mut expected = at;
    expected[0][..512].fill(9);
    assert_same(&read_branch(&branch), &expected, "branch");
    let view = replica.view(&PointSelector::Newest).expect("legal");
    assert_same(&read_view(&view), producer.content(), "replica");
    drop(view);
    drop((branch, replica));
    let replica = open_replica(&medium);
    let branch = replica.branch("test-1").expect("survives a restart");
    assert_same(&read_branch(&branch), &expected, "branch after a restart");
    replica.drop_test_branch("test-1").expect("dropped");
    replica.drop_test_branch("test-1").expect("twice is no error");
    assert!(branch.revoked() && replica.branches().is_empty());
    assert_eq!(medium.files().iter().filter(|(path, _)| path.contains("/log-")).count(), {
        let fresh = SimMedium::new(512);
        let _kept = protected(&fresh);
        fresh.files().iter().filter(|(path, _)| path.contains("/log-")).count()
    });
    replica.fold(producer.lsn()).expect("nothing pins it any more");
}

/// P5: rot in a payload is refused, never served; the rest is still read.
#[test]
fn p5_rot_is_never_served() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &[0xabu8; 2048]);
    producer.write(1, 0, &data(1));
    producer.send(&replica);
    drop(replica);
    let files = medium.files();
    let replica = open_replica(&medium);
    let view = replica.view(&PointSelector::Newest).expect("legal");
    // Payload bytes are found by their pattern: no knowledge of the log's format is needed.
    let mut seen = 0;
    for (path, length) in files.iter().filter(|(path, _)| path.contains("/log-")) {
        for at in (0..*length).step_by(512) {
            // It rots while the log is open: what rots before that is found when the log is opened.
            let rotten = medium.fork();
            let replica = open_replica(&rotten);
            let view = replica.view(&PointSelector::Newest).expect("legal");
            rotten.rot(path, at, Rot::Flip(7));
            let mut bytes = vec![0; 2048];
            match view.read(DiskIndex(0), 0, &mut bytes) {
                Ok(()) => assert_eq!(bytes, [0xab; 2048], "served rot of {path} at {at}"),
                Err(error) => {
                    assert_eq!(error.class(), Class::Corrupt);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 0, "no rot ever met the payload");
    assert_same(&read_view(&view), producer.content(), "the healthy medium");
}

/// RQ-RE-4: the estimate is the 4 KiB blocks that either side touched since the fork, each once.
#[test]
fn the_estimate_counts_touched_blocks_once() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let fork = producer.marker(1, None).header.lsn;
    producer.write(0, 0, &data(1));
    producer.write(0, 512, &data(1));
    producer.send(&replica);
    replica.freeze().expect("frozen");
    let branch = replica.promote(&authority(2, PointSelector::Lsn(fork))).expect("promoted");
    branch.write(DiskIndex(0), 1024, &Bytes::from(data(2))).expect("written");
    branch.write(DiskIndex(1), 0, &Bytes::from(data(2))).expect("written");
    for _ in 0..2 {
        let estimate = replica.estimate().expect("readable");
        assert_eq!((estimate.bytes, estimate.complete), (4096 + 4096, true));
        assert_eq!(estimate.total_bytes, DISKS.iter().sum::<u64>());
        replica.commit().expect("committed");
    }
    let status = replica.status().expect("status");
    assert_eq!(status.divergence.len(), 1);
    let divergence = replica.divergence().expect("readable");
    assert_eq!(divergence[0].written_bytes, 1024);
}

/// Hashes are of the newest content, also where it comes from image, log and zeroes.
#[test]
fn hashes_are_of_the_newest_content() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 256, &data(1));
    producer.send(&replica);
    let whole = landfall_types::ByteRange { start: 0, end: DISKS[0] };
    let hashes = replica.hash(DiskIndex(0), whole, 1000, producer.lsn()).expect("hashed");
    let expected: Vec<[u8; 16]> = producer.content()[0]
        .chunks(1000)
        .map(|block| blake3::hash(block).as_bytes()[..16].try_into().expect("16"))
        .collect();
    assert_eq!(hashes, expected);
    let early = replica.hash(DiskIndex(0), whole, 1000, producer.lsn().next());
    assert!(matches!(early, Err(ContentError::NotYet { .. })));
}
