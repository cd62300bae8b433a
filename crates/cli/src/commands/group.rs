//! Points of several machines at once.

use super::Remote;
use crate::args::GroupCommand;
use crate::failure::Failure;
use crate::output::{self, table, time};
use landfall_api_types::request::MarkGroup;
use landfall_api_types::resource::Point;
use landfall_types::{GroupPointId, Lsn};
use serde::Serialize;
use std::collections::BTreeMap;

/// A point that every machine has.
#[derive(Serialize)]
struct Common {
    group: GroupPointId,
    name: Option<String>,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    machine: String,
    lsn: Lsn,
    time: String,
}

/// `landfall group`.
pub(super) async fn group(remote: &Remote, command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Mark(args) => {
            let consistency = args.consistency.into();
            let ask = MarkGroup { name: args.name, machines: args.machines, consistency };
            let made = remote.client.mark_group(&ask).await?;
            output::print(remote.format, &made, |made| {
                let machines = made.machines.join(", ");
                format!("{:?} of {machines}: frozen for {} ms at most", made.name, made.frozen_ms)
            });
        }
        GroupCommand::Points { machines } => {
            let mut found = Vec::new();
            for machine in machines {
                let points = remote.client.points(&machine).await?.points;
                found.push((machine, points));
            }
            output::print(remote.format, &common(&found), |all| listed(all));
        }
    }
    Ok(())
}

/// A member without its marker makes the others' no point of the group (trap T-19).
fn common(found: &[(String, Vec<Point>)]) -> Vec<Common> {
    let mut groups: BTreeMap<GroupPointId, Common> = BTreeMap::new();
    for (machine, points) in found {
        for point in points.iter().filter(|point| !point.corrupt) {
            let Some(group) = point.group else { continue };
            let name = point.name.clone();
            let common = groups.entry(group);
            let common = common.or_insert_with(|| Common { group, name, members: Vec::new() });
            let (machine, time) = (machine.clone(), time(point.time));
            common.members.push(Member { machine, lsn: point.lsn, time });
        }
    }
    groups.into_values().filter(|common| common.members.len() == found.len()).collect()
}

fn listed(all: &[Common]) -> String {
    let rows = all.iter().map(|common| {
        let member = |one: &Member| format!("{} at {}", one.machine, one.lsn);
        let members: Vec<String> = common.members.iter().map(member).collect();
        let time = common.members.first().map(|one| one.time.clone()).unwrap_or_default();
        vec![common.name.clone().unwrap_or_default(), time, members.join(", ")]
    });
    table(&["name", "time", "LSN of each"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::{MarkerKind, UnixNanos};

    #[test]
    fn t19_only_points_that_every_machine_has_are_listed() {
        let group = |n| GroupPointId::from_bytes([n; 16]);
        let point = |lsn, of| Point {
            lsn: Lsn::new(lsn),
            time: UnixNanos(1_800_000_000_000_000_000),
            kind: MarkerKind::FileSystemConsistent,
            name: Some("nightly".to_owned()),
            group: of,
            corrupt: false,
            pinned: false,
        };
        let rotten = Point { corrupt: true, ..point(9, Some(group(3))) };
        let found = [
            ("a".to_owned(), vec![point(1, None), point(2, Some(group(1))), rotten]),
            (
                "b".to_owned(),
                vec![point(5, Some(group(1))), point(6, Some(group(2))), point(7, Some(group(3)))],
            ),
        ];
        let common = common(&found);
        assert_eq!(common.iter().map(|one| one.group).collect::<Vec<_>>(), [group(1)]);
        assert!(listed(&common).contains("a at 2, b at 5"));
    }
}
