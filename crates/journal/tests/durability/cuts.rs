//! Power cuts (fault F2, promises P2 to P4).

use crate::model::{Step, World, random_steps};
use Step::{Append, Close, Flush, Prepare, Reopen, TrimBefore, WriteSome};
use landfall_blockdev::sim::{CutOptions, CutStat, for_each_power_cut};
use landfall_testkit::{Rng, seed};

/// Set to go through every subset, and to cut again at every point after each recovery.
fn thorough() -> bool {
    std::env::var("LANDFALL_TEST_THOROUGH").is_ok_and(|value| value == "1")
}

fn options(seed: u64) -> CutOptions {
    let options = if thorough() { CutOptions::THOROUGH } else { CutOptions::QUICK };
    CutOptions { seed, ..options }
}

/// After which recoveries records are appended and the power goes again.
#[derive(Clone, Copy)]
pub(crate) enum Again {
    Never,
    /// After every so-manieth.
    Every(u64),
}

/// A sample for every run, or what the long run can afford.
fn every(quick: u64, long: u64) -> Again {
    Again::Every(if thorough() { long } else { quick })
}

/// Runs the steps, cuts everywhere, and after some of the recoveries appends and cuts everywhere
/// again.
pub(crate) fn run_and_cut(name: &str, world: &mut World, steps: &[Step], again: Again) -> CutStat {
    world.create().expect("create");
    for step in steps {
        world.step(*step).unwrap_or_else(|error| panic!("{name}: {step:?}: {error}"));
    }
    let mut visited = 0;
    let stat = for_each_power_cut(&world.medium.trace(), options(1), |cut| {
        visited += 1;
        let Some(log) = world.check_cut(cut) else { return };
        if matches!(again, Again::Every(nth) if visited % nth == 0) {
            cut_again(world, cut, &log);
        }
    });
    eprintln!("{name}: {stat:?}");
    stat
}

/// Recovery is a fixpoint; what is appended after it survives the next cut, and what was cut off
/// stays so (a compound crash: reliability rule 5).
fn cut_again(world: &World, cut: &landfall_blockdev::sim::Cut, first: &landfall_journal::Log) {
    let place = format!("after the cut at step {} mask {}", cut.step, cut.mask);
    let mut next = World::new(cut.step as u64, world.bug);
    next.medium = cut.medium.clone();
    next.medium.restart_trace();
    // Promises of the first life hold in the second.
    next.adopt(world, cut.promises);
    let before = first.tail();
    next.reopen().unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(next.log().tail(), before, "{place}: recovery is no fixpoint");
    for step in [Append(2), Flush, Append(1), Flush] {
        next.step(step).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
    let quick = CutOptions { exhaustive_max: 4, masks_random: 8, garbage: false, seed: 2 };
    let options = if thorough() { CutOptions { seed: 2, ..CutOptions::QUICK } } else { quick };
    for_each_power_cut(&next.medium.trace(), options, |again| {
        let mut again = again.clone();
        again.promises += next.promises_adopted();
        next.check_cut(&again);
    });
}

#[test]
fn creation_is_whole_or_not_at_all() {
    let mut world = World::new(1, None);
    run_and_cut("creation", &mut world, &[], Again::Every(1));
}

/// After a creation that was cut off the directory can be used for another log.
#[test]
fn a_creation_that_was_cut_off_can_be_repeated() {
    let mut world = World::new(1, None);
    world.create().expect("create");
    let mut repeated = 0;
    for_each_power_cut(&world.medium.trace(), options(1), |cut| {
        if world.check_cut(cut).is_none() {
            repeated += 1;
            let mut second = World::new(2, None);
            second.medium = cut.medium.clone();
            second.create().expect("create again");
            second.step(Append(3)).and_then(|()| second.step(Flush)).expect("append");
            second.check(&second.medium.fork_durable(), second.promises.len(), "second creation");
        }
    });
    assert!(repeated > 10);
}

#[test]
fn scripted_workloads_keep_their_promises() {
    let scripts: &[(&str, &[Step])] = &[
        ("group", &[Append(1), Append(2), Append(3), Flush, Append(4), Flush]),
        ("roll", &[Append(9), Flush, Append(9), Flush, Append(12), Flush, Append(3)]),
        (
            "trim",
            &[
                Append(20),
                Flush,
                Append(20),
                Flush,
                TrimBefore(10),
                Append(20),
                Flush,
                TrimBefore(2),
                Append(9),
                Flush,
            ],
        ),
        ("reopen", &[Append(3), Reopen, Append(2), Flush, Reopen, Append(2), Flush]),
        ("close", &[Append(3), Close, Append(2), Flush, Close, Close, Append(1), Flush]),
        (
            "frames that helpers write in any order",
            &[
                Append(2),
                WriteSome,
                Append(2),
                WriteSome,
                Append(3),
                WriteSome,
                Flush,
                Append(1),
                WriteSome,
                Reopen,
                Append(2),
                WriteSome,
                Append(20),
                Flush,
            ],
        ),
        (
            "segments that are filled ahead",
            &[Append(9), Flush, Prepare, Append(12), Flush, Prepare, Reopen, Append(20), Flush],
        ),
        ("large append over segments", &[Append(60), Flush, TrimBefore(0), Append(60), Flush]),
        (
            "trim and reopen",
            &[
                Append(40),
                Flush,
                TrimBefore(5),
                Reopen,
                Append(30),
                Flush,
                TrimBefore(5),
                Append(30),
                Flush,
            ],
        ),
    ];
    for (name, steps) in scripts {
        let mut world = World::new(7, None);
        run_and_cut(name, &mut world, steps, every(97, 5));
    }
}

#[test]
fn random_workloads_keep_their_promises() {
    let seed = seed("random_workloads_keep_their_promises");
    let runs = if thorough() { 100 } else { 6 };
    let mut rng = Rng::new(seed);
    for run in 0..runs {
        let steps = random_steps(&mut rng, 14);
        eprintln!("run {run}: {steps:?}");
        let mut world = World::new(rng.next_u64(), None);
        run_and_cut("random", &mut world, &steps, every(211, 31));
    }
}

/// Disks with sectors of 4096 bytes are no different.
#[test]
fn large_sectors_keep_their_promises() {
    let mut world = World::with_sectors(3, 4096);
    let steps = [
        Append(5),
        Flush,
        Append(9),
        Flush,
        TrimBefore(3),
        Append(20),
        Flush,
        Reopen,
        Append(2),
        Flush,
    ];
    run_and_cut("4096", &mut world, &steps, every(53, 5));
}
