use super::Remote;
use super::job::see_to_its_end;
use super::keeping;
use crate::args::{ChangePointArgs, FailoverArgs, MarkArgs, PointsArgs, TestFailoverArgs};
use crate::failure::Failure;
use crate::output::{self, table, time};
use landfall_api_types::request::{ChangePoint, Failover, Mark, TestCleanUp, TestFailover};
use landfall_api_types::resource::Points;
use landfall_api_types::retention::PointFilter;
use landfall_types::MarkerKind;

/// `landfall points`.
pub(super) async fn points(remote: &Remote, args: PointsArgs) -> Result<(), Failure> {
    if args.holds {
        return keeping::holds(remote, &args.machine).await;
    }
    let filter = PointFilter {
        from: args.from.map(|time| time.0),
        to: args.to.map(|time| time.0),
        kind: args.kind,
        pinned: args.pinned,
        corrupt: args.corrupt,
        named: args.named,
        after: args.after,
        limit: args.limit,
    };
    let points = remote.client.points_that(&args.machine, &filter).await?;
    output::print(remote.format, &points, listed);
    Ok(())
}

/// `landfall mark`.
pub(super) async fn mark(remote: &Remote, args: MarkArgs) -> Result<(), Failure> {
    let ask = Mark { name: args.name, consistency: args.consistency.into() };
    let job = remote.client.mark(&args.machine, &ask).await;
    see_to_its_end(remote, job, args.wait.no_wait).await
}

/// `landfall test-failover`.
pub(super) async fn test_failover(remote: &Remote, args: TestFailoverArgs) -> Result<(), Failure> {
    let job = match args.clean_up {
        Some(name) => remote.client.test_clean_up(&args.machine, &TestCleanUp { name }).await,
        None => {
            let ask = TestFailover { point: args.point.choice(), name: args.branch };
            remote.client.test_failover(&args.machine, &ask).await
        }
    };
    see_to_its_end(remote, job, args.wait.no_wait).await
}

/// `landfall failover`.
pub(super) async fn failover(remote: &Remote, args: FailoverArgs) -> Result<(), Failure> {
    let ask = Failover {
        point: args.point.choice(),
        source_is_dead: args.source_is_dead,
        skip_drain: args.skip_drain,
    };
    let job = remote.client.failover(&args.machine, &ask).await;
    see_to_its_end(remote, job, args.wait.no_wait).await
}

/// `landfall change-point`.
pub(super) async fn change_point(remote: &Remote, args: ChangePointArgs) -> Result<(), Failure> {
    let ask = ChangePoint { point: args.point.choice() };
    let job = remote.client.change_point(&args.machine, &ask).await;
    see_to_its_end(remote, job, args.wait.no_wait).await
}

fn listed(points: &Points) -> String {
    let rows = points.points.iter().map(|point| {
        let name = point.name.clone().unwrap_or_default();
        let note = match (point.corrupt, point.pinned) {
            (true, _) => "corrupt",
            (false, true) => "pinned",
            (false, false) => "",
        };
        let note = note.to_owned();
        vec![point.lsn.to_string(), time(point.time), kind(point.kind).to_owned(), name, note]
    });
    let table = table(&["LSN", "time", "kind", "name", ""], rows);
    let legal = points.legal.iter().map(|(first, last)| format!("{first}..{last}"));
    let legal = legal.collect::<Vec<_>>().join(", ");
    let more = match points.points.last().filter(|_| points.more) {
        Some(last) => format!("\nthere are more: --after {}", last.lsn),
        None => String::new(),
    };
    format!(
        "{table}{more}\nany LSN of these with --at-lsn: {}",
        if legal.is_empty() { "none" } else { &legal }
    )
}

const fn kind(kind: MarkerKind) -> &'static str {
    match kind {
        MarkerKind::CrashConsistent => "crash-consistent",
        MarkerKind::FileSystemConsistent => "file-system-consistent",
        MarkerKind::ApplicationConsistent => "application-consistent",
        MarkerKind::User => "named",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_api_types::resource::Point;
    use landfall_types::{Lsn, UnixNanos};

    #[test]
    fn points_are_listed_with_the_positions_between_them() {
        let point = Point {
            lsn: Lsn::new(17),
            time: UnixNanos(1_800_000_000_000_000_000),
            kind: MarkerKind::User,
            name: Some("before-upgrade".into()),
            group: None,
            corrupt: true,
            pinned: false,
        };
        let legal = vec![(Lsn::new(3), Lsn::new(20)), (Lsn::new(31), Lsn::new(40))];
        let text = listed(&Points { points: vec![point], legal, more: true });
        for part in [
            "17",
            "2027-01-15T08:00:00.000Z",
            "named",
            "before-upgrade",
            "corrupt",
            "--after 17",
            "3..20, 31..40",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(listed(&Points::default()).ends_with("none"));
    }
}
