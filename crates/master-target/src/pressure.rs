//! What gives way when the retention volume runs out of room, and in which order (trap T-21): old
//! points always; test branches, pins and the others' ingest only where a machine runs from the
//! volume, because their loss is somebody's loss. The branch that runs a machine never does. Pure.

use crate::outlook::Volume;
use landfall_types::{Lsn, ReplicaId};

/// Largest room in bytes that is kept free: more would only be history that is not kept.
const LOW_BYTES_MAX: u64 = 16 << 30;
/// Segments that always fit: one that is being written, one that is begun meanwhile.
const SEGMENTS_FREE: u64 = 2;

/// What a replica takes on the volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Taker {
    pub(crate) replica: ReplicaId,
    pub(crate) journal_bytes: u64,
    /// A machine runs from a branch of it.
    pub(crate) runs_a_machine: bool,
    /// Its test branches, with their size.
    pub(crate) test_branches: Vec<(String, u64)>,
    /// Its earliest pinned point.
    pub(crate) pinned: Option<Lsn>,
}

/// One thing that gives way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Throw this test branch away.
    DropTestBranch(ReplicaId, String),
    /// Fold the oldest history, so many bytes of journal.
    GiveUp(ReplicaId, u64),
    /// Let this pinned point expire.
    Unpin(ReplicaId, Lsn),
    /// Take no frames of replicas until there is room again.
    StopIngest,
}

/// Bytes that are kept free on the volume.
pub(crate) fn low_bytes(volume: Volume, segment_bytes: u64) -> u64 {
    (volume.total / 50).min(LOW_BYTES_MAX).max(SEGMENTS_FREE * segment_bytes).min(volume.total / 4)
}

/// What gives way now. Half of what is kept free is gone before a test branch goes, three quarters
/// before nothing is taken from others any more.
pub(crate) fn give_way(volume: Volume, segment_bytes: u64, takers: &[Taker]) -> Vec<Step> {
    let low = low_bytes(volume, segment_bytes);
    if volume.free >= low {
        return Vec::new();
    }
    let mut steps = Vec::new();
    let runs = takers.iter().any(|taker| taker.runs_a_machine);
    if runs && volume.free < low / 2 {
        // One at a time, the largest: the next look sees what it has brought.
        let all = takers.iter().flat_map(|taker| {
            taker.test_branches.iter().map(|(name, bytes)| (taker.replica, name, *bytes))
        });
        if let Some((replica, name, _)) = all.max_by_key(|(_, _, bytes)| *bytes) {
            steps.push(Step::DropTestBranch(replica, name.clone()));
        } else if let Some((replica, lsn)) = largest_pinned(takers) {
            steps.push(Step::Unpin(replica, lsn));
        }
    }
    // From the replica that takes most: what is short is short for all.
    let mut need = low - volume.free;
    let mut largest: Vec<&Taker> = takers.iter().collect();
    largest.sort_by_key(|taker| std::cmp::Reverse(taker.journal_bytes));
    for taker in largest {
        let give = need.min(taker.journal_bytes.saturating_sub(segment_bytes));
        if give > 0 {
            steps.push(Step::GiveUp(taker.replica, give));
            need -= give;
        }
    }
    if runs && volume.free < low / 4 {
        steps.push(Step::StopIngest);
    }
    steps
}

fn largest_pinned(takers: &[Taker]) -> Option<(ReplicaId, Lsn)> {
    let pinned = takers.iter().filter_map(|taker| Some((taker, taker.pinned?)));
    let largest = pinned.max_by_key(|(taker, _)| taker.journal_bytes);
    largest.map(|(taker, lsn)| (taker.replica, lsn))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn taker(n: u8, journal_bytes: u64, runs_a_machine: bool, tests: &[(&str, u64)]) -> Taker {
        let test_branches = tests.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes));
        Taker {
            replica: ReplicaId::from_bytes([n; 16]),
            journal_bytes,
            runs_a_machine,
            test_branches: test_branches.collect(),
            pinned: None,
        }
    }
    fn volume(free: u64) -> Volume {
        Volume { total: 100 * GIB, free }
    }

    #[test]
    fn a_small_volume_keeps_two_segments_free_and_never_most_of_itself() {
        let of = |total| low_bytes(Volume { total, free: 0 }, 64 * MIB);
        assert_eq!(of(GIB), 128 * MIB);
        assert_eq!(of(256 * MIB), 64 * MIB);
        assert_eq!(of(100 * GIB), 2 * GIB);
        assert_eq!(of(10_000 * GIB), 16 * GIB);
    }

    /// T-21: test branches, then old points, and the branch that runs a machine never.
    #[test]
    fn t21_what_gives_way_and_in_which_order() {
        let takers =
            [taker(1, 40 * GIB, true, &[("a", GIB)]), taker(2, 30 * GIB, false, &[("b", 2 * GIB)])];
        assert_eq!(give_way(volume(2 * GIB), 64 * MIB, &takers), []);
        let old = give_way(volume(GIB), 64 * MIB, &takers);
        assert_eq!(old, [Step::GiveUp(takers[0].replica, GIB)]);
        let tests = give_way(volume(GIB / 2), 64 * MIB, &takers);
        assert_eq!(tests[0], Step::DropTestBranch(takers[1].replica, "b".to_owned()));
        assert_eq!(tests[1], Step::GiveUp(takers[0].replica, 3 * GIB / 2));
    }

    /// T-21: then pins, and at the end the others' ingest.
    #[test]
    fn t21_pins_and_the_ingest_of_others_give_way_last() {
        let pinned = Taker { pinned: Some(Lsn::new(7)), ..taker(2, GIB, false, &[]) };
        let mut takers = [taker(1, GIB, true, &[]), pinned];
        let steps = give_way(volume(GIB / 2), 64 * MIB, &takers);
        assert_eq!(steps[0], Step::Unpin(takers[1].replica, Lsn::new(7)));
        assert!(!steps.contains(&Step::StopIngest));
        assert!(give_way(volume(GIB / 4), 64 * MIB, &takers).contains(&Step::StopIngest));
        takers[0].runs_a_machine = false;
        let steps = give_way(volume(GIB / 4), 64 * MIB, &takers);
        assert!(steps.iter().all(|step| matches!(step, Step::GiveUp(..))), "{steps:?}");
    }

    #[test]
    fn tests_stay_where_no_machine_runs() {
        let takers = [taker(1, GIB, false, &[("a", GIB)]), taker(2, 4 * GIB, false, &[])];
        let steps = give_way(volume(0), 64 * MIB, &takers);
        assert_eq!(steps, [Step::GiveUp(takers[1].replica, 2 * GIB)]);
    }

    #[test]
    fn several_give_up_when_one_has_not_enough() {
        let takers = [taker(1, GIB, false, &[]), taker(2, GIB / 2, false, &[])];
        let steps = give_way(volume(0), 0, &takers);
        assert_eq!(
            steps,
            [Step::GiveUp(takers[0].replica, GIB), Step::GiveUp(takers[1].replica, GIB / 2)]
        );
    }
}
