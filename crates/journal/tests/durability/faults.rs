//! Failing operations (fault F3) and dying processes (fault F1): every operation of a workload
//! fails once, in every way.

use crate::model::{Step, World, config, epoch};
use Step::{Append, Close, Flush, Prepare, Reopen, TrimBefore, WriteSome};
use landfall_blockdev::sim::{CutOptions, Fault, FaultPlan, SimMedium, for_each_power_cut};
use landfall_journal::{JournalError, Log, SeededBug, Stamp, TailVerdict};
use landfall_types::{Class, DiskIndex, Incarnation, Lsn, Record};

const WORKLOAD: &[Step] = &[
    Append(3),
    Flush,
    Append(14),
    Flush,
    TrimBefore(4),
    Append(14),
    Flush,
    Reopen,
    Append(5),
    WriteSome,
    Append(1),
    Flush,
    Prepare,
    TrimBefore(2),
    Append(20),
    Flush,
    Close,
    Append(1),
    Flush,
];

/// Runs the workload with the fault planned. Returns how far it came.
fn run(world: &mut World, plan: FaultPlan) -> Result<(), JournalError> {
    world.medium.fail(Some(plan));
    world.create()?;
    for step in WORKLOAD {
        world.step(*step)?;
    }
    Ok(())
}

/// The `nth` operation fails, for every `nth`; then the process starts again on what is there, or
/// the power goes as well.
fn every_operation_fails(fault: Fault, persistent: bool) {
    for nth in 0.. {
        let mut world = World::new(11, None);
        let result = run(&mut world, FaultPlan { fault, nth, persistent });
        let fired = world.medium.fault_fired();
        world.medium.fail(None);
        let place = format!("{fault:?} at operation {nth}: {result:?}");
        if let Err(error) = &result {
            assert!(fired, "{place}: an error from nowhere");
            let expected = if fault == Fault::Full { Class::Transient } else { Class::Permanent };
            assert_eq!(error.class(), expected, "{place}");
        }
        let promises = world.promises.len();
        // The machine goes on without a power cut …
        world.check(&world.medium.fork(), promises, &place);
        // … or with one.
        world.check(&world.medium.fork_durable(), promises, &place);
        let quick = CutOptions { exhaustive_max: 2, masks_random: 2, garbage: false, seed: nth };
        if nth % 7 == 0 {
            for_each_power_cut(&world.medium.trace(), quick, |cut| drop(world.check_cut(cut)));
        }
        if !fired {
            assert!(result.is_ok() && nth > 10, "{place}");
            return;
        }
    }
}

#[test]
fn every_operation_fails_once_with_eio() {
    every_operation_fails(Fault::Io, false);
}

/// As if the process died at the operation: nothing after it has any effect.
#[test]
fn every_operation_fails_for_good_with_eio() {
    every_operation_fails(Fault::Io, true);
}

#[test]
fn every_write_stops_half_way() {
    every_operation_fails(Fault::Short, false);
}

#[test]
fn every_sync_fails() {
    every_operation_fails(Fault::Sync, false);
    every_operation_fails(Fault::Sync, true);
}

#[test]
fn room_runs_out_at_every_operation() {
    every_operation_fails(Fault::Full, false);
    every_operation_fails(Fault::Full, true);
}

/// Without room an append or flush fails, nothing acknowledged is lost, and the same log goes on
/// when there is room.
#[test]
fn the_same_log_goes_on_when_there_is_room_again() {
    let mut failures = 0;
    for nth in 0..60 {
        let mut world = World::new(12, None);
        world.create().expect("create");
        world.step(Append(3)).and_then(|()| world.step(Flush)).expect("room");
        world.medium.fail(Some(FaultPlan { fault: Fault::Full, nth, persistent: true }));
        for _ in 0..12 {
            for step in [Append(6), Flush] {
                if let Err(error) = world.step(step) {
                    assert!(matches!(error, JournalError::Full { .. }), "{error}");
                    failures += 1;
                }
            }
        }
        world.medium.fail(None);
        for step in [Append(6), Flush, TrimBefore(3), Append(30), Flush] {
            world.step(step).unwrap_or_else(|error| panic!("after operation {nth}: {error}"));
        }
        let promises = world.promises.len();
        world.check_open(world.log(), &world.promises, "in place");
        world.check(&world.medium.fork_durable(), promises, "after a power cut");
    }
    assert!(failures > 100, "room never ran out");
}

/// A failed flush: the log refuses everything that writes, goes on reading, and is recovered by
/// opening it anew.
#[test]
fn a_failed_sync_poisons_the_log() {
    let mut world = World::new(13, None);
    world.create().expect("create");
    world.step(Append(3)).and_then(|()| world.step(Flush)).expect("append");
    world.step(Append(2)).expect("append");
    world.medium.fail(Some(FaultPlan { fault: Fault::Sync, nth: 0, persistent: false }));
    assert!(world.step(Flush).is_err());
    for step in [Append(1), Flush, TrimBefore(0)] {
        assert!(matches!(world.step(step), Err(JournalError::Poisoned)), "{step:?}");
    }
    let durable = world.log().durable();
    assert_eq!(durable.lsn, Lsn::new(103));
    world.reopen().expect("open");
    assert!(world.log().tail().lsn >= durable.lsn);
    world.step(Append(1)).and_then(|()| world.step(Flush)).expect("append");
    world.check_open(world.log(), &world.promises, "after the failed sync");
}

fn stamp() -> Stamp {
    Stamp { epoch: epoch(), incarnation: Incarnation::new(1), source_position: 0 }
}

/// Records of one size with the given fill, from `first` on; appended in an order of its own each.
fn append_each(log: &Log, first: u64, count: u64, fill: u8) {
    for lsn in first..first + count {
        let data = vec![fill; 300].into();
        let record = Record::write(Lsn::new(lsn), DiskIndex(0), 0, data);
        log.append(stamp(), &[record]).expect("append");
    }
}

/// Two records in two frames of one group; the cut loses the first frame and keeps the second.
/// After recovery other records are appended, and the power goes again. What was cut off must not
/// come back.
pub(crate) fn torn_tail_then_append_then_cut(bug: Option<SeededBug>) {
    let medium = SimMedium::new(512);
    let log = Log::create_with_bug(medium.root(), config(1), bug).expect("create");
    append_each(&log, 101, 1, 1);
    log.flush().expect("flush");
    medium.restart_trace();
    append_each(&log, 102, 1, 2);
    // Another incarnation begins another frame.
    let other = Stamp { incarnation: Incarnation::new(2), ..stamp() };
    let record = Record::write(Lsn::new(103), DiskIndex(0), 0, vec![3; 300].into());
    log.append(other, &[record]).expect("append");
    log.flush().expect("flush");
    let mut torn = 0;
    for_each_power_cut(&medium.trace(), CutOptions::THOROUGH, |cut| {
        let (log, report) = Log::open_with_bug(cut.medium.root(), bug).expect("open");
        if !matches!(report.tail, TailVerdict::Torn { .. }) || log.tail().lsn != Lsn::new(101) {
            return;
        }
        torn += 1;
        // The same record as was lost: its frame would have the same chain, and lead to the stale
        // one behind it.
        append_each(&log, 102, 1, 2);
        let acknowledged = log.flush().expect("flush");
        drop(log);
        let (log, _) = Log::open_with_bug(cut.medium.root(), bug).expect("open");
        assert_eq!(log.tail(), acknowledged, "what was cut off came back");
    });
    assert!(torn > 0, "no cut left a torn tail");
}

/// A segment file is used again, and the power goes before much is in it: the frames of its earlier
/// use are still there, and must not be taken for new ones.
#[test]
fn frames_of_an_earlier_use_stay_dead() {
    let medium = SimMedium::new(512);
    let log = Log::create(medium.root(), config(1)).expect("create");
    let mut next = 101;
    for round in 0..12 {
        append_each(&log, next, 20, round);
        next += 20;
        let durable = log.flush().expect("flush");
        log.trim(Lsn::new(next - 5)).expect("trim");
        let crashed = medium.fork_durable();
        let (found, report) = Log::open(crashed.root()).expect("open");
        assert_eq!(found.tail(), durable);
        // Nothing was in flight, so nothing can be torn: what lies behind the end is of an earlier
        // use.
        assert_eq!(report.tail, TailVerdict::Ends, "stale frames were taken for new ones");
    }
    assert!(log.stat().spare_files > 0 || log.stat().segments.len() > 1);
}
