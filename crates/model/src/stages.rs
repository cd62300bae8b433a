//! Where the RPO comes from: how long the newest records that the target lacks have spent in each
//! stage of their way.
//!
//! Markers are the clock of it. A marker says when, by the source's clock, everything up to its
//! position had been written. So each position that some hop names is a time of the source, and the
//! difference of two neighbors' times is what lies between them: no clocks are compared, and the
//! stages add up to the RPO exactly.

use landfall_types::{Lsn, UnixNanos};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Marks that are remembered at most; then every second one is forgotten.
const MARKS_MAX: usize = 4096;
/// Below this RPO nobody is warned early: it is a marker or two.
const EARLY_MIN: Duration = Duration::from_secs(30);

/// Where records spend time between the disk of the machine and the journal of the target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A catch-up is open: there is no recovery point before it closes.
    CatchUp,
    /// In the ring of the capture, or since the last marker.
    Capture,
    /// In the agent's queue.
    Queue,
    /// On the wire to the process server, or waiting for a connection; and until durable there.
    WireToRelay,
    /// In the spool of the process server.
    Spool,
    /// On the wire to the master target, or waiting for a connection.
    WireToTarget,
    /// At the master target, until durable.
    Store,
}

impl Stage {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CatchUp => "catch-up",
            Self::Capture => "capture",
            Self::Queue => "agent's queue",
            Self::WireToRelay => "wire to the process server",
            Self::Spool => "spool",
            Self::WireToTarget => "wire to the master target",
            Self::Store => "store",
        }
    }

    /// What would help when most of the RPO is spent here.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::CatchUp => {
                "a point comes when the catch-up closes: its rate and time left are in `landfall \
                 status MACHINE`; a wider bandwidth plan (`landfall bandwidth`) makes it shorter"
            }
            Self::Capture => {
                "see whether the agent runs (`landfall agent status` on the machine) and whether \
                 it gets processor time"
            }
            Self::Queue => {
                "the machine writes faster than the process server takes: look at the link \
                 between them, and at the process server's disk and free cache"
            }
            Self::WireToRelay => {
                "look at the link between machine and process server (`landfall servers` shows \
                 who is silent), or use a process server that is nearer"
            }
            Self::Spool => {
                "the process server sends more slowly than records come: widen its bandwidth plan \
                 (`landfall bandwidth`), or the link"
            }
            Self::WireToTarget => {
                "look at the link between process server and master target; what is under way \
                 there is not taken"
            }
            Self::Store => {
                "the master target's retention volume is slow or full: look at its alerts and at \
                 what else uses the volume"
            }
        }
    }
}

/// A marker: everything up to `lsn` was written by `time`, by the source's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimedLsn {
    /// Position.
    pub lsn: Lsn,
    /// Time.
    pub time: UnixNanos,
}

/// Markers of a producer, from the newest that the target has durable to the newest of all.
#[derive(Clone, Debug, Default)]
pub struct Timeline(VecDeque<TimedLsn>);

impl Timeline {
    /// Another marker.
    pub fn push(&mut self, lsn: Lsn, time: UnixNanos) {
        if self.0.len() >= MARKS_MAX {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push_back(TimedLsn { lsn, time });
    }

    /// Forgets what lies before the newest marker up to `durable_at_target`.
    pub fn forget(&mut self, durable_at_target: Lsn) {
        while self.0.get(1).is_some_and(|second| second.lsn <= durable_at_target) {
            self.0.pop_front();
        }
    }

    /// The positions mean something else from now on.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// At most about `most` of them, evenly, the first and the last among them.
    #[must_use]
    pub fn thinned(&self, most: usize) -> Vec<TimedLsn> {
        let step = self.0.len().div_ceil(most.max(1)).max(1);
        let mut marks: Vec<_> = self.0.iter().step_by(step).copied().collect();
        if let (Some(shown), Some(last)) = (marks.last(), self.0.back())
            && shown != last
        {
            marks.push(*last);
        }
        marks
    }
}

/// How far records are; `None` where nobody says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// A window is open at the source.
    pub catching_up: bool,
    /// Newest record given a position.
    pub captured: Lsn,
    /// Sent by the source; `None` while it has no connection.
    pub sent: Option<Lsn>,
    /// Durable at the process server.
    pub relay_durable: Option<Lsn>,
    /// Sent by the process server; `None` while it has no connection.
    pub relay_sent: Option<Lsn>,
    /// Received by the master target.
    pub target_received: Option<Lsn>,
}

/// Time in one stage.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct StageTime {
    /// Where.
    pub stage: Stage,
    /// Seconds.
    pub s: f64,
}

/// Splits the time since the newest durable legal point, which is the RPO (trap T-18).
///
/// `now` is the source's clock. Where a hop says nothing, or has no connection, its time counts for
/// the wire before it. The resolution is the interval of the markers.
#[must_use]
pub fn rpo_by_stage(
    now: UnixNanos,
    newest_point: UnixNanos,
    timeline: &[TimedLsn],
    passed: &Passed,
) -> Vec<StageTime> {
    let first = if passed.catching_up { Stage::CatchUp } else { Stage::Capture };
    let time_of = |lsn: Lsn| {
        let mark = timeline.iter().rev().find(|mark| mark.lsn <= lsn);
        mark.map_or(newest_point, |mark| mark.time)
    };
    // Without a connection nothing waits in front of the wire: it waits for the wire.
    let sent = passed.sent.unwrap_or(passed.captured);
    let relay_sent = match (passed.relay_durable, passed.relay_sent) {
        (Some(durable), None) => Some(durable),
        (_, sent) => sent,
    };
    let ends = [
        (first, Some(passed.captured)),
        (Stage::Queue, Some(sent)),
        (Stage::WireToRelay, passed.relay_durable),
        (Stage::Spool, relay_sent),
        (Stage::WireToTarget, passed.target_received),
    ];
    let mut all = Vec::with_capacity(ends.len() + 1);
    let mut at = now.max(newest_point);
    // What nobody knows the end of.
    let mut open = None;
    let mut end_stage = |stage: Stage, time: UnixNanos, open: &mut Option<Stage>| {
        let time = time.clamp(newest_point, at);
        let stage = open.take().unwrap_or(stage);
        let s = Duration::from_nanos(at.since(time)).as_secs_f64();
        at = time;
        all.push(StageTime { stage, s });
    };
    for (stage, end) in ends {
        match end {
            Some(lsn) => end_stage(stage, time_of(lsn), &mut open),
            None => open = open.or(Some(stage)),
        }
    }
    end_stage(Stage::Store, newest_point, &mut open);
    all
}

/// The stage in which most of the time is spent.
#[must_use]
pub fn most(stages: &[StageTime]) -> Option<StageTime> {
    stages.iter().copied().max_by(|a, b| a.s.total_cmp(&b.s))
}

/// True when the RPO is on its way to the threshold: past the half of it, and no longer a matter of
/// markers.
#[must_use]
pub fn is_rising(rpo: Duration, threshold: Duration) -> bool {
    rpo <= threshold && rpo > (threshold / 2).max(EARLY_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// A marker a second: position 10 n at second n.
    fn timeline() -> Vec<TimedLsn> {
        (1..=100).map(|n| TimedLsn { lsn: Lsn::new(n * 10), time: UnixNanos(n * S) }).collect()
    }

    fn split(passed: &Passed, point_s: u64) -> Vec<(Stage, u64)> {
        let stages = rpo_by_stage(UnixNanos(101 * S), UnixNanos(point_s * S), &timeline(), passed);
        let total: f64 = stages.iter().map(|one| one.s).sum();
        assert!((total - (101 - point_s) as f64).abs() < 1e-6, "they add up to the RPO: {total}");
        stages.iter().filter(|one| one.s > 0.0).map(|one| (one.stage, one.s as u64)).collect()
    }

    fn passed() -> Passed {
        Passed {
            catching_up: false,
            captured: Lsn::new(1000),
            sent: Some(Lsn::new(995)),
            relay_durable: Some(Lsn::new(985)),
            relay_sent: Some(Lsn::new(405)),
            target_received: Some(Lsn::new(395)),
        }
    }

    #[test]
    fn each_stage_has_its_time() {
        let stages = split(&passed(), 37);
        let expected = [
            (Stage::Capture, 1),
            (Stage::Queue, 1),
            (Stage::WireToRelay, 1),
            (Stage::Spool, 58),
            (Stage::WireToTarget, 1),
            (Stage::Store, 2),
        ];
        assert_eq!(stages, expected);
        let stages = rpo_by_stage(UnixNanos(101 * S), UnixNanos(37 * S), &timeline(), &passed());
        assert_eq!(most(&stages).map(|one| one.stage), Some(Stage::Spool));
    }

    /// Without a connection the wire is to blame, not what waits in front of it.
    #[test]
    fn what_waits_for_a_connection_waits_on_the_wire() {
        let down = Passed { relay_sent: None, ..passed() };
        let expected = [
            (Stage::Capture, 1),
            (Stage::Queue, 1),
            (Stage::WireToRelay, 1),
            (Stage::WireToTarget, 59),
            (Stage::Store, 2),
        ];
        assert_eq!(split(&down, 37), expected);
        let cut = Passed { sent: None, relay_durable: Some(Lsn::new(395)), ..passed() };
        assert_eq!(split(&cut, 39), [(Stage::Capture, 1), (Stage::WireToRelay, 61)]);
    }

    /// T-18: a silent relay, a dead agent, a window: the time is somewhere, never gone.
    #[test]
    fn t18_silence_and_windows_are_no_progress() {
        let silent = Passed { relay_durable: None, relay_sent: None, ..passed() };
        let expected =
            [(Stage::Capture, 1), (Stage::Queue, 1), (Stage::WireToRelay, 60), (Stage::Store, 2)];
        assert_eq!(split(&silent, 37), expected);
        let nobody = Passed { captured: Lsn::new(1000), ..Passed::default() };
        assert_eq!(split(&nobody, 50), [(Stage::Capture, 1), (Stage::WireToRelay, 50)]);
        let window = Passed { catching_up: true, ..Passed::default() };
        let no_marks = rpo_by_stage(UnixNanos(90 * S), UnixNanos(50 * S), &[], &window);
        assert_eq!(most(&no_marks), Some(StageTime { stage: Stage::CatchUp, s: 40.0 }));
    }

    /// Positions of different moments may overtake each other: no stage is negative.
    #[test]
    fn reports_of_different_moments_give_no_nonsense() {
        let mut mixed = passed();
        mixed.relay_durable = Some(Lsn::new(1_000));
        mixed.sent = Some(Lsn::new(300));
        mixed.target_received = Some(Lsn::new(2_000));
        assert!(split(&mixed, 37).iter().all(|(_, s)| *s <= 101));
        let ahead = rpo_by_stage(UnixNanos(5), UnixNanos(9), &[], &Passed::default());
        assert!(ahead.iter().all(|one| one.s == 0.0), "the source's clock was set back");
    }

    #[test]
    fn a_timeline_keeps_what_is_needed() {
        let mut timeline = Timeline::default();
        (1..=10_000).for_each(|n| timeline.push(Lsn::new(n), UnixNanos(n)));
        assert!(timeline.0.len() <= MARKS_MAX);
        let shown = timeline.thinned(64);
        assert!(shown.len() <= 65 && shown.last().is_some_and(|last| last.lsn == Lsn::new(10_000)));
        assert_eq!(shown.first().map(|first| first.lsn), Some(Lsn::new(1)));
        timeline.forget(Lsn::new(9_990));
        let first = timeline.thinned(64).first().map(|first| first.lsn.get());
        assert!(first.is_some_and(|first| first > 9_900 && first <= 9_990), "{first:?}");
        timeline.forget(Lsn::MAX);
        assert_eq!(timeline.thinned(64).len(), 1, "the newest stays");
    }

    #[test]
    fn the_warning_comes_before_the_threshold() {
        let rising =
            |rpo, threshold| is_rising(Duration::from_secs(rpo), Duration::from_secs(threshold));
        assert!(!rising(450, 900) && rising(451, 900) && rising(900, 900));
        assert!(!rising(901, 900), "that is another alert");
        assert!(!rising(29, 40) && rising(31, 40) && !rising(12, 15));
    }
}
