//! Encrypted replicas: nothing of the content on the medium, keys that are away, wrong or changed,
//! rot and power cuts. (All tests of this crate run over encrypted replicas with
//! `LANDFALL_TEST_SEALED=1`.)

mod common;

use common::*;
use landfall_blockdev::BlockDevice;
use landfall_blockdev::sim::{CutOptions, SimMedium, for_each_power_cut};
use landfall_crypt::{KeySource, nonces};
use landfall_testkit::{Rng, seed};
use landfall_types::{Chain, DiskIndex, Lsn};
use landfall_volume::{
    ContentError, ImageOwner, NewTestBranch, PointSelector, Replica, ReplicaConfig, ReplicaDisk,
    RoleError, Rot, StorageError, Unpaced, Vault,
};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn made() -> ReplicaConfig {
    config(ImageOwner::Ours, lineage(), Lsn::ZERO, Chain::ROOT)
}

/// All files of a medium.
fn files(medium: &SimMedium) -> Vec<(String, Vec<u8>)> {
    let read = |(path, length): (String, u64)| {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let name = parts.pop().expect("a file has a name");
        let dir = parts.iter().fold(medium.root(), |dir, part| dir.subdir(part).expect("there"));
        let mut bytes = vec![0; length as usize];
        dir.open(name).and_then(|file| file.read_at(0, &mut bytes)).expect("read");
        (path.clone(), bytes)
    };
    medium.files().into_iter().map(read).collect()
}

/// Random bytes: none of them stands anywhere by chance.
fn text(rng: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes
}

/// Journal, index, image, branch, undo and divergence: what the machine and the branches wrote is
/// looked for in every file.
#[test]
fn nothing_of_the_content_is_on_the_volume() {
    let medium = SimMedium::sealed(512);
    let mut rng = Rng::new(seed("nothing_of_the_content_is_on_the_volume"));
    let (replica, mut producer) = protected(&medium);
    let mut needles = Vec::new();
    for round in 0..6 {
        for _ in 0..12 {
            let content = text(&mut rng, 1024);
            needles.extend(content.chunks(16).map(<[u8]>::to_vec));
            producer.write(0, 512 * rng.below(10), &content);
        }
        producer.marker(round, None);
        producer.send(&replica);
        if round == 3 {
            replica.fold(producer.lsn()).expect("folded");
        }
    }
    let branch = replica
        .test_branch(&NewTestBranch {
            id: landfall_types::BranchId::generate(),
            name: "trial".into(),
            point: PointSelector::Newest,
        })
        .expect("a branch");
    let content = text(&mut rng, 2048);
    needles.extend(content.chunks(16).map(<[u8]>::to_vec));
    branch.write(DiskIndex(1), 0, &content.into()).expect("written");
    branch.flush().expect("flushed");
    drop((branch, replica));
    needles.sort();
    let mut seen = std::collections::BTreeSet::new();
    for (path, bytes) in files(&medium) {
        seen.insert(
            path.split('/').next_back().unwrap_or("").split('-').next().unwrap_or("").to_owned(),
        );
        for at in 0..bytes.len().saturating_sub(15) {
            let found = needles.binary_search_by(|needle| needle[..].cmp(&bytes[at..at + 16]));
            assert!(found.is_err(), "{path} at {at} holds what was written");
        }
    }
    for kind in ["segment", "run", "disk", "seals"] {
        assert!(seen.contains(kind), "{kind} was looked at: {seen:?}");
    }
    let plain = medium.with_key(None);
    let opened = common::open(&plain);
    let error = opened.expect_err("no key");
    assert_eq!((error.code(), error.class()), ("key-missing", landfall_types::Class::Permanent));
}

fn key_file(dir: &Path, name: &str, fill: u8) -> KeySource {
    let path = dir.join(name);
    std::fs::write(&path, [fill; 32]).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
    KeySource::File(path)
}

/// A vault on a medium without a key of its own: the envelope is all there is.
fn vault(medium: &SimMedium) -> Vault {
    let dir = medium.root().subdir("vault").expect("made");
    Vault::open(dir, images(medium), SEGMENT_BYTES).expect("a vault")
}

fn filled(vault: &Vault, key: &KeySource) -> Content {
    let replica = vault.create_encrypted(made(), Some(key)).expect("created");
    assert_eq!(replica.status().expect("status").key, Some(key.to_string()));
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, blank(), false);
    producer.window_open(1, false);
    producer.write(0, 0, &[7; 4096]);
    producer.window_close(1, true);
    producer.marker(1, None);
    producer.send(&replica);
    producer.content().clone()
}

fn newest(replica: &Replica) -> Content {
    read_view(&replica.view(&PointSelector::Newest).expect("a point"))
}

#[test]
fn a_replica_opens_with_its_key_only_and_as_soon_as_it_is_there() {
    let keys = tempfile::tempdir().expect("a directory");
    let medium = SimMedium::new(512).with_key(None);
    let vault = vault(&medium);
    let key = key_file(keys.path(), "kek", 1);
    let content = filled(&vault, &key);
    let id = replica_id();
    let away = keys.path().join("away");
    std::fs::rename(keys.path().join("kek"), &away).expect("renamed");
    let refused = vault.open_replica(id).expect_err("the key is away");
    assert_eq!(
        (refused.code(), refused.class()),
        ("key-missing", landfall_types::Class::Transient)
    );
    // What says which key it is can be read without it.
    let summary = vault.summary(id).expect("readable").expect("there");
    assert_eq!(summary.key, Some(key.to_string()));
    key_file(keys.path(), "kek", 2);
    let refused = vault.open_replica(id).expect_err("another key");
    assert_eq!((refused.code(), refused.class()), ("key-wrong", landfall_types::Class::Permanent));
    std::fs::rename(&away, keys.path().join("kek")).expect("renamed");
    assert_same(
        &newest(&vault.open_replica(id).expect("opened").expect("whole")),
        &content,
        "open",
    );
}

#[test]
fn a_new_key_wraps_the_data_key_and_nothing_else_changes() {
    let keys = tempfile::tempdir().expect("a directory");
    let medium = SimMedium::new(512).with_key(None);
    let vault = vault(&medium);
    let (old, new) = (key_file(keys.path(), "old", 1), key_file(keys.path(), "new", 2));
    let content = filled(&vault, &old);
    let id = replica_id();
    let logs = |medium: &SimMedium| {
        let all = files(medium).into_iter();
        all.filter(|(path, _)| !path.contains("superblock")).collect::<Vec<_>>()
    };
    let before = logs(&medium);
    vault.rekey(id, &new).expect("wrapped anew");
    assert!(before == logs(&medium), "only the superblock was written");
    std::fs::remove_file(keys.path().join("old")).expect("removed");
    let replica = vault.open_replica(id).expect("opened").expect("whole");
    assert_same(&newest(&replica), &content, "with the new key");
    // While it is open.
    let third = key_file(keys.path(), "third", 3);
    replica.rekey(None, &third).expect("wrapped anew");
    drop(replica);
    std::fs::remove_file(keys.path().join("new")).expect("removed");
    let replica = vault.open_replica(id).expect("opened").expect("whole");
    assert_same(&newest(&replica), &content, "with the third key");
    drop(replica);
    // Elsewhere, where the key has another place.
    let moved = keys.path().join("moved");
    std::fs::rename(keys.path().join("third"), &moved).expect("renamed");
    let elsewhere = vault.with_key(Some(KeySource::File(moved)));
    let replica = elsewhere.open_replica(id).expect("opened").expect("whole");
    assert_same(&newest(&replica), &content, "elsewhere");
}

#[test]
fn a_key_that_is_not_there_leaves_no_replica_behind() {
    let keys = tempfile::tempdir().expect("a directory");
    let medium = SimMedium::new(512).with_key(None);
    let vault = vault(&medium);
    let missing = KeySource::File(keys.path().join("missing"));
    let refused = vault.create_encrypted(made(), Some(&missing)).expect_err("no key");
    assert_eq!(refused.code(), "key-missing");
    assert_eq!(vault.list().expect("listed"), []);
    let mut qcow2 = made();
    qcow2.disks[0].image = "disk-0.qcow2".into();
    let key = key_file(keys.path(), "kek", 1);
    let refused = vault.create_encrypted(qcow2, Some(&key)).expect_err("not sealed");
    assert_eq!(refused.code(), "not-supported");
    let replica = vault.create(made()).expect("a plain one");
    let refused = replica.rekey(None, &key).expect_err("plain");
    assert!(matches!(refused, StorageError::NotEncrypted));
}

fn raw(medium: &SimMedium, disk: u16) -> std::sync::Arc<dyn BlockDevice> {
    images(medium).open(&format!("disk-{disk}"), ImageOwner::Ours).expect("there")
}

/// Guards P5 as `scrub.rs` does for plain images.
#[test]
fn t20_rot_in_a_sealed_image_is_never_served_and_is_found() {
    let medium = SimMedium::sealed(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &[1; 4096]);
    producer.write(1, 0, &[2; 4096]);
    producer.marker(1, None);
    producer.send(&replica);
    replica.fold(producer.lsn()).expect("folded");
    assert_same(&read_images(&medium), producer.content(), "folded");
    let device = raw(&medium, 0);
    let mut sector = [0; 512];
    device.read_at(1024, &mut sector).expect("read");
    sector[9] ^= 1;
    device.write_at(1024, &sector).expect("written");
    for replica in [&replica, &open_replica(&medium)] {
        let view = replica.view(&PointSelector::Newest).expect("kept");
        let mut bytes = vec![0; 4096];
        let refused = view.read(DiskIndex(0), 0, &mut bytes).expect_err("rotten");
        assert!(matches!(refused, ContentError::Storage(StorageError::Rot { offset: 0, .. })));
        view.read(DiskIndex(1), 0, &mut bytes).expect("another disk");
    }
    let report = replica.scrub(&Unpaced, 1).expect("scrubbed");
    let range = landfall_types::ByteRange { start: 0, end: 4096 };
    assert_eq!(report.rot, [Rot::Image { disk: DiskIndex(0), range }]);
    // Written again and folded, it is good.
    producer.write(0, 0, &[5; 4096]);
    producer.marker(2, None);
    producer.send(&replica);
    replica.fold(producer.lsn()).expect("folded");
    assert_same(&newest(&replica), producer.content(), "written again");
    assert!(replica.scrub(&Unpaced, 2).expect("scrubbed").rot.is_empty());
}

/// Ingest, fold, growth of no disk: every point is exact after every cut, and no nonce comes back.
#[test]
fn power_cuts_of_a_sealed_replica() {
    let medium = SimMedium::sealed(512);
    let (replica, mut producer) = protected(&medium);
    medium.root().sync().expect("synced");
    medium.restart_trace();
    let mut durable = vec![producer.lsn()];
    for round in 0..2 {
        producer.write(0, 512, &[round * 2 + 1; 1024]);
        producer.write(0, 0, &[round * 2 + 2; 4096]);
        producer.write(1, 512, &[round * 2 + 2; 512]);
        producer.marker(round.into(), None);
        producer.send(&replica);
        durable.push(producer.lsn());
        medium.promise();
        replica.fold(producer.lsn()).expect("folded");
    }
    let options = CutOptions { exhaustive_max: 3, masks_random: 3, ..CutOptions::QUICK };
    let stat = for_each_power_cut(&medium.trace(), options, |cut| {
        let what = format!("step {} mask {}", cut.step, cut.mask);
        let replica = match common::open(&cut.medium) {
            Ok(Some(replica)) => replica,
            other => panic!("{what}: {other:?}"),
        };
        if let Some(to) = replica.fold_pending().expect("readable") {
            replica.fold(to).expect("a fold is redo only");
        }
        assert!(replica.flush().expect("flushed").lsn >= durable[cut.promises], "{what}");
        for (first, last) in replica.choices().expect("readable").legal {
            for at in (first.get()..=last.get()).map(Lsn::new) {
                let view = replica.view(&PointSelector::Lsn(at)).expect("offered");
                assert_same(&read_view(&view), producer.content_at(at), &what);
            }
        }
    });
    assert!(stat.cuts > 200, "{stat:?}");
    assert!(nonces::seen() > 1000);
}

/// Only Landfall can read it: the machine could not start from it.
#[test]
fn a_sealed_image_is_not_handed_over() {
    let medium = SimMedium::sealed(512);
    let (replica, mut producer) = protected(&medium);
    producer.write(0, 0, &[1; 512]);
    producer.marker(1, None);
    producer.send(&replica);
    replica.freeze().expect("frozen");
    let refused = replica.release(producer.lsn(), producer.chain(), epoch(2));
    assert!(matches!(refused, Err(RoleError::Encrypted(DiskIndex(0)))), "{refused:?}");
}

/// Home's disks are the machine's and stay plain; the log, the index and the undo over them are
/// sealed.
#[test]
fn the_undo_of_plain_disks_is_sealed() {
    let medium = SimMedium::sealed(512);
    let mut rng = Rng::new(11);
    let old: Content = DISKS.iter().map(|size| text(&mut rng, *size as usize)).collect();
    let made = ReplicaConfig {
        old_content: landfall_volume::OldContent::Expendable,
        ..config(ImageOwner::Foreign, lineage(), Lsn::ZERO, Chain::ROOT)
    };
    for (disk, bytes) in made.disks.iter().zip(&old) {
        let ReplicaDisk { image, geometry, .. } = disk;
        images(&medium).create(image, *geometry).expect("made");
        let device = images(&medium).open(image, ImageOwner::Foreign).expect("opened");
        device.write_at(0, bytes).and_then(|()| device.flush()).expect("written");
    }
    let replica = Replica::create(replica_dir(&medium), images(&medium), made).expect("created");
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, old.clone(), false);
    producer.window_open(1, false);
    producer.write(0, 512, &text(&mut rng, 2048));
    producer.window_close(1, true);
    producer.send(&replica);
    replica.freeze().expect("frozen");
    replica.release(producer.lsn(), producer.chain(), epoch(2)).expect("released");
    let undo = files(&medium).into_iter().find(|(path, _)| path.contains("undo-"));
    let (path, bytes) = undo.expect("kept until the commit");
    let needle = &old[0][1024..1040];
    assert!(!bytes.windows(16).any(|window| window == needle), "{path} holds old content");
    replica.unrelease().expect("taken back");
    assert_same(&read_images(&medium), &old, "put back");
}
