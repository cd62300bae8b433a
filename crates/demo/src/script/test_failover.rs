//! Step 4: recovery is tested while replication goes on.

use super::recovered::Recovered;
use super::stage::{MACHINE, Stage, told};
use crate::ledger::Ledger;
use crate::machine::RunningMachine;
use crate::wait;
use crate::workload::Acknowledged;
use anyhow::{Context as _, Result, bail, ensure};
use landfall_api_client::Client;
use landfall_api_types::request::{Consistency, Mark, PointChoice, TestCleanUp, TestFailover};
use landfall_api_types::resource::{Branch, Points};
use landfall_types::Lsn;
use std::time::Duration;

/// A named recovery point, and what the workload had acknowledged just before and just after it.
#[derive(Clone, Debug)]
pub(super) struct NamedPoint {
    pub(super) name: String,
    before: Acknowledged,
    after: Acknowledged,
}

impl NamedPoint {
    /// The ledger at this point holds all that was acknowledged before it, and at most the one
    /// entry that was being written beyond what was acknowledged after it.
    pub(super) fn fits(&self, ledger: Ledger) -> Result<String> {
        let (low, high) = (self.before.disk1, self.after.disk1 + 1);
        ensure!(
            (low..=high).contains(&ledger.disk1) && ledger.disk2 >= self.before.disk2,
            "{} entries, but {low} to {high} are right here",
            ledger.disk1
        );
        Ok(format!("entries 1..={} on disk 1, {} on disk 2", ledger.disk1, ledger.disk2))
    }
}

/// Marks a recovery point by name and waits until it can be chosen.
pub(super) async fn mark(
    stage: &mut Stage<'_>,
    client: &Client,
    machine: &mut RunningMachine,
    name: &str,
) -> Result<NamedPoint> {
    let before = machine.acknowledged()?;
    stage
        .finish(
            client,
            client
                .mark(MACHINE, &Mark { name: name.to_owned(), consistency: Consistency::Crash })
                .await,
        )
        .await?;
    wait::until("the named point is listed", Duration::from_secs(60), || async {
        let points = client.points(MACHINE).await.map_err(told)?;
        Ok(points.points.iter().any(|point| point.name.as_deref() == Some(name)).then_some(()))
    })
    .await?;
    let after = machine.acknowledged()?;
    Ok(NamedPoint { name: name.to_owned(), before, after })
}

/// Step 4: a point in the past, and positions between markers; each mounted, checked, and cleaned
/// up.
pub(super) async fn test(
    stage: &mut Stage<'_>,
    client: &Client,
    machine: &mut RunningMachine,
) -> Result<NamedPoint> {
    stage.begin(4, "Test failover, to points in the past, while replication goes on");
    machine.work(stage.scale.entries)?;
    let point = mark(stage, client, machine, "before-the-storm").await?;
    machine.work(stage.scale.entries)?;
    let ledger = test_at(stage, client, PointChoice::Name(point.name.clone())).await;
    let found = ledger.and_then(|ledger| point.fits(ledger));
    stage.check("test failover to the named point: clean, and the ledger is right", found);
    let mut seen: Vec<(Lsn, u64)> = Vec::new();
    for _ in 0..stage.scale.random_points {
        let lsn = between_markers(stage, client).await?;
        let ledger = test_at(stage, client, PointChoice::Lsn(lsn)).await;
        let found = ledger.map(|ledger| {
            seen.push((lsn, ledger.disk1));
            format!("entries 1..={} on disk 1, {} on disk 2", ledger.disk1, ledger.disk2)
        });
        stage.check(&format!("test failover to LSN {lsn}, between two markers"), found);
    }
    seen.sort_unstable();
    let all = u64::try_from(seen.len())? == stage.scale.random_points;
    let found = match all && seen.is_sorted_by_key(|(_, entries)| *entries) {
        true => Ok(format!("{seen:?}")),
        false => Err(anyhow::anyhow!("{seen:?}")),
    };
    stage.check("a later LSN never has fewer entries", found);
    let branches = client.machine(MACHINE).await.map_err(told)?.branches;
    let found = if branches.is_empty() {
        Ok("none".to_owned())
    } else {
        Err(anyhow::anyhow!("{branches:?}"))
    };
    stage.check("no test branch is left", found);
    Ok(point)
}

/// One test failover from the order to the clean-up; the ledger at that point.
pub(super) async fn test_at(
    stage: &mut Stage<'_>,
    client: &Client,
    point: PointChoice,
) -> Result<Ledger> {
    let ask = TestFailover { point, name: None };
    let branch = stage.finish_branch(client, client.test_failover(MACHINE, &ask).await).await?;
    let ledger = inspect(stage, &branch).await;
    // Cleaned up whatever was found; and what was found counts first.
    let ask = TestCleanUp { name: branch.name };
    let cleaned = stage.finish(client, client.test_clean_up(MACHINE, &ask).await).await;
    let ledger = ledger?;
    cleaned.context("clean the test up")?;
    Ok(ledger)
}

/// Mounts a branch, checks the ledger, and unmounts it.
pub(super) async fn inspect(stage: &Stage<'_>, branch: &Branch) -> Result<Ledger> {
    let recovered = Recovered::mount(stage, branch)?;
    let ledger = recovered.ledger().await;
    recovered.unmount()?;
    ledger
}

/// A position that no marker stands at: by seed, between two neighboring markers of a stretch
/// without a window.
async fn between_markers(stage: &mut Stage<'_>, client: &Client) -> Result<Lsn> {
    let points = client.points(MACHINE).await.map_err(told)?;
    let pairs = pairs(&points);
    if pairs.is_empty() {
        bail!("no two markers have a position between them: {points:?}");
    }
    let index = stage.dice.between(0, pairs.len() as u64 - 1);
    let (low, high) = pairs[usize::try_from(index)?];
    Ok(Lsn::new(stage.dice.between(low.get() + 1, high.get() - 1)))
}

fn pairs(points: &Points) -> Vec<(Lsn, Lsn)> {
    let within = |low: Lsn, high: Lsn| {
        points.legal.iter().any(|(first, last)| *first <= low && high <= *last)
    };
    let neighbors = points.points.windows(2).map(|pair| (pair[0].lsn, pair[1].lsn));
    neighbors.filter(|(low, high)| high.get() > low.get() + 1 && within(*low, *high)).collect()
}
