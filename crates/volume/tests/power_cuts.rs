//! Power cuts at every write boundary of superblock, log, image, fold, undo and branches. Guards
//! P2, P3, P4 and P6.
//!
//! `LANDFALL_THOROUGH=1` tries many more subsets of what was not synced.

mod common;

use bytes::Bytes;
use common::*;
use landfall_blockdev::sim::{Cut, CutOptions, SimMedium, for_each_power_cut};
use landfall_types::{BranchId, DiskIndex, Lsn, UnixNanos};
use landfall_volume::{ImageOwner, NewAuthority, OLD_DISKS, PointSelector, Replica, Role, Vault};

fn options() -> CutOptions {
    match std::env::var_os("LANDFALL_THOROUGH") {
        Some(_) => CutOptions::THOROUGH,
        None => CutOptions { exhaustive_max: 4, masks_random: 12, ..CutOptions::QUICK },
    }
}

fn reopen(cut: &Cut) -> Replica {
    let opened = common::open(&cut.medium);
    match opened {
        Ok(Some(replica)) => replica,
        other => panic!("step {} mask {}: {other:?}", cut.step, cut.mask),
    }
}

/// Takes a replica as a cut left it and ends what was cut off, as the master target does at its
/// start.
fn recover(replica: &Replica) {
    let pending = replica.fold_pending().expect("readable");
    let undo = replica.status().expect("status").role == Role::Frozen;
    if let Some(to) = pending.filter(|_| !undo) {
        replica.fold(to).expect("a fold is redo only");
    }
}

/// Every recovery point shows what the oracle says, and what was durable is there.
fn check_points(replica: &Replica, oracle: &Producer, durable: Lsn, what: &str) {
    let choices = replica.choices().expect("readable");
    let end = replica.flush().expect("flushed").lsn;
    assert!(end >= durable, "{what}: {end} instead of {durable}");
    for (first, last) in choices.legal {
        for at in first.get()..=last.get() {
            let at = Lsn::new(at);
            assert!(oracle.legal_at(at), "{what}: {at:?} is no recovery point");
            let view = replica.view(&PointSelector::Lsn(at)).expect("offered");
            assert_same(&read_view(&view), oracle.content_at(at), what);
        }
    }
}

fn script(producer: &mut Producer) {
    producer.write(0, 0, &[1; 1024]);
    producer.write(1, 512, &[2; 512]);
    producer.marker(1, None);
    producer.write(0, 512, &[3; 1024]);
    producer.push(|lsn| landfall_types::Record::zero(lsn, DiskIndex(1), 512, 1024));
    producer.marker(2, None);
}

/// Ingest and fold: acknowledged records are there, and every point that is offered is exact,
/// whatever the image was doing.
#[test]
fn ingest_and_fold() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let start = producer.lsn();
    medium.root().sync().expect("synced");
    medium.restart_trace();
    let mut durable = vec![start];
    let mut newest = vec![Some(start)];
    for round in 0..3 {
        script(&mut producer);
        producer.send(&replica);
        durable.push(producer.lsn());
        newest.push(Some(producer.lsn()));
        medium.promise();
        let to = producer.lsn().prev();
        replica.fold(if round == 1 { producer.lsn() } else { to }).expect("folded");
    }
    let oracle = producer;
    let stat = for_each_power_cut(&medium.trace(), options(), |cut| {
        let what = format!("step {} mask {} promises {}", cut.step, cut.mask, cut.promises);
        let replica = reopen(cut);
        check_points(&replica, &oracle, durable[cut.promises], &what);
        assert!(
            replica.newest_legal().expect("readable") >= newest[cut.promises],
            "{what}: the newest point is gone"
        );
        recover(&replica);
        check_points(&replica, &oracle, durable[cut.promises], &what);
        assert!(
            replica.newest_legal().expect("readable") >= newest[cut.promises],
            "{what}: the newest point is gone"
        );
    });
    eprintln!("ingest_and_fold: {stat:?}");
    assert!(stat.cuts > 500);
}

/// Promotion, change of point, branch writes, commit, demotion: the role and everything that was
/// answered is there.
#[test]
fn roles_and_branches() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    script(&mut producer);
    producer.send(&replica);
    medium.root().sync().expect("synced");
    medium.restart_trace();
    // Per promise: the role, the epoch in force, and the content that the writable branch must
    // show.
    let mut promised: Vec<(Role, u64, Option<Content>)> = vec![(Role::Replicating, 1, None)];
    replica.freeze().expect("frozen");
    promised.push((Role::Frozen, 1, None));
    medium.promise();
    let early = producer.newest_legal(Lsn::ZERO, producer.lsn().prev()).expect("some");
    for (number, point) in [(2, producer.lsn()), (3, early)] {
        let new = NewAuthority {
            id: BranchId::from_bytes([number as u8; 16]),
            name: format!("epoch-{number}"),
            point: PointSelector::Lsn(point),
            epoch: epoch(number),
        };
        let branch = replica.promote(&new).expect("promoted");
        let mut content = producer.content_at(point).clone();
        promised.push((Role::Writable, number, Some(content.clone())));
        medium.promise();
        for n in 0..2 {
            let data = vec![number as u8 * 16 + n; 400];
            branch
                .write(DiskIndex(0), u64::from(n) * 300, &Bytes::from(data.clone()))
                .expect("answered");
            content[0][usize::from(n) * 300..][..400].copy_from_slice(&data);
            promised.push((Role::Writable, number, Some(content.clone())));
            medium.promise();
        }
    }
    let last = promised.last().cloned().expect("some");
    replica.commit().expect("committed");
    promised.push(last.clone());
    medium.promise();
    replica.fold(producer.lsn()).expect_err("the image follows the branch now");
    replica.fold(early).expect("both branches share what lies before");
    let receipt = replica.demote(UnixNanos(1)).expect("demoted");
    promised.push((Role::Frozen, 3, last.2.clone()));
    medium.promise();
    replica.follow(epoch(4), receipt.lsn, instance()).expect("follows");
    promised.push((Role::Replicating, 4, None));
    medium.promise();

    let stat = for_each_power_cut(&medium.trace(), options(), |cut| {
        let what = format!("step {} mask {} promises {}", cut.step, cut.mask, cut.promises);
        let replica = reopen(cut);
        let status = replica.status().expect("status");
        let (role, number, content) = &promised[cut.promises];
        let next = promised.get(cut.promises + 1).unwrap_or(&promised[cut.promises]);
        let found = (status.role, status.lineage.epoch().number);
        assert!(found == (*role, *number) || found == (next.0, next.1), "{what}: {found:?}");
        let writable: Vec<_> = replica.branches().into_iter().filter(|b| !b.revoked()).collect();
        assert_eq!(
            writable.len(),
            usize::from(status.role == Role::Writable),
            "{what}: one authority"
        );
        let Some(branch) = replica.authority().filter(|_| found.1 == *number) else { return };
        if let Some(content) = content {
            let shown = read_branch(&branch);
            // The write that was under way may be there too, but nothing else.
            let later = next.2.as_ref().filter(|_| next.1 == *number);
            if later != Some(&shown) {
                assert_same(&shown, content, &what);
            }
        }
    });
    eprintln!("roles_and_branches: {stat:?}");
}

/// Release with undo, and back: home's disks hold either what they held, or what the log says, and
/// a cut in between is ended by the same order again.
#[test]
fn release_and_undo() {
    let medium = SimMedium::new(512);
    let old: Content = DISKS.iter().map(|size| vec![0x77; *size as usize]).collect();
    for (index, bytes) in old.iter().enumerate() {
        let disk = config(ImageOwner::Ours, lineage(), Lsn::ZERO, landfall_types::Chain::ROOT)
            .disks[index]
            .clone();
        images(&medium).create(&disk.image, disk.geometry).expect("made");
        let device = images(&medium).open(&disk.image, ImageOwner::Foreign).expect("opened");
        device.write_at(0, bytes).expect("written");
        device.flush().expect("flushed");
    }
    let at_home = config(ImageOwner::Foreign, lineage(), Lsn::ZERO, landfall_types::Chain::ROOT);
    let replica = create(&medium, at_home);
    let mut producer =
        Producer::new(epoch(1), Lsn::ZERO, landfall_types::Chain::ROOT, old.clone(), false);
    producer.window_open(1, false);
    script(&mut producer);
    producer.window_close(1, true);
    producer.marker(1, None);
    producer.send(&replica);
    replica.freeze().expect("frozen");
    replica.discard_divergence(&[OLD_DISKS.to_owned()]).expect("by name");
    // Only then can it be told later that nobody else has written.
    replica.scrub(&landfall_volume::Unpaced, 1).expect("scrubbed");
    medium.root().sync().expect("synced");
    medium.restart_trace();
    replica.release(producer.lsn(), producer.chain(), epoch(2)).expect("released");
    medium.promise();
    replica.unrelease().expect("taken back");
    medium.promise();
    let stat = for_each_power_cut(&medium.trace(), options(), |cut| {
        let what = format!("step {} mask {} promises {}", cut.step, cut.mask, cut.promises);
        let released = |replica: &Replica| replica.status().expect("status").role == Role::Released;
        let replica = reopen(cut);
        match cut.promises {
            0 => {
                // Both ways out of the cut lead to exact disks.
                let other = cut.medium.fork();
                replica
                    .release(producer.lsn(), producer.chain(), epoch(2))
                    .unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_same(&read_images(&cut.medium), producer.content(), &what);
                assert!(released(&replica));
                let replica = open_replica(&other);
                replica.unrelease().unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_same(&read_images(&other), &old, &what);
                let view = replica.view(&PointSelector::Newest).expect("legal");
                assert_same(&read_view(&view), producer.content(), &what);
            }
            1 => {
                if released(&replica)
                    && cut.medium.files().iter().all(|(path, _)| path.contains("undo-"))
                {
                    assert_same(&read_images(&cut.medium), producer.content(), &what);
                }
                replica.unrelease().unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_same(&read_images(&cut.medium), &old, &what);
            }
            _ => {
                assert!(!released(&replica), "{what}");
                assert_same(&read_images(&cut.medium), &old, &what);
            }
        }
    });
    eprintln!("release_and_undo: {stat:?}");
}

/// Making and removing a replica: after any cut it can be made, and a made one is listed.
#[test]
fn making_and_removing() {
    let medium = SimMedium::new(512);
    let vault = Vault::open(medium.root(), images(&medium), SEGMENT_BYTES).expect("made");
    let new = config(ImageOwner::Ours, lineage(), Lsn::ZERO, landfall_types::Chain::ROOT);
    drop(vault.create(new.clone()).expect("created"));
    medium.promise();
    vault.remove(new.replica).expect("removed");
    medium.promise();
    let stat = for_each_power_cut(&medium.trace(), options(), |cut| {
        let what = format!("step {} mask {} promises {}", cut.step, cut.mask, cut.promises);
        let vault = Vault::open(cut.medium.root(), images(&cut.medium), SEGMENT_BYTES)
            .unwrap_or_else(|e| panic!("{what}: {e:?}"));
        match cut.promises {
            // The making, or the removal, was under way.
            0 => match vault.create(new.clone()) {
                Ok(_) | Err(landfall_volume::StorageError::Exists(_)) => {}
                Err(error) => panic!("{what}: {error:?}"),
            },
            1 => {
                vault.remove(new.replica).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                drop(vault.create(new.clone()).unwrap_or_else(|e| panic!("{what}: {e:?}")));
            }
            _ => assert!(vault.list().expect("listed").is_empty(), "{what}"),
        }
    });
    eprintln!("making_and_removing: {stat:?}");
}
