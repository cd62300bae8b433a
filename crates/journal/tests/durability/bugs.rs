//! The harness finds what it is there for: each defect that is put in on purpose breaks a promise.

use crate::cuts::{Again, run_and_cut};
use crate::faults;
use crate::model::{Step, World};
use crate::rot;
use Step::{Append, Flush, TrimBefore};
use landfall_journal::SeededBug;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// True when the check of `run` fails.
fn caught(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

fn cuts_catch(bug: SeededBug, steps: &[Step]) {
    let run = |bug| {
        move || {
            run_and_cut("seeded", &mut World::new(5, bug), steps, Again::Never);
        }
    };
    assert!(!caught(run(None)), "the workload fails without the defect");
    assert!(caught(run(Some(bug))), "{bug:?} was not found");
}

#[test]
fn ack_before_flush_is_found() {
    cuts_catch(SeededBug::AckBeforeFlush, &[Append(2), Flush]);
}

#[test]
fn superblock_without_flush_is_found() {
    cuts_catch(
        SeededBug::SuperblockWithoutFlush,
        &[Append(30), Flush, TrimBefore(2), Append(30), Flush],
    );
}

#[test]
fn reuse_before_superblock_is_found() {
    cuts_catch(
        SeededBug::ReuseBeforeSuperblock,
        &[Append(30), Flush, TrimBefore(2), Append(30), Flush],
    );
}

#[test]
fn name_that_is_not_synced_is_found() {
    cuts_catch(SeededBug::NameNotSynced, &[Append(30), Flush, Append(30), Flush]);
}

#[test]
fn roll_before_flush_is_found() {
    cuts_catch(SeededBug::RollBeforeFlush, &[Append(30), Flush, Append(30), Flush]);
}

/// The cut that recovery makes must be durable before the next append: found by cutting twice.
#[test]
fn stale_tail_is_found() {
    assert!(!caught(|| faults::torn_tail_then_append_then_cut(None)));
    assert!(caught(|| faults::torn_tail_then_append_then_cut(Some(SeededBug::StaleTail))));
}

/// Rot in a durable record looks like a torn tail unless later frames prove that it was durable.
#[test]
fn missing_floor_is_found() {
    let steps = [Append(3), Flush, Append(3), Flush, Append(1), Flush];
    let run = |bug| {
        move || {
            rot::every_sector(&steps, bug);
        }
    };
    assert!(!caught(run(None)));
    assert!(caught(run(Some(SeededBug::NoFloor))));
}
