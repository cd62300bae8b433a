//! Rot: never served, found by the scrub, and named for exactly the points that resolve to it.

mod common;

use common::*;
use landfall_blockdev::BlockDevice;
use landfall_blockdev::sim::SimMedium;
use landfall_testkit::{Rng, seed};
use landfall_types::{Chain, DiskIndex, Lsn};
use landfall_volume::{
    ContentError, FoldError, FoldPace, ImageOwner, PointSelector, Replica, Rot, Unpaced,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// These tests look for plain bytes on the medium, and change them there; `sealed.rs` has their
/// like for encrypted replicas.
fn plain() -> SimMedium {
    SimMedium::new(512).with_key(None)
}

fn device(medium: &SimMedium, disk: u16) -> std::sync::Arc<dyn BlockDevice> {
    images(medium).open(&format!("disk-{disk}"), ImageOwner::Ours).expect("there")
}

/// Changes one sector of an image behind the store's back.
fn rot_image(medium: &SimMedium, disk: u16, offset: u64) {
    let device = device(medium, disk);
    let mut sector = vec![0; 512];
    device.read_at(offset, &mut sector).expect("read");
    sector[17] ^= 0x40;
    device.write_at(offset, &sector).expect("written");
    device.flush().expect("flushed");
}

/// Changes the journal where a payload of one repeated byte stands. The log stays open: what rots
/// before is found when it is opened.
fn rot_journal(medium: &SimMedium, fill: u8) {
    for (path, length) in medium.files().iter().filter(|(path, _)| path.contains("/log-")) {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let name = parts.pop().expect("a file has a name");
        let root = medium.root();
        let dir = parts.iter().fold(root, |dir, part| dir.subdir(part).expect("there"));
        let mut bytes = vec![0; *length as usize];
        dir.open(name).and_then(|file| file.read_at(0, &mut bytes)).expect("read");
        if let Some(at) = bytes.windows(512).position(|window| window.iter().all(|b| *b == fill)) {
            let inside = at as u64 + 100;
            let flip = landfall_blockdev::sim::Rot::Flip((inside % 512) as _);
            medium.rot(path, inside, flip);
            return;
        }
    }
    panic!("no payload of {fill:#x} in the journal");
}

fn is_corrupt(error: &ContentError) -> bool {
    error.class() == landfall_types::Class::Corrupt
}

/// Of every position the verdict that a naive look gives: can all of both disks be read?
fn readable(replica: &Replica, at: Lsn) -> bool {
    let view = replica.view(&PointSelector::Lsn(at)).expect("kept");
    (0..).zip(DISKS).all(|(disk, size)| {
        let mut bytes = vec![0; size as usize];
        match view.read(DiskIndex(disk), 0, &mut bytes) {
            Ok(()) => true,
            Err(error) => {
                assert!(is_corrupt(&error), "{error:?}");
                false
            }
        }
    })
}

fn check_verdicts(replica: &Replica, producer: &Producer, first: Lsn) -> u64 {
    let corrupt = replica.choices().expect("listed").corrupt;
    let mut bad = 0;
    for at in first.get()..=producer.lsn().get() {
        let at = Lsn::new(at);
        let named = corrupt.iter().any(|(first, last)| *first <= at && at <= *last);
        assert_eq!(readable(replica, at), !named, "position {at}: {corrupt:?}");
        bad += u64::from(named);
    }
    bad
}

/// Guards P5. T-20: a record rots; exactly the positions that resolve to it are corrupt, and a
/// later record makes the ones after it good, and none before.
#[test]
fn t20_a_rotten_record_spoils_exactly_its_points() {
    let medium = plain();
    let (replica, mut producer) = protected(&medium);
    let first = producer.lsn();
    producer.write(0, 0, &[1; 2048]);
    producer.write(0, 512, &[0xab; 1024]);
    producer.write(1, 0, &[2; 512]);
    producer.write(0, 512, &[3; 512]);
    producer.send(&replica);
    rot_journal(&medium, 0xab);
    let report = replica.scrub(&Unpaced, 77).expect("scrubbed");
    assert_eq!(report.finished_s, Some(77));
    assert!(report.records >= 4 && report.record_bytes >= 4096, "{report:?}");
    assert!(matches!(report.rot[..], [Rot::Record { .. }]), "{report:?}");
    assert_eq!(check_verdicts(&replica, &producer, first), 3);
    // Asked again, the source sends what it holds now: a new record.
    producer.write(0, 1024, &[9; 512]);
    producer.send(&replica);
    assert_eq!(check_verdicts(&replica, &producer, first), 3);
    let view = replica.view(&PointSelector::Newest).expect("good again");
    assert_same(&read_view(&view), producer.content(), "with the new record");
    // The image can't stop at a point that is not there any more, and can go past it.
    let spoiled = first.plus(2);
    let refused = replica.fold(spoiled).expect_err("its record can't be read");
    assert_eq!(refused.class(), landfall_types::Class::Corrupt);
    replica.fold(producer.lsn()).expect("past it");
    assert_same(&read_images(&medium), producer.content(), "the image");
}

/// Writes to both disks that are in the image, and the marker behind them.
fn folded(replica: &Replica, producer: &mut Producer) -> Lsn {
    producer.write(0, 0, &[1; 6144]);
    producer.write(1, 0, &[2; 4096]);
    producer.marker(1, None);
    producer.send(replica);
    replica.fold(producer.lsn()).expect("folded");
    producer.lsn()
}

/// Guards P5. Rot in the image: every read of it is refused, points that lie over it with records
/// of their own are good.
#[test]
fn t20_a_rotten_block_of_the_image_is_never_served() {
    let medium = plain();
    let (replica, mut producer) = protected(&medium);
    let first = folded(&replica, &mut producer);
    producer.write(0, 4096, &[3; 512]);
    producer.write(0, 4608, &[4; 1536]);
    producer.send(&replica);
    rot_image(&medium, 0, 4096 + 512);
    for replica in [&replica, &open_replica(&medium)] {
        assert!(!readable(replica, first), "before any scrub has seen it");
        let view = replica.view(&PointSelector::Newest).expect("kept");
        let mut bytes = vec![0; 4096];
        view.read(DiskIndex(0), 0, &mut bytes).expect("another block");
        view.read(DiskIndex(1), 0, &mut bytes).expect("another disk");
    }
    let report = replica.scrub(&Unpaced, 1).expect("scrubbed");
    let at = landfall_types::ByteRange { start: 4096, end: 6144 };
    assert_eq!(report.rot, [Rot::Image { disk: DiskIndex(0), range: at }], "{report:?}");
    assert!(report.image_bytes >= 10_240, "{report:?}");
    assert_eq!(check_verdicts(&replica, &producer, first), 2, "until all of the block is written");
    // Part of a rotten block is written into the image: the rest stays rotten.
    replica.fold(first.next()).expect("folded");
    assert!(!readable(&replica, first.next()));
    // Nobody knows any more which part of the block is sound: all that later records leave of it.
    let left = landfall_types::ByteRange { start: 4096, end: 4608 };
    assert_eq!(replica.rotten().expect("asked"), [(DiskIndex(0), left)]);
    producer.write(0, 4096, &[5; 512]);
    producer.send(&replica);
    assert_eq!(replica.rotten().expect("asked"), [], "later records cover it");
    // By two neighbors, none of which covers the block: it holds what was written all the same.
    replica.fold(producer.lsn()).expect("folded");
    assert_eq!(replica.corrupt().expect("asked"), [], "written anew, before another scrub");
    assert!(readable(&replica, producer.lsn()));
    let report = replica.scrub(&Unpaced, 2).expect("scrubbed");
    assert_eq!(report.rot, []);
    assert_same(&read_images(&medium), producer.content(), "the image");
}

/// Guards P5. T-20: the source is asked for exactly what nothing covers at the newest position,
/// whoever met the rot first; what it sends makes later points good, and none before.
#[test]
fn t20_exactly_the_rotten_ranges_are_asked_for() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let first = folded(&replica, &mut producer);
    producer.write(0, 4096, &[3; 512]);
    producer.write(1, 512, &[0xab; 1024]);
    producer.write(1, 1024, &[4; 512]);
    producer.send(&replica);
    let rotten = |replica: &Replica| {
        replica.recheck_rot().expect("looked at");
        let ranges = replica.rotten().expect("asked").into_iter();
        ranges.map(|(disk, range)| (disk.0, range.start, range.end)).collect::<Vec<_>>()
    };
    assert_eq!(rotten(&replica), []);
    rot_image(&medium, 0, 4096 + 1024);
    rot_image(&medium, 0, 0);
    assert_eq!(rotten(&replica), [], "nobody has met it");
    assert!(!readable(&replica, producer.lsn()), "met by a reader, at its first place only");
    assert_eq!(rotten(&replica), [(0, 0, 4096)]);
    replica.scrub(&Unpaced, 1).expect("scrubbed");
    let blocks = [(0, 0, 4096), (0, 4608, 6144)];
    assert_eq!(rotten(&replica), blocks);
    assert_eq!(rotten(&open_replica(&medium.fork())), blocks, "known after a restart too");
    rot_journal(&medium, 0xab);
    let view = replica.view(&PointSelector::Newest).expect("kept");
    view.read(DiskIndex(1), 512, &mut [0; 512]).expect_err("its record can't be read");
    drop(view);
    assert_eq!(rotten(&replica), [blocks[0], blocks[1], (1, 512, 1024)]);
    let spoiled = producer.lsn();
    // What the machine writes by itself needs no asking.
    producer.write(0, 4608, &[5; 1024]);
    producer.send(&replica);
    assert_eq!(rotten(&replica), [(0, 0, 4096), (0, 5632, 6144), (1, 512, 1024)]);
    producer.window_open(60, false);
    for (disk, start, end) in rotten(&replica) {
        let now = producer.content()[usize::from(disk)][start as usize..end as usize].to_vec();
        producer.write(disk, start, &now);
    }
    producer.window_close(60, true);
    producer.marker(2, None);
    producer.send(&replica);
    assert_eq!(rotten(&replica), []);
    let named: Vec<_> =
        replica.corrupt().expect("asked").iter().map(|c| (c.first, c.last)).collect();
    assert!(
        named.iter().all(|(first_bad, last)| {
            *first_bad >= first && last.is_some_and(|last| last >= spoiled && last < producer.lsn())
        }),
        "{named:?}"
    );
    assert!(!readable(&replica, spoiled), "history is not repaired with the present");
    let view = replica.view(&PointSelector::Newest).expect("good again");
    assert_same(&read_view(&view), producer.content(), "with what was sent again");
    drop(view);
    replica.fold(producer.lsn()).expect("past it");
    assert_eq!(replica.corrupt().expect("asked"), []);
    let found = replica.scrub(&Unpaced, 2).expect("scrubbed").rot;
    assert!(matches!(found[..], [Rot::Record { .. }]), "its segment is not forgotten yet");
    assert_eq!(replica.corrupt().expect("asked"), [], "nothing resolves to it");
    assert_same(&read_images(&medium), producer.content(), "the image");
}

/// A block that was folded in part keeps being compared: what the fold did not write counts too.
#[test]
fn blocks_that_a_fold_covers_in_part_are_known_too() {
    let mut rng = Rng::new(seed("blocks_that_a_fold_covers_in_part_are_known_too"));
    let medium = plain();
    let (replica, mut producer) = protected(&medium);
    for _ in 0..8 {
        for _ in 0..6 {
            world::record(&mut rng, &mut producer);
        }
        world::settle(&mut producer);
        producer.send(&replica);
        replica.fold(producer.lsn()).expect("folded");
        let report = replica.scrub(&Unpaced, 1).expect("scrubbed");
        assert!(report.rot.is_empty(), "{report:?}");
    }
    let report = replica.scrub(&Unpaced, 1).expect("scrubbed");
    assert_eq!(report.image_bytes, DISKS.iter().sum::<u64>(), "all is known by now");
    for (disk, size) in (0..).zip(DISKS) {
        for offset in (0..size).step_by(512) {
            let other = medium.fork();
            rot_image(&other, disk, offset);
            assert!(!readable(&open_replica(&other), producer.lsn()), "disk {disk} at {offset}");
        }
    }
}

struct Pieces(AtomicU64);
impl FoldPace for Pieces {
    fn before(&self, _: u64) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
    fn checkpoint_bytes(&self) -> u64 {
        1
    }
}

/// A scrub that is stopped goes on where it was, also after a restart, and sees everything once.
#[test]
fn a_stopped_scrub_goes_on() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    for n in 0..10 {
        producer.write(0, n * 512, &[n as u8 + 1; 512]);
    }
    producer.send(&replica);
    drop(replica);
    let whole = open_replica(&medium.fork()).scrub(&Unpaced, 9).expect("scrubbed");
    for stops in 0..100 {
        let replica = open_replica(&medium);
        let report = replica.scrub(&Pieces(AtomicU64::new(4)), 9).expect("scrubbed");
        if report.finished_s.is_some() {
            assert!(stops > 2, "it was stopped in between");
            assert_eq!(replica.scrub_reports().expect("kept").0, Some(report.clone()));
            assert!(report.records >= whole.records && report.rot.is_empty(), "{report:?}");
            return;
        }
    }
    panic!("it never ends");
}

/// T-13, T-15: after a release that is taken back, blocks that the fold never touched count too.
/// Known to be untouched: nothing is lost. Not known: no point before a new comparison. Written:
/// refused.
#[test]
fn t15_disks_that_were_in_other_hands_are_trusted_only_if_all_of_them_is_known() {
    for (scrubbed, written) in [(true, false), (false, false), (true, true)] {
        let medium = SimMedium::new(512);
        let (replica, mut producer) = home(&medium);
        if scrubbed {
            replica.scrub(&Unpaced, 1).expect("scrubbed");
        }
        replica.freeze().expect("frozen");
        replica.release(producer.lsn(), producer.chain(), epoch(2)).expect("released");
        if written {
            rot_image(&medium, 1, 7 * 512);
            let refused = replica.unrelease().expect_err("written by someone else");
            assert_eq!(refused.code(), "point-change-refused");
            continue;
        }
        replica.unrelease().expect("taken back");
        for replica in [replica, open_replica(&medium)] {
            let newest = replica.newest_legal().expect("readable");
            assert_eq!(newest.is_some(), scrubbed, "known to be untouched: {scrubbed}");
        }
        if !scrubbed {
            let replica = open_replica(&medium);
            let refused = replica.release(producer.lsn(), producer.chain(), epoch(3));
            assert!(refused.is_err(), "no point to release");
            replica.thaw().expect("thawed");
            producer.window_open(50, false);
            producer.window_close(50, true);
            producer.send(&replica);
            assert_eq!(replica.newest_legal().expect("readable"), Some(producer.lsn()));
        }
    }
}

/// Home's disks with a comparison behind them.
fn home(medium: &SimMedium) -> (Replica, Producer) {
    let old: Content = DISKS.iter().map(|size| vec![0x77; *size as usize]).collect();
    let made = config(ImageOwner::Foreign, lineage(), Lsn::ZERO, Chain::ROOT);
    for (disk, bytes) in made.disks.iter().zip(&old) {
        images(medium).create(&disk.image, disk.geometry).expect("made");
        let device = images(medium).open(&disk.image, ImageOwner::Foreign).expect("opened");
        device.write_at(0, bytes).expect("written");
        device.flush().expect("flushed");
    }
    let made = landfall_volume::ReplicaConfig {
        old_content: landfall_volume::OldContent::Expendable,
        ..made
    };
    let replica = Replica::create(replica_dir(medium), images(medium), made).expect("created");
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, old, false);
    producer.window_open(1, false);
    producer.write(0, 512, &[1; 1024]);
    producer.window_close(1, true);
    producer.send(&replica);
    (replica, producer)
}

/// A fold into a rotten medium says so and stays to be done again.
#[test]
fn a_fold_that_meets_rot_ends_nothing() {
    let medium = plain();
    let (replica, mut producer) = protected(&medium);
    let before = producer.lsn();
    producer.write(0, 0, &[0xcd; 512]);
    producer.marker(1, None);
    producer.send(&replica);
    rot_journal(&medium, 0xcd);
    let refused = replica.fold(producer.lsn());
    assert!(matches!(refused, Err(FoldError::Storage(_))), "{refused:?}");
    assert_eq!(replica.fold_pending().expect("readable"), Some(producer.lsn()));
    assert!(replica.status().expect("status").folded <= before);
    producer.write(0, 0, &[7; 512]);
    producer.marker(2, None);
    producer.send(&replica);
    replica.fold(producer.lsn()).expect("past it, without the rotten record");
    assert_same(&read_images(&medium), producer.content(), "the image");
}
