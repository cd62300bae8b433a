//! Which position a choice of recovery point means.

use crate::app::App;
use crate::jobs::question;
use crate::record::MachineRecord;
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::{Point, Points};
use landfall_api_types::retention::{Hold, Note, NotePoint, PointFilter};
use landfall_api_types::{ApiError, codes};
use landfall_types::control::MARKER_NAME_BYTES_MAX;
use landfall_types::{Lsn, UnixNanos};

/// Asks the present target for the recovery points of a machine.
pub(crate) async fn of_machine(app: &App, machine: &MachineRecord) -> Result<Points, ApiError> {
    let (node, replica) = machine.target();
    match question(app, node, &Order::MtPoints { replica }).await? {
        OrderOutcome::Points(points) => Ok(points),
        other => {
            let cause = format!("{} answered something else: {other:?}", app.fleet.name(node));
            Err(ApiError::new(&codes::NODE_FAILED, cause))
        }
    }
}

/// The points that pass, the oldest first, as many as fit on a page.
///
/// # Errors
/// `bad-request` for a page of nothing.
pub(crate) fn filtered(all: Points, filter: &PointFilter) -> Result<Points, ApiError> {
    if filter.limit == Some(0) {
        return Err(ApiError::new(&codes::BAD_REQUEST, "limit: not above 0"));
    }
    let mut points: Vec<Point> =
        all.points.into_iter().filter(|point| filter.passes(point)).collect();
    let limit = filter.limit.unwrap_or(usize::MAX);
    let more = points.len() > limit;
    points.truncate(limit);
    Ok(Points { points, more, ..all })
}

/// Pins, unpins or names a listed point at the present target, and says what it is then.
pub(crate) async fn note(
    app: &App,
    machine: &MachineRecord,
    ask: NotePoint,
    by: String,
) -> Result<Point, ApiError> {
    if let Note::Name { name: Some(name) } = &ask.note
        && !(1..=MARKER_NAME_BYTES_MAX).contains(&name.len())
    {
        let cause = format!("name: {} bytes, not 1 to {MARKER_NAME_BYTES_MAX}", name.len());
        return Err(ApiError::new(&codes::BAD_REQUEST, cause));
    }
    let all = of_machine(app, machine).await?;
    let lsn = match choose(&all, &ask.point)? {
        PointChoice::Lsn(lsn) => lsn,
        _ => all.points.last().map_or(Lsn::ZERO, |point| point.lsn),
    };
    let (node, replica) = machine.target();
    question(app, node, &Order::MtNote { replica, lsn, note: ask.note, by }).await?;
    let all = of_machine(app, machine).await?;
    let noted = all.points.into_iter().find(|point| point.lsn == lsn);
    // One that is let go can be off the list at once.
    noted.ok_or_else(|| {
        ApiError::new(&codes::NO_SUCH_POINT, format!("LSN {lsn} is not listed any more"))
    })
}

/// What keeps history from expiring at the present target.
pub(crate) async fn holds(app: &App, machine: &MachineRecord) -> Result<Vec<Hold>, ApiError> {
    let (node, replica) = machine.target();
    match question(app, node, &Order::MtHolds { replica }).await? {
        OrderOutcome::Holds { holds } => Ok(holds),
        other => {
            let cause = format!("{} answered something else: {other:?}", app.fleet.name(node));
            Err(ApiError::new(&codes::NODE_FAILED, cause))
        }
    }
}

/// Turns a choice into a position, or leaves it to the target: *latest* is what is newest at the
/// promotion.
///
/// # Errors
/// `no-point-yet`, `no-such-point`, `point-in-window`, `ambiguous-time`.
pub(crate) fn choose(points: &Points, choice: &PointChoice) -> Result<PointChoice, ApiError> {
    let Some((first, last)) = points.legal.first().zip(points.legal.last()) else {
        return Err(ApiError::new(&codes::NO_POINT_YET, "there is no legal point yet"));
    };
    let legal = |lsn| points.legal.iter().any(|(from, through)| (*from..=*through).contains(&lsn));
    let lsn = match choice {
        PointChoice::Latest | PointChoice::LatestProcessed => return Ok(choice.clone()),
        PointChoice::Lsn(lsn) => *lsn,
        PointChoice::Name(name) => named(points, name)?.lsn,
        PointChoice::Time(time) => at(points, *time)?.lsn,
    };
    if legal(lsn) {
        return Ok(PointChoice::Lsn(lsn));
    }
    let range = format!("LSN {} to {}", first.0, last.1);
    if (first.0..=last.1).contains(&lsn) {
        return Err(ApiError::new(&codes::POINT_IN_WINDOW, format!("LSN {lsn} lies in a window")));
    }
    let cause = format!("LSN {lsn} is not among what is kept ({range})");
    Err(ApiError::new(&codes::NO_SUCH_POINT, cause))
}

/// Names can be given twice: the newest one counts.
fn named<'a>(points: &'a Points, name: &str) -> Result<&'a Point, ApiError> {
    let found = points.points.iter().rev().find(|point| point.name.as_deref() == Some(name));
    found.ok_or_else(|| ApiError::new(&codes::NO_SUCH_POINT, format!("no point is named {name:?}")))
}

/// The newest marker not later than `time`. After a clock step back several stretches of the log
/// hold the same times: then the candidates are named instead of one being chosen (trap T-6).
fn at(points: &Points, time: UnixNanos) -> Result<&Point, ApiError> {
    let runs: Vec<&[Point]> = points.points.chunk_by(|a, b| a.time <= b.time).collect();
    let last = runs.len().saturating_sub(1);
    let holds = |(index, run): (usize, &&[Point])| {
        let begins = run.first().is_some_and(|point| point.time <= time);
        begins && (index == last || run.last().is_some_and(|point| time <= point.time))
    };
    let newest = |run: &[Point]| run.iter().rposition(|point| point.time <= time);
    let mut candidates: Vec<&Point> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        if holds((index, run)) {
            candidates.extend(newest(run).map(|at| &run[at]));
        }
    }
    match candidates.as_slice() {
        [one] => Ok(one),
        [] => between_runs(points, time),
        several => {
            let lsns: Vec<_> = several.iter().map(|point| point.lsn.to_string()).collect();
            let cause = format!("the clock was set back: that time is at LSN {}", lsns.join(", "));
            Err(ApiError::new(&codes::AMBIGUOUS_TIME, cause).detail("candidates", lsns.join(",")))
        }
    }
}

/// A time that no stretch holds: between two of them, or before all.
fn between_runs(points: &Points, time: UnixNanos) -> Result<&Point, ApiError> {
    let earlier = points.points.iter().filter(|point| point.time <= time);
    earlier.max_by_key(|point| point.lsn).ok_or_else(|| {
        ApiError::new(&codes::NO_SUCH_POINT, "every point that is kept is later than that time")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::MarkerKind;

    fn points(markers: &[(u64, u64, Option<&str>)], legal: &[(u64, u64)]) -> Points {
        let point = |(lsn, time, name): &(u64, u64, Option<&str>)| Point {
            group: None,
            lsn: Lsn::new(*lsn),
            time: UnixNanos(*time),
            kind: MarkerKind::CrashConsistent,
            name: name.map(str::to_owned),
            corrupt: false,
            pinned: false,
        };
        let range = |(from, through): &(u64, u64)| (Lsn::new(*from), Lsn::new(*through));
        Points {
            points: markers.iter().map(point).collect(),
            legal: legal.iter().map(range).collect(),
            more: false,
        }
    }

    fn lsn(points: &Points, choice: PointChoice) -> Result<u64, String> {
        match choose(points, &choice) {
            Ok(PointChoice::Lsn(lsn)) => Ok(lsn.get()),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn names_times_and_positions() {
        let kept = points(
            &[(10, 100, None), (20, 200, Some("a")), (30, 300, Some("a"))],
            &[(5, 22), (28, 40)],
        );
        assert_eq!(lsn(&kept, PointChoice::Name("a".to_owned())), Ok(30), "the newest of a name");
        assert_eq!(lsn(&kept, PointChoice::Time(UnixNanos(250))), Ok(20));
        assert_eq!(lsn(&kept, PointChoice::Time(UnixNanos(9999))), Ok(30));
        assert_eq!(lsn(&kept, PointChoice::Lsn(Lsn::new(22))), Ok(22));
        let refused = |choice| lsn(&kept, choice).expect_err("refused");
        assert_eq!(refused(PointChoice::Lsn(Lsn::new(25))), "point-in-window");
        assert_eq!(refused(PointChoice::Lsn(Lsn::new(4))), "no-such-point");
        assert_eq!(refused(PointChoice::Lsn(Lsn::new(41))), "no-such-point");
        assert_eq!(refused(PointChoice::Name("b".to_owned())), "no-such-point");
        assert_eq!(refused(PointChoice::Time(UnixNanos(99))), "no-such-point");
        let latest = choose(&kept, &PointChoice::Latest).expect("there is one");
        assert_eq!(latest, PointChoice::Latest);
    }

    #[test]
    fn a_filter_passes_what_it_says_page_by_page() {
        let mut kept = points(
            &[(10, 100, None), (20, 200, Some("a")), (30, 300, Some("b")), (40, 400, None)],
            &[(5, 50)],
        );
        kept.points[3].pinned = true;
        let page = |filter: PointFilter| {
            let page = filtered(kept.clone(), &filter).expect("valid");
            (page.points.iter().map(|point| point.lsn.get()).collect::<Vec<_>>(), page.more)
        };
        let all = PointFilter::default();
        assert_eq!(page(all.clone()), (vec![10, 20, 30, 40], false));
        assert_eq!(page(PointFilter { limit: Some(2), ..all.clone() }), (vec![10, 20], true));
        let behind = Some(Lsn::new(20));
        let next = PointFilter { limit: Some(2), after: behind, ..all.clone() };
        assert_eq!(page(next), (vec![30, 40], false));
        assert_eq!(page(PointFilter { named: true, ..all.clone() }).0, [20, 30]);
        assert_eq!(page(PointFilter { pinned: true, ..all.clone() }).0, [40]);
        assert_eq!(page(PointFilter { corrupt: true, ..all.clone() }).0, [0; 0]);
        let between = PointFilter { from: Some(200), to: Some(300), ..all.clone() };
        assert_eq!(page(between).0, [20, 30]);
        let app = Some(MarkerKind::ApplicationConsistent);
        assert_eq!(page(PointFilter { kind: app, ..all.clone() }).0, [0; 0]);
        let nothing = filtered(kept.clone(), &PointFilter { limit: Some(0), ..all });
        assert_eq!(nothing.expect_err("refused").code, "bad-request");
    }

    #[test]
    fn nothing_can_be_chosen_before_the_first_copy_has_ended() {
        let none = points(&[], &[]);
        assert_eq!(lsn(&none, PointChoice::Latest).expect_err("refused"), "no-point-yet");
    }

    /// Guards P5, T-6: after a clock step a time that two stretches hold is not guessed.
    #[test]
    fn t6_a_time_that_two_stretches_hold_lists_the_candidates() {
        let kept = points(
            &[
                (1, 10, None),
                (2, 20, None),
                (3, 30, None),
                (4, 15, None),
                (5, 25, None),
                (6, 35, None),
            ],
            &[(1, 9)],
        );
        let error = choose(&kept, &PointChoice::Time(UnixNanos(22))).expect_err("ambiguous");
        assert_eq!(
            (error.code.as_str(), error.details["candidates"].as_str()),
            ("ambiguous-time", "2,4")
        );
        assert_eq!(lsn(&kept, PointChoice::Time(UnixNanos(12))), Ok(1), "only before the step");
        assert_eq!(lsn(&kept, PointChoice::Time(UnixNanos(40))), Ok(6), "only after it");
    }
}
