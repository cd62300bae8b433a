//! Every operation of a workload fails once, in every way (fault F3); and a second power cut while
//! what the first one left is recovered. Guards P2, P3 and P4.
//!
//! `LANDFALL_TEST_CUTS_DEEP=1` cuts twice at every place instead of some.

mod common;

use bytes::Bytes;
use common::*;
use landfall_blockdev::sim::{CutOptions, Fault, FaultPlan, SimMedium, for_each_power_cut};
use landfall_types::{BranchId, DiskIndex, Lsn};
use landfall_volume::{NewAuthority, PointSelector, Replica, Role, Unpaced};

/// What was answered before an error: all that may be asked for afterwards.
#[derive(Default)]
struct Answered {
    durable: Lsn,
    role: Option<Role>,
    branch: Option<Content>,
}

/// Frames, folds, a scrub, a failover, a write to the branch. Stops at the first error.
fn workload(
    replica: &Replica,
    oracle: &Producer,
    start: Lsn,
    said: &mut Answered,
) -> Result<(), ()> {
    let mut from = start;
    for through in [start.plus(3), start.plus(6)] {
        replica.ingest(oracle.frame_to(from.next(), through)).map_err(drop)?;
        said.durable = replica.flush().map_err(drop)?.lsn;
        replica.fold(through).map_err(drop)?;
        from = through;
    }
    replica.scrub(&Unpaced, 1).map_err(drop)?;
    replica.freeze().map_err(drop)?;
    said.role = Some(Role::Frozen);
    let new = NewAuthority {
        id: BranchId::from_bytes([9; 16]),
        name: "recovered".to_owned(),
        point: PointSelector::Lsn(oracle.lsn()),
        epoch: epoch(2),
    };
    let branch = replica.promote(&new).map_err(drop)?;
    said.role = Some(Role::Writable);
    let mut content = oracle.content().clone();
    said.branch = Some(content.clone());
    branch.write(DiskIndex(0), 512, &Bytes::from(vec![0x5e; 512])).map_err(drop)?;
    content[0][512..1024].fill(0x5e);
    said.branch = Some(content);
    Ok(())
}

fn prepared() -> (SimMedium, Producer, Lsn) {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let start = producer.lsn();
    medium.root().sync().expect("synced");
    drop(replica);
    producer.write(0, 0, &[1; 1024]);
    producer.write(1, 512, &[2; 4096 - 512]);
    producer.marker(1, None);
    producer.write(0, 512, &[3; 2048]);
    producer.push(|lsn| landfall_types::Record::zero(lsn, DiskIndex(1), 0, 1024));
    producer.marker(2, None);
    (medium, producer, start)
}

/// What was answered holds, and everything that is offered is exact.
fn check(medium: &SimMedium, oracle: &Producer, said: &Answered, place: &str) {
    let opened = Replica::open(replica_dir(medium), images(medium), SEGMENT_BYTES);
    let replica = match opened {
        Ok(Some(replica)) => replica,
        other => panic!("{place}: {other:?}"),
    };
    for round in 0..2 {
        let durable = replica.flush().expect("flushed").lsn;
        assert!(durable >= said.durable, "{place}: {durable} instead of {}", said.durable);
        for (first, last) in replica.choices().expect("listed").legal {
            for at in first.get()..=last.get() {
                let at = Lsn::new(at);
                assert!(oracle.legal_at(at), "{place}: {at:?}");
                let view = replica.view(&PointSelector::Lsn(at)).expect("offered");
                assert_same(&read_view(&view), oracle.content_at(at), place);
            }
        }
        if let (Some(pending), 0) = (replica.fold_pending().expect("readable"), round) {
            replica.fold(pending).expect("redo");
        }
    }
    let report = replica.scrub(&Unpaced, 2).expect("scrubbed");
    assert!(report.rot.is_empty(), "{place}: sound data is accused: {report:?}");
    let role = replica.status().expect("status").role;
    let later = |role| match role {
        Role::Replicating => 0,
        Role::Frozen => 1,
        _ => 2,
    };
    assert!(later(role) >= said.role.map_or(0, later), "{place}: {role} again");
    if let (Some(content), Some(branch)) = (&said.branch, replica.authority()) {
        let shown = read_branch(&branch);
        // The write that failed may be there too.
        if shown[0][512..1024] != [0x5e; 512] {
            assert_same(&shown, content, place);
        }
    }
}

fn every_operation_fails(fault: Fault, persistent: bool) {
    for nth in 0.. {
        let (medium, oracle, start) = prepared();
        let replica = open_replica(&medium);
        let mut said = Answered { durable: start, ..Answered::default() };
        medium.fail(Some(FaultPlan { fault, nth, persistent }));
        let result = workload(&replica, &oracle, start, &mut said);
        let fired = medium.fault_fired();
        medium.fail(None);
        drop(replica);
        let place = format!("{fault:?} at operation {nth}");
        assert!(result.is_ok() || fired, "{place}: an error from nowhere");
        check(&medium.fork(), &oracle, &said, &place);
        check(&medium.fork_durable(), &oracle, &said, &format!("{place}, then the power"));
        if !fired {
            assert!(nth > 20, "the workload is longer");
            return;
        }
    }
}

#[test]
fn every_operation_fails_once_with_eio() {
    every_operation_fails(Fault::Io, false);
}

#[test]
fn every_operation_fails_from_then_on() {
    every_operation_fails(Fault::Io, true);
}

#[test]
fn every_write_stops_half_way() {
    every_operation_fails(Fault::Short, false);
}

#[test]
fn every_sync_fails() {
    every_operation_fails(Fault::Sync, false);
}

#[test]
fn the_volume_fills_at_every_write() {
    every_operation_fails(Fault::Full, true);
}

/// The power goes, and again while what it left is opened and its fold is done again.
#[test]
fn a_second_cut_during_recovery() {
    let deep = std::env::var_os("LANDFALL_TEST_CUTS_DEEP").is_some();
    let (medium, oracle, start) = prepared();
    let replica = open_replica(&medium);
    medium.root().sync().expect("synced");
    medium.restart_trace();
    workload(&replica, &oracle, start, &mut Answered::default()).expect("nothing fails");
    let few = CutOptions { exhaustive_max: 2, masks_random: 2, garbage: deep, seed: 3 };
    let (mut count, mut twice) = (0_u64, 0_u64);
    for_each_power_cut(&medium.trace(), few, |cut| {
        count += 1;
        if !deep && !count.is_multiple_of(97) {
            return;
        }
        twice += 1;
        let place = format!("step {} mask {}", cut.step, cut.mask);
        cut.medium.restart_trace();
        let replica = open_replica(&cut.medium);
        if let Some(pending) = replica.fold_pending().expect("readable") {
            replica.fold(pending).expect("redo");
        }
        drop(replica);
        let said = Answered { durable: start, ..Answered::default() };
        for_each_power_cut(&cut.medium.trace(), few, |again| {
            let place = format!("{place}, then step {} mask {}", again.step, again.mask);
            check(&again.medium, &oracle, &said, &place);
        });
    });
    assert!(twice >= 3, "{count} cuts, {twice} of them twice");
}
