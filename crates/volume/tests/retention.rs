//! Retention on a real replica on a simulated medium, against a naive oracle: what is listed, what
//! expires, what is pinned, what a restart and a fork make of it. Guards P3, P4, P5; T-6.

mod common;

use common::*;
use landfall_blockdev::sim::SimMedium;
use landfall_testkit::Rng;
use landfall_types::{BranchId, Lsn, RetentionPolicy, ThinningTier, UnixNanos};
use landfall_volume::{
    DueCause, FoldError, HoldKind, NewAuthority, NewTestBranch, PointSelector, Replica, RoleError,
    ShortenCause,
};
use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000;

fn policy(keep_s: u64, tiers: &[(u64, u64)]) -> RetentionPolicy {
    let tier = |(every_s, until_age_s): &(u64, u64)| ThinningTier {
        every_s: *every_s,
        until_age_s: *until_age_s,
    };
    let thinning = tiers.iter().map(tier).collect();
    let policy = RetentionPolicy { thinning, ..RetentionPolicy::for_seconds(keep_s) };
    policy.validate().expect("valid");
    policy
}

/// What the master target does every two seconds.
fn look(replica: &Replica, now_ms: u64) -> Option<DueCause> {
    let due = replica.retain(now_ms, 0).expect("looked")?;
    match replica.fold(due.to) {
        Ok(_) => Some(due.cause),
        Err(FoldError::Pinned { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn listed(replica: &Replica) -> Vec<u64> {
    let choices = replica.choices().expect("readable");
    choices.points.iter().map(|point| point.lsn.get()).collect()
}

/// The oracle: when each marker came, by the test's own clock; what a person asked for.
#[derive(Default)]
struct Oracle {
    clock_ms: u64,
    came_ms: BTreeMap<Lsn, u64>,
    /// Pinned, with the end of the pin.
    pinned: BTreeMap<Lsn, u64>,
    named: BTreeSet<Lsn>,
    /// The newest that was as old as was asked for, at any time so far.
    may_go: Option<Lsn>,
}

impl Oracle {
    fn check(&mut self, replica: &Replica, producer: &Producer, keep_ms: u64, what: &str) {
        let choices = replica.choices().expect("readable");
        let first = choices.legal.first().expect("one").0;
        let list: BTreeSet<Lsn> = choices.points.iter().map(|point| point.lsn).collect();
        // T-6: nothing has gone that was younger than was asked for at the time, whatever the
        // source's clock says.
        let age = |came: &u64| self.clock_ms - came;
        let expired = self.came_ms.iter().filter(|(_, came)| age(came) >= keep_ms);
        self.may_go = self.may_go.max(expired.map(|(lsn, _)| *lsn).max());
        let gone = self.came_ms.keys().rev().find(|lsn| **lsn < first);
        assert!(gone.copied() < self.may_go || gone.is_none(), "{what}: {gone:?} has gone");
        let newest = self.came_ms.keys().next_back().expect("one");
        assert!(list.contains(newest), "{what}: the newest point is not listed");
        for (lsn, until) in &self.pinned {
            assert!(
                *until <= self.clock_ms || list.contains(lsn),
                "{what}: pinned {lsn:?} has gone"
            );
        }
        for lsn in self.named.iter().filter(|lsn| **lsn >= first) {
            assert!(list.contains(lsn), "{what}: named {lsn:?} is not listed: {:?}", choices);
        }
        assert!(list.iter().all(|lsn| self.came_ms.contains_key(lsn)), "{what}: not a marker");
        // Every listed point shows what was written, and so does what was taken off the list.
        for lsn in list.iter().copied().chain((first.get()..=newest.get()).step_by(7).map(Lsn::new))
        {
            if producer.legal_at(lsn) {
                let view = replica.view(&PointSelector::Lsn(lsn)).expect("kept");
                assert_same(&read_view(&view), producer.content_at(lsn), what);
            }
        }
    }
}

fn random_policy(rng: &mut Rng) -> RetentionPolicy {
    let every = 2 + rng.below(10);
    let coarse = every + 1 + rng.below(every * 8);
    let until = coarse + 10 + rng.below(100);
    policy(30 + rng.below(900), &[(every, until), (coarse, until + 1 + rng.below(2000))])
}

/// Model test: random histories with windows, a source clock that jumps, pins that end, names,
/// restarts, changed policies.
#[test]
fn random_histories_keep_what_the_policy_says() {
    let mut rng = Rng::new(landfall_testkit::seed("random_histories_keep_what_the_policy_says"));
    for round in 0..12 {
        let medium = SimMedium::new(512);
        let (mut replica, mut producer) = protected(&medium);
        let mut keep = random_policy(&mut rng);
        replica.set_retention(&keep).expect("set");
        let mut oracle = Oracle::default();
        let mut process_ms = 0;
        for step in 0..60 {
            let what = format!("round {round} step {step}");
            let passed = SECOND * (1 + if rng.one_in(12) { rng.below(400) } else { rng.below(8) });
            oracle.clock_ms += passed;
            process_ms += passed;
            for _ in 0..rng.below(4) {
                world::record(&mut rng, &mut producer);
            }
            world::settle(&mut producer);
            // The source's wall time plays no part.
            let at = producer.marker(rng.next_u64() >> 1, None).header.lsn;
            for lsn in (1..=at.get()).map(Lsn::new) {
                let marker = is_marker(&producer, lsn) && producer.legal_at(lsn);
                if marker {
                    oracle.came_ms.entry(lsn).or_insert(oracle.clock_ms);
                }
            }
            producer.send(&replica);
            let in_force = keep.keep_ms();
            look(&replica, process_ms);
            match rng.below(8) {
                0 => {
                    let list = listed(&replica);
                    let lsn = Lsn::new(list[rng.below(list.len() as u64) as usize]);
                    let for_ms = rng.below(600) * SECOND;
                    replica.pin_point(lsn, "someone", Some(for_ms)).expect("listed");
                    oracle.pinned.insert(lsn, oracle.clock_ms + for_ms);
                }
                1 => {
                    replica.name_point(at, Some(&format!("n{step}"))).expect("listed");
                    oracle.named.insert(at);
                }
                2 => {
                    let pinned = oracle.pinned.pop_first();
                    pinned.map(|(lsn, _)| replica.unpin_point(lsn).expect("unpinned"));
                }
                3 => {
                    replica.save_points();
                    drop(replica);
                    replica = open_replica(&medium);
                    process_ms = 0;
                    look(&replica, 0);
                }
                4 if rng.one_in(4) => {
                    // A shorter policy takes at once what is older; a longer one brings nothing
                    // back.
                    keep = random_policy(&mut rng);
                    replica.set_retention(&keep).expect("set");
                }
                _ => {}
            }
            oracle.check(&replica, &producer, in_force, &what);
        }
    }
}

fn is_marker(producer: &Producer, lsn: Lsn) -> bool {
    let at = usize::try_from(lsn.get() - producer.base.get() - 1).expect("small");
    let record = &producer.records[at];
    record.header.kind == landfall_types::RecordKind::Control
        && matches!(
            landfall_types::Control::decode(&record.payload),
            Ok(landfall_types::Control::Marker(_))
        )
}

/// One marker a second, each with a write.
fn seconds(replica: &Replica, producer: &mut Producer, from: u64, through: u64) {
    for second in from..=through {
        producer.write(0, 0, &[second as u8; 512]);
        producer.marker(second * 1_000_000_000, None);
        producer.send(replica);
        look(replica, second * SECOND);
    }
}

#[test]
fn thinned_points_are_off_the_list_and_still_there_by_lsn() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    replica.set_retention(&policy(3600, &[(10, 3600)])).expect("set");
    seconds(&replica, &mut producer, 1, 60);
    let list = listed(&replica);
    assert!((6..=9).contains(&list.len()), "{list:?}");
    let status = replica.status().expect("status").points;
    assert_eq!(status.listed + status.thinned, 60);
    assert_eq!(status.history_ms, 59 * SECOND);
    // By its time the one before it that is listed, by its LSN the very one.
    let off = producer.lsn().get() - 2;
    assert!(!list.contains(&off));
    let before = list.iter().rev().find(|lsn| **lsn < off).expect("one");
    let by_time = replica.resolve(&PointSelector::Time(UnixNanos(59_000_000_000))).expect("one");
    assert_eq!(by_time.get(), *before);
    let view = replica.view(&PointSelector::Lsn(Lsn::new(off))).expect("kept");
    assert_same(&read_view(&view), producer.content_at(Lsn::new(off)), "a thinned point");
    let refused = replica.pin_point(Lsn::new(off - 1), "me", None);
    assert!(matches!(refused, Err(RoleError::Point(_))), "{refused:?}");
    // And after a restart the list is the same.
    replica.save_points();
    drop(replica);
    let replica = open_replica(&medium);
    assert_eq!(listed(&replica), list);
    look(&replica, 0);
    assert_eq!(listed(&replica), list);
    assert_eq!(replica.status().expect("status").points.history_ms, 59 * SECOND);
}

/// T-6: a source that is silent for longer than the retention loses no point, and the newest keeps
/// its time.
#[test]
fn t6_the_newest_point_never_expires() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    seconds(&replica, &mut producer, 1, 5);
    producer.write(0, 0, &[9; 512]);
    producer.send(&replica);
    for minute in 1..200 {
        look(&replica, minute * 60 * SECOND);
    }
    let newest = producer.lsn().prev();
    assert_eq!(listed(&replica), [newest.get()]);
    let status = replica.status().expect("status");
    assert_eq!(status.folded, newest, "everything before it is in the image");
    assert_eq!(status.newest_point.map(|point| point.lsn), Some(newest));
    assert_eq!(status.points.oldest, Some((newest, Some(UnixNanos(5_000_000_000)))));
    // T-18: also after a restart, when its record may be gone, the RPO is counted from it.
    drop(replica);
    let replica = open_replica(&medium);
    let status = replica.status().expect("status");
    assert_eq!(status.newest_point.map(|point| point.lsn), Some(newest));
}

#[test]
fn what_keeps_history_is_listed_with_its_end() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    replica.set_retention(&policy(60, &[(1, 3600)])).expect("set");
    seconds(&replica, &mut producer, 1, 10);
    let list = listed(&replica);
    let point = |at: usize| Lsn::new(list[at]);
    replica.pin_point(point(2), "kim", Some(500 * SECOND)).expect("listed");
    replica.name_point(point(3), Some("before")).expect("listed");
    let taken = replica.name_point(point(4), Some("before"));
    assert!(matches!(taken, Err(RoleError::Point(_))), "{taken:?}");
    let test = NewTestBranch {
        id: BranchId::from_bytes([3; 16]),
        name: "try".into(),
        point: PointSelector::Name("before".into()),
    };
    assert_eq!(replica.test_branch(&test).expect("made").entry().fork, point(3));
    let view = replica.view(&PointSelector::Lsn(point(5))).expect("kept");
    let holds = replica.holds().expect("readable");
    let told: Vec<_> = holds.iter().map(|hold| (hold.lsn, hold.kind.clone())).collect();
    assert_eq!(
        told,
        [
            (point(2), HoldKind::Pin { by: "kim".into(), left_ms: Some(500 * SECOND) }),
            (point(3), HoldKind::TestBranch("try".into())),
            (point(5), HoldKind::View),
        ]
    );
    // The retention is over; the pin holds, then the test branch, then the view.
    look(&replica, 300 * SECOND);
    assert_eq!(replica.status().expect("status").folded, point(2));
    look(&replica, 511 * SECOND);
    assert_eq!(replica.status().expect("status").folded, point(3));
    replica.drop_test_branch("try").expect("gone");
    look(&replica, 512 * SECOND);
    assert_eq!(replica.status().expect("status").folded, point(5));
    drop(view);
    look(&replica, 513 * SECOND);
    assert_eq!(replica.status().expect("status").folded, producer.lsn());
}

/// Pins outlive a failover that can still be changed; a commit voids those behind its fork and
/// those before it (RQ-FO-4).
#[test]
fn pins_and_ages_follow_the_history_that_is_chosen() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    replica.set_retention(&policy(60, &[(1, 3600)])).expect("set");
    seconds(&replica, &mut producer, 1, 10);
    let list = listed(&replica);
    let point = |at: usize| Lsn::new(list[at]);
    for at in [1, 5, 8] {
        replica.pin_point(point(at), "kim", None).expect("listed");
    }
    replica.freeze().expect("frozen");
    let new = NewAuthority {
        id: BranchId::from_bytes([4; 16]),
        name: "epoch-2".into(),
        point: PointSelector::Lsn(point(5)),
        epoch: epoch(2),
    };
    let branch = replica.promote(&new).expect("promoted");
    look(&replica, 200 * SECOND);
    assert_eq!(replica.choices().expect("readable").pinned, [point(1), point(5), point(8)]);
    replica.commit().expect("committed");
    assert_eq!(look(&replica, 201 * SECOND), Some(DueCause::Committed));
    assert_eq!(replica.choices().expect("readable").pinned, [point(5)]);
    branch.append_control(&marker(1, None)).expect("written");
    let behind = branch.flush().expect("durable").lsn;
    look(&replica, 202 * SECOND);
    assert_eq!(replica.status().expect("status").points.listed, 2, "the fork and the branch's");
    replica.unpin_point(point(5)).expect("unpinned");
    let kept = replica.status().expect("status").divergence.into_iter().map(|one| one.name);
    replica.discard_divergence(&kept.collect::<Vec<_>>()).expect("discarded");
    assert_eq!(look(&replica, 250 * SECOND), None, "as young as the branch");
    assert_eq!(look(&replica, 263 * SECOND), Some(DueCause::Expired));
    assert_eq!(replica.status().expect("status").folded, behind);
}

/// P5: when size wins, the oldest goes first, that is said, and it is said until history is whole
/// again.
#[test]
fn a_limit_of_size_shortens_history_and_says_so() {
    let medium = SimMedium::new(512);
    let (replica, mut producer) = protected(&medium);
    let limit = 1 << 20;
    let keep = RetentionPolicy { size_bytes: Some(limit), ..policy(3600, &[(1, 3600)]) };
    replica.set_retention(&keep).expect("set");
    let mut cause = None;
    for second in 1..=600 {
        producer.write(0, 0, &[second as u8; 6144]);
        producer.marker(second * 1_000_000_000, None);
        producer.send(&replica);
        let due = replica.retain(second * SECOND, 0).expect("looked");
        if let Some(due) = due {
            replica.fold(due.to).expect("folded");
            let DueCause::Room(why) = due.cause else { panic!("{due:?}") };
            replica.note_shortened(why).expect("noted");
            cause = Some(why);
        }
        let bytes = replica.status().expect("status").journal_bytes;
        assert!(bytes <= limit + 2 * SEGMENT_BYTES, "{bytes} bytes at {second} s");
    }
    assert_eq!(cause, Some(ShortenCause::SizeLimit));
    let points = replica.status().expect("status").points;
    assert!(points.history_ms > 60 * SECOND && points.history_ms < 600 * SECOND, "{points:?}");
    assert_eq!(points.shortened.map(|one| one.cause), Some(ShortenCause::SizeLimit));
    let oldest = Lsn::new(listed(&replica)[0]);
    let view = replica.view(&PointSelector::Lsn(oldest)).expect("kept");
    assert_same(&read_view(&view), producer.content_at(oldest), "the oldest point");
    drop(view);
    // More is allowed: it grows back.
    replica.set_retention(&RetentionPolicy { size_bytes: None, ..keep }).expect("set");
    for second in 601..=3 * 3600 {
        if second % 60 == 0 {
            producer.marker(second * 1_000_000_000, None);
            producer.send(&replica);
            look(&replica, second * SECOND);
        }
    }
    assert_eq!(replica.status().expect("status").points.shortened, None);
}
