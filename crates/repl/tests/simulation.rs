//! Three hops (agent, relay with a spool, target) under cuts, crashes, a lost spool, clones,
//! reverted machines and failovers, with the real state machines and an oracle that knows nothing
//! of them (reliability 5.2 b).
//!
//! `LANDFALL_SIM_SEEDS=20000 cargo test -p landfall-repl --test simulation --release` runs more of
//! it; `SEED=n` starts at seed n, so that with `LANDFALL_SIM_SEEDS=1` one history is repeated.

#[path = "simulation/agent.rs"]
mod agent;
#[path = "simulation/hop.rs"]
mod hop;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/relay.rs"]
mod relay;
#[path = "simulation/target.rs"]
mod target;
#[path = "simulation/truth.rs"]
mod truth;
#[path = "simulation/world.rs"]
mod world;

use world::{Bug, Counts, World};

fn seeds(default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("LANDFALL_SIM_SEEDS")
        .map_or(default, |text| text.parse().expect("LANDFALL_SIM_SEEDS is a number"));
    let first = landfall_testkit::seed("simulation");
    first..first + count
}

fn run(seed: u64, bug: Bug) -> (Result<(), String>, Counts) {
    let mut world = World::new(seed, bug);
    let result = world.run();
    (result, world.counts)
}

/// Guards P2, P3 and P6 over two hops: T-1 (reverted machine), T-11 (clone), T-14 (what a relay
/// holds of an older epoch).
#[test]
fn nothing_is_lost_mixed_or_forgotten_under_faults() {
    let mut total = Counts::default();
    let mut failed = vec![];
    for seed in seeds(200) {
        let (result, counts) = run(seed, Bug::None);
        if let Err(error) = result {
            failed.push(format!("SEED={seed}: {error}"));
        }
        total.add(counts);
    }
    eprintln!("{total:?}");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    let happened = [total.cuts, total.crashes, total.lost_spools, total.reverts, total.failovers];
    assert!(happened.iter().all(|count| *count > 0), "{total:?}");
    assert!(total.clones > 0 && total.set_aside > 0, "{total:?}");
}

/// Guards the harness: a history depends on its seed and on nothing else.
#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..5 {
        let again = format!("{:?}", run(seed, Bug::None));
        assert_eq!(format!("{:?}", run(seed, Bug::None)), again);
    }
}

/// Guards the harness: it finds each of these mistakes by what the target holds, not by a history
/// that gets stuck.
fn caught(bug: Bug, seeds: u64, least: usize) {
    let wrong = |error: String| !error.contains("does not converge");
    let found = (1..=seeds).filter(|seed| run(*seed, bug).0.is_err_and(wrong)).count();
    eprintln!("{bug:?}: found in {found} of {seeds} histories");
    assert!(found >= least, "{bug:?} was found in {found} of {seeds} histories only");
}

#[test]
fn acknowledging_what_is_only_received_is_caught() {
    caught(Bug::AckOnReceive, 100, 5);
}

#[test]
fn resuming_from_received_without_a_gap_check_is_caught() {
    caught(Bug::NoGapCheck, 100, 5);
}

#[test]
fn ignoring_the_epoch_is_caught() {
    caught(Bug::EpochIgnored, 60, 5);
}

#[test]
fn skipping_after_a_lost_spool_is_caught() {
    // Most of these histories get stuck, because the state machines refuse what does not follow.
    caught(Bug::SkipAfterLostSpool, 200, 5);
}

/// T-1: an agent that renumbers makes no progress, but nothing wrong ever reaches the target.
#[test]
fn t1_an_agent_that_renumbers_is_contained() {
    let mut stuck = 0;
    for seed in 1..=60 {
        if let Err(error) = run(seed, Bug::NaiveRenumbering).0 {
            assert!(error.contains("does not converge"), "SEED={seed}: {error}");
            stuck += 1;
        }
    }
    assert!(stuck > 0, "no history had a reverted machine: the test shows nothing");
}
