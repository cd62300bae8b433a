//! The fold: stopped and taken up again, in parallel, and sparse.

mod common;

use common::*;
use landfall_blockdev::sim::{CutOptions, SimMedium, for_each_power_cut};
use landfall_blockdev::{BlockDevice, FileDevice, FsDir, OpenMode};
use landfall_testkit::{Rng, seed};
use landfall_types::control::{Control, Geometry};
use landfall_types::{Chain, DiskGeometry, DiskIndex, Incarnation, Lsn, Record};
use landfall_volume::{
    FoldError, FoldPace, Frame, FsImages, ImageOwner, PointSelector, Replica, ReplicaConfig,
    ReplicaDisk,
};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stops after so many pieces; a checkpoint behind each.
struct Stops(AtomicU64);

impl FoldPace for Stops {
    fn before(&self, _: u64) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
    fn checkpoint_bytes(&self) -> u64 {
        1
    }
}

fn scattered(rng: &mut Rng, producer: &mut Producer) {
    for _ in 0..12 {
        world::record(rng, producer);
    }
    world::settle(producer);
}

/// A fold that is stopped shows no wrong byte meanwhile, does not begin at its beginning again, and
/// ends at the same image.
#[test]
fn a_stopped_fold_goes_on_behind_its_checkpoint() {
    let mut rng = Rng::new(seed("a_stopped_fold_goes_on_behind_its_checkpoint"));
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    scattered(&mut rng, &mut producer);
    producer.send(&replica);
    let to = producer.lsn();
    let mut pieces = 0;
    loop {
        let replica = open_replica(&medium);
        let folded = replica.fold_paced(to, &Stops(AtomicU64::new(1)));
        let view = replica.view(&PointSelector::Lsn(to)).expect("the newest point stays");
        assert_same(&read_view(&view), producer.content(), "while it is stopped");
        match folded {
            Ok(_) => break,
            Err(FoldError::Stopped) => pieces += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(replica.fold_limit(Lsn::MAX).expect("readable"), Some(to));
        assert!(pieces < 1000, "every attempt begins at the beginning");
    }
    assert!(pieces > 2, "there was something to go on with");
    assert_same(&read_images(&medium), producer.content(), "at the end");
}

/// Guards P4 and P5: power goes anywhere in a fold with checkpoints, and again in the fold that
/// goes on.
#[test]
fn power_cuts_between_checkpoints() {
    let mut rng = Rng::new(seed("power_cuts_between_checkpoints"));
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    for _ in 0..5 {
        world::record(&mut rng, &mut producer);
    }
    world::settle(&mut producer);
    producer.send(&replica);
    medium.root().sync().expect("synced");
    medium.restart_trace();
    replica.fold_paced(producer.lsn(), &Stops(AtomicU64::new(1_000))).expect("folded");
    let quick = CutOptions { exhaustive_max: 2, masks_random: 2, ..CutOptions::QUICK };
    let thorough = std::env::var_os("LANDFALL_THOROUGH").is_some();
    let options = if thorough { CutOptions::THOROUGH } else { quick };
    // A second cut in some of them: all would take too long.
    let every = if thorough { 1 } else { 150 };
    let mut second = 0;
    for_each_power_cut(&medium.trace(), options, |cut| {
        second += 1;
        let what = format!("step {} mask {}", cut.step, cut.mask);
        let check = |medium: &SimMedium, what: &str| {
            let replica = open_replica(medium);
            let view = replica.view(&PointSelector::Newest).expect("the newest point stays");
            assert_same(&read_view(&view), producer.content(), what);
            replica
        };
        let replica = check(&cut.medium, &what);
        if second % every == 0 {
            cut.medium.restart_trace();
        }
        replica.fold_paced(producer.lsn(), &Stops(AtomicU64::new(1_000))).expect("redo");
        assert_same(&read_images(&cut.medium), producer.content(), &what);
        if second % every == 0 {
            let options = CutOptions {
                exhaustive_max: 1,
                masks_random: 1,
                garbage: thorough,
                ..CutOptions::QUICK
            };
            for_each_power_cut(&cut.medium.trace(), options, |again| {
                let what = format!("{what}, then step {} mask {}", again.step, again.mask);
                let replica = check(&again.medium, &what);
                replica.fold(producer.lsn()).expect("redo");
                assert_same(&read_images(&again.medium), producer.content(), &what);
            });
        }
    });
    assert!(second > 100);
}

const BIG: u64 = 48 << 20;

fn on_files(dir: &std::path::Path) -> Replica {
    let made = config(ImageOwner::Ours, lineage(), Lsn::ZERO, Chain::ROOT);
    let disk = ReplicaDisk {
        geometry: DiskGeometry { size_bytes: BIG, sector_bytes: 512 },
        image: dir.join("image").to_string_lossy().into_owned(),
        ..made.disks[0].clone()
    };
    let config = ReplicaConfig { disks: vec![disk], segment_bytes: 16 << 20, ..made };
    let home = Arc::new(FsDir::open_or_create(dir.join("replica")).expect("made"));
    Replica::create(home, Arc::new(FsImages), config).expect("created")
}

/// Records over a disk of [`BIG`] bytes within one exact window, and what they make of it.
fn large_history(rng: &mut Rng) -> (Vec<Record>, Content) {
    let mut content = vec![vec![0; BIG as usize]];
    let mut records = vec![Record::control(Lsn::new(1), &window_open(1, false))];
    let disk = DiskIndex(0);
    for _ in 0..900 {
        let sectors = 1 + rng.below(64);
        let offset = rng.below(BIG / 512 - sectors) * 512;
        let data = world::bytes(rng, sectors * 512);
        let lsn = Lsn::new(records.len() as u64 + 1);
        records.push(Record::write(lsn, disk, offset, data.into()));
    }
    let (hole, length) = (8 << 20, 16 << 20);
    records.push(Record::zero(Lsn::new(902), disk, hole, length));
    records.push(Record::discard(Lsn::new(903), disk, hole + length, length));
    for record in &records {
        apply(&mut content, record);
    }
    records.push(Record::control(Lsn::new(904), &window_close(1, true)));
    (records, content)
}

/// Large enough for several writers, on a real file system: the image is what was written, byte for
/// byte, and holes stay holes.
#[test]
fn a_large_fold_on_files_is_exact_and_sparse() {
    let mut rng = Rng::new(seed("a_large_fold_on_files_is_exact_and_sparse"));
    let temp = tempfile::tempdir().expect("a directory");
    let replica = on_files(temp.path());
    let (records, content) = large_history(&mut rng);
    let mut chain_before = Chain::ROOT;
    for records in records.chunks(64) {
        let (epoch, incarnation) = (epoch(1), Incarnation::new(7));
        let frame = Frame { epoch, incarnation, source_position: 0, chain_before, records };
        replica.ingest(frame).expect("ingested");
        chain_before = records.iter().fold(chain_before, |chain, record| record.chain(chain));
    }
    let end = replica.flush().expect("flushed").lsn;
    let bytes = replica.fold(end).expect("folded");
    assert!(bytes > 32 << 20, "more than one thread had work: {bytes}");
    let path = temp.path().join("image");
    let image = FileDevice::open(&path, OpenMode::ReadOnly).expect("opened");
    let mut found = vec![0; BIG as usize];
    image.read_at(0, &mut found).expect("read");
    assert_same(&vec![found], &content, "the image");
    let allocated = std::fs::metadata(&path).expect("there").blocks() * 512;
    assert!(allocated <= BIG - (31 << 20), "{allocated} bytes are allocated");
}

/// T-9: a fold with undo over a change of size is undone with the size of then.
#[test]
fn t9_undo_brings_the_size_back() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &[1; 512]);
    producer.marker(1, None);
    producer.send(&replica);
    let before = producer.lsn();
    let (disk, id, size_bytes, sector_bytes) = (0, [10; 16], 40 * 512, 512);
    let grown = Control::Geometry(Geometry { disk, id, size_bytes, sector_bytes });
    producer.push(|lsn| Record::control(lsn, &grown));
    producer.marker(2, None);
    producer.send(&replica);
    let size = |replica: &Replica, at| {
        let view = replica.view(&PointSelector::Lsn(at)).expect("kept");
        view.geometry(DiskIndex(0)).expect("there").size_bytes
    };
    assert_eq!(size(&replica, before), DISKS[0]);
    replica.fold_with_undo(producer.lsn()).expect("folded");
    assert_eq!(size(&replica, producer.lsn()), 40 * 512);
    replica.undo().expect("undone");
    for replica in [replica, open_replica(&medium)] {
        assert_eq!(size(&replica, before), DISKS[0], "the point has the size that it had");
        assert_eq!(size(&replica, producer.lsn()), 40 * 512);
    }
}
