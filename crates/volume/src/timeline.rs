//! Which positions of a history are recovery points, from its control records. Pure; no storage.

use crate::error::PointError;
use landfall_types::{
    Control, DiskGeometry, DiskIndex, Lsn, Marker, UnixNanos, WindowClose, WindowId, WindowMode,
    WindowOpen, WindowReason, Windows, WindowsError,
};

/// A marker and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// Where.
    pub lsn: Lsn,
    /// What it says.
    pub marker: Marker,
}

/// A way to choose a recovery point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PointSelector {
    /// The newest durable position at which no window is open.
    Newest,
    /// Any position outside windows.
    Lsn(Lsn),
    /// The newest marker that is not later than this; the candidates are listed when a clock step
    /// makes several (T-6).
    Time(UnixNanos),
    /// The marker of this name.
    Name(String),
}

/// Positions from `first` to `last`, both inclusive, that are recovery points; no `last` yet: up to
/// the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stretch {
    first: Lsn,
    last: Option<Lsn>,
}

/// The control records of one history, followed in order.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    windows: Windows,
    stretches: Vec<Stretch>,
    markers: Vec<Point>,
    geometry: Vec<(Lsn, DiskIndex, DiskGeometry)>,
}

impl Timeline {
    /// Begins at a position whose content is exact: it is a recovery point itself.
    pub(crate) fn exact(base: Lsn) -> Self {
        Self {
            windows: Windows::new(),
            stretches: vec![Stretch { first: base, last: None }],
            markers: vec![],
            geometry: vec![],
        }
    }

    /// With the marker at its beginning, whose record is not there to be followed.
    pub(crate) fn with_first(mut self, marker: Option<Point>) -> Self {
        self.markers.extend(marker);
        self
    }

    /// Begins with disks of unknown content: no position is a recovery point before an exact window
    /// over all of them, opened later, has closed (traps T-5, T-15). That is what a window that
    /// closed inexactly leaves behind.
    pub(crate) fn unknown(disks: &[DiskIndex]) -> Self {
        let mut windows = Windows::new();
        let window = WindowId(0);
        let open = WindowOpen {
            window,
            reason: WindowReason::FirstCopy,
            mode: WindowMode::Copy,
            disks: disks.iter().map(|disk| disk.0).collect(),
            into_image: false,
        };
        let close = WindowClose { window, exact: false };
        for control in [Control::WindowOpen(open), Control::WindowClose(close)] {
            windows.apply(&control).expect("the first window can be opened and closed");
        }
        Self { windows, stretches: vec![], markers: vec![], geometry: vec![] }
    }

    /// From here on, and before, nothing is a recovery point until an exact window over all disks,
    /// opened later, has closed: someone may have written the disks beneath (trap T-15).
    pub(crate) fn doubt(&mut self, disks: &[DiskIndex]) {
        let window = WindowId(u64::MAX);
        let open = WindowOpen {
            window,
            reason: WindowReason::Requested,
            mode: WindowMode::Compare,
            disks: disks.iter().map(|disk| disk.0).collect(),
            into_image: false,
        };
        let close = WindowClose { window, exact: false };
        for control in [Control::WindowOpen(open), Control::WindowClose(close)] {
            self.windows.apply(&control).expect("no producer numbers a window so");
        }
        self.stretches.clear();
    }

    /// Begins where another forks, at a recovery point: with its marker there, and the sizes that
    /// its records say up to there (trap T-9).
    pub(crate) fn fork(&self, at: Lsn) -> Self {
        let known = self.geometry.iter().filter(|(lsn, _, _)| *lsn <= at);
        let geometry = known.copied().collect();
        Self { geometry, ..Self::exact(at).with_first(self.points(at, at).pop()) }
    }

    /// Follows one control record. Nothing is changed after an error.
    pub(crate) fn apply(&mut self, lsn: Lsn, control: &Control) -> Result<(), WindowsError> {
        self.windows.apply(control)?;
        match control {
            Control::Marker(marker) => self.markers.push(Point { lsn, marker: marker.clone() }),
            Control::Geometry(geometry) => {
                let (disk, _, geometry) = geometry.parts();
                self.geometry.push((lsn, disk, geometry));
            }
            Control::WindowOpen(_) | Control::WindowClose(_) => {}
        }
        let legal = self.windows.legal();
        let open = self.stretches.last_mut().filter(|stretch| stretch.last.is_none());
        match (open, legal) {
            (Some(stretch), false) => stretch.last = Some(lsn.prev()),
            (None, true) => self.stretches.push(Stretch { first: lsn, last: None }),
            (Some(_), true) | (None, false) => {}
        }
        Ok(())
    }

    /// The windows as they stand at the newest followed position.
    pub(crate) const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// True when the position is a recovery point.
    pub(crate) fn legal(&self, lsn: Lsn) -> bool {
        self.stretches
            .iter()
            .any(|stretch| stretch.first <= lsn && stretch.last.is_none_or(|last| lsn <= last))
    }

    /// The stretches of recovery points within `from ..= through`.
    pub(crate) fn legal_ranges(&self, from: Lsn, through: Lsn) -> Vec<(Lsn, Lsn)> {
        let clip = |stretch: &Stretch| {
            let first = stretch.first.max(from);
            let last = stretch.last.unwrap_or(Lsn::MAX).min(through);
            (first <= last).then_some((first, last))
        };
        self.stretches.iter().filter_map(clip).collect()
    }

    /// The newest recovery point within `from ..= through`.
    pub(crate) fn newest_legal(&self, from: Lsn, through: Lsn) -> Option<Lsn> {
        self.legal_ranges(from, through).last().map(|(_, last)| *last)
    }

    /// The markers that are recovery points within `from ..= through`, oldest first.
    pub(crate) fn points(&self, from: Lsn, through: Lsn) -> Vec<Point> {
        let wanted =
            |point: &&Point| from <= point.lsn && point.lsn <= through && self.legal(point.lsn);
        self.markers.iter().filter(wanted).cloned().collect()
    }

    /// The newest marker that is a recovery point within `from ..= through`.
    pub(crate) fn newest_point(&self, from: Lsn, through: Lsn) -> Option<Point> {
        let newest_first = self.markers.iter().rev().skip_while(|point| point.lsn > through);
        let mut kept = newest_first.take_while(|point| point.lsn >= from);
        kept.find(|point| self.legal(point.lsn)).cloned()
    }

    /// A disk's size and sectors at a position, when a record up to there says them (trap T-9).
    pub(crate) fn geometry(&self, disk: DiskIndex, at: Lsn) -> Option<DiskGeometry> {
        let says = |entry: &&(Lsn, DiskIndex, DiskGeometry)| entry.0 <= at && entry.1 == disk;
        self.geometry.iter().rev().find(says).map(|entry| entry.2)
    }

    /// Which position a choice means, within `from ..= through`. Times and names are looked up
    /// among the `points` that are listed, oldest first.
    pub(crate) fn resolve(
        &self,
        choice: &PointSelector,
        from: Lsn,
        through: Lsn,
        points: &[Point],
    ) -> Result<Lsn, PointError> {
        let Some(newest) = self.newest_legal(from, through) else {
            return Err(PointError::NoneYet);
        };
        match choice {
            PointSelector::Newest => Ok(newest),
            PointSelector::Lsn(lsn) if *lsn < from || *lsn > through => {
                Err(PointError::NotKept { lsn: *lsn, first: from, last: through })
            }
            PointSelector::Lsn(lsn) if self.legal(*lsn) => Ok(*lsn),
            PointSelector::Lsn(lsn) => Err(PointError::InWindow { lsn: *lsn }),
            PointSelector::Time(time) => {
                let matches = |at: usize| {
                    let later = points.get(at + 1).map(|next| next.marker.time() > *time);
                    points[at].marker.time() <= *time && later.unwrap_or(true)
                };
                one_of((0..points.len()).filter(|at| matches(*at)).map(|at| points[at].clone()))
                    .unwrap_or(Err(PointError::NoMarkerBefore { time: *time }))
            }
            PointSelector::Name(name) => {
                let named = points.iter().filter(|p| p.marker.name.as_ref() == Some(name));
                one_of(named.cloned())
                    .unwrap_or_else(|| Err(PointError::NoMarkerNamed { name: name.clone() }))
            }
        }
    }
}

/// The only candidate; an error that lists them when there are several; `None` when there is none.
fn one_of(candidates: impl Iterator<Item = Point>) -> Option<Result<Lsn, PointError>> {
    let candidates: Vec<Point> = candidates.collect();
    match candidates.as_slice() {
        [] => None,
        [only] => Some(Ok(only.lsn)),
        _ => Some(Err(PointError::Ambiguous { candidates })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::MarkerKind;

    fn lsn(n: u64) -> Lsn {
        Lsn::new(n)
    }
    fn open(id: u64) -> Control {
        Control::WindowOpen(WindowOpen {
            window: WindowId(id),
            reason: WindowReason::Requested,
            mode: WindowMode::Compare,
            disks: vec![0],
            into_image: false,
        })
    }
    fn close(id: u64, exact: bool) -> Control {
        Control::WindowClose(WindowClose { window: WindowId(id), exact })
    }
    fn marker(time: u64, name: Option<&str>) -> Control {
        let name = name.map(str::to_owned);
        let kind = MarkerKind::CrashConsistent;
        Control::Marker(Marker { kind, time_unix_ns: time, name, group: None })
    }
    fn follow(mut timeline: Timeline, controls: &[(u64, Control)]) -> Timeline {
        for (at, control) in controls {
            timeline.apply(lsn(*at), control).expect("fits");
        }
        timeline
    }
    fn resolve(timeline: &Timeline, choice: &PointSelector) -> Result<Lsn, PointError> {
        timeline.resolve(choice, lsn(0), lsn(100), &timeline.points(lsn(0), lsn(100)))
    }
    fn ranges(timeline: &Timeline) -> Vec<(u64, u64)> {
        let ranges = timeline.legal_ranges(lsn(0), lsn(100));
        ranges.into_iter().map(|(first, last)| (first.get(), last.get())).collect()
    }

    /// Guards P3. T-4: the interior of overlapping windows is no recovery point, nor are markers in
    /// it.
    #[test]
    fn t4_markers_in_windows_are_no_points() {
        let controls = [
            (5, marker(50, None)),
            (10, open(1)),
            (12, open(2)),
            (14, close(2, true)),
            (15, marker(150, None)),
            (20, close(1, true)),
            (21, marker(210, None)),
        ];
        let timeline = follow(Timeline::exact(lsn(0)), &controls);
        assert_eq!(ranges(&timeline), [(0, 9), (20, 100)]);
        let points = timeline.points(lsn(0), lsn(100));
        assert_eq!(points.iter().map(|p| p.lsn.get()).collect::<Vec<_>>(), [5, 21]);
        let inside = resolve(&timeline, &PointSelector::Lsn(lsn(15)));
        assert!(matches!(inside, Err(PointError::InWindow { .. })));
        assert_eq!(inside.expect_err("inside").code(), "point-in-window");
    }

    /// Guards P3. T-5: after an inexact closing nothing is legal until the next exact one, and
    /// nothing at all before the first exact window where the base was unknown.
    #[test]
    fn t5_a_fuzzy_copy_is_no_point() {
        let fuzzy = [(10, open(1)), (12, close(1, false)), (13, marker(1, None))];
        let timeline = follow(Timeline::exact(lsn(0)), &fuzzy);
        assert_eq!(ranges(&timeline), [(0, 9)]);
        let timeline = follow(timeline, &[(20, open(2)), (22, close(2, true))]);
        assert_eq!(ranges(&timeline), [(0, 9), (22, 100)]);

        let unknown = Timeline::unknown(&[DiskIndex(0)]);
        let nothing = resolve(&unknown, &PointSelector::Newest);
        assert!(matches!(nothing, Err(PointError::NoneYet)));
        let unknown = follow(unknown, &[(1, open(1)), (2, marker(1, None)), (3, close(1, true))]);
        assert_eq!(ranges(&unknown), [(3, 100)]);
    }

    /// Guards P9. T-6: after the source's clock was set back a time can mean several points: they
    /// are listed.
    #[test]
    fn t6_a_time_after_a_clock_step_lists_the_candidates() {
        let controls = [
            (1, marker(100, None)),
            (2, marker(200, None)),
            (3, marker(120, None)),
            (4, marker(220, None)),
        ];
        let timeline = follow(Timeline::exact(lsn(0)), &controls);
        let at = |time| resolve(&timeline, &PointSelector::Time(UnixNanos(time)));
        match at(150) {
            Err(PointError::Ambiguous { candidates }) => {
                assert_eq!(candidates.iter().map(|p| p.lsn.get()).collect::<Vec<_>>(), [1, 3]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(at(110).expect("one"), lsn(1));
        assert_eq!(at(500).expect("one"), lsn(4));
        assert!(matches!(at(99), Err(PointError::NoMarkerBefore { .. })));
    }

    #[test]
    fn names_and_limits() {
        let controls =
            [(1, marker(1, Some("a"))), (2, marker(2, Some("b"))), (3, marker(3, Some("a")))];
        let timeline = follow(Timeline::exact(lsn(0)), &controls);
        let named = |name: &str| resolve(&timeline, &PointSelector::Name(name.to_owned()));
        assert_eq!(named("b").expect("one"), lsn(2));
        assert!(matches!(named("a"), Err(PointError::Ambiguous { .. })));
        assert!(matches!(named("c"), Err(PointError::NoMarkerNamed { .. })));
        let beyond = resolve(&timeline, &PointSelector::Lsn(lsn(101)));
        assert!(matches!(beyond, Err(PointError::NotKept { .. })));
    }
}
