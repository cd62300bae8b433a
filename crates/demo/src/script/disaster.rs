//! Step 5: home stops dead, the machine goes on at the recovery site.

use super::fleet::Fleet;
use super::recovered::{Recovered, read_first_block};
use super::stage::{MACHINE, Stage, told};
use super::test_failover::{NamedPoint, inspect};
use crate::ledger::Ledger;
use crate::machine::{HomeDisks, RunningMachine};
use crate::wait;
use crate::workload::Acknowledged;
use anyhow::{Result, ensure};
use landfall_api_client::Client;
use landfall_api_types::request::{ChangePoint, Failover, PointChoice};
use landfall_api_types::resource::Branch;
use landfall_model::MachineState;
use std::time::{Duration, Instant};

/// Most seconds of acknowledged work that a disaster may cost here: the link is as fast as memory,
/// the rest is group commit on a busy machine.
const LOST_S_MAX: f64 = 10.0;

/// The machine at the recovery site, and the disks below it.
pub(super) type Elsewhere = (RunningMachine, Recovered);

/// Step 5, up to the commit.
pub(super) async fn disaster(
    stage: &mut Stage<'_>,
    client: &Client,
    fleet: &mut Fleet,
    disks: &mut HomeDisks,
    machine: RunningMachine,
    older: &NamedPoint,
) -> Result<Elsewhere> {
    stage.begin(5, "Disaster: home stops dead in the middle of the work");
    stage.report.figures.rpo_shown_s = Some(super::protect::rpo_is_shown(stage, client).await?);
    let acknowledged = strike(stage, fleet, disks, machine)?;
    let failover =
        |source_is_dead| Failover { point: PointChoice::Latest, source_is_dead, skip_drain: false };
    let without = client.failover(MACHINE, &failover(None)).await;
    stage.refused("failover without a word that the source is dead", without, &["no-fence-proof"]);

    let asked = Instant::now();
    let word = "the demo killed every process of site A and detached its disks";
    let job = client.failover(MACHINE, &failover(Some(word.to_owned()))).await;
    let branch = stage.finish_branch(client, job).await?;
    read_first_block(&branch).await?;
    stage.report.figures.rto_s = Some(asked.elapsed().as_secs_f64());

    let recovered = Recovered::mount(stage, &branch)?;
    let latest = recovered.ledger().await;
    let found = latest.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"));
    let found = found.and_then(|ledger| lost(stage, *ledger, acknowledged));
    stage.check("failover to latest: clean, the ledger is right, little is lost", found);
    let latest = latest?;
    go_on(stage, recovered, latest, asked)?;
    let branch = change_points(stage, client, older, latest).await?;
    settle(stage, client, &branch).await
}

/// Everything at home at once: processes by SIGKILL, file systems without a last write, disks
/// detached.
fn strike(
    stage: &mut Stage<'_>,
    fleet: &mut Fleet,
    disks: &mut HomeDisks,
    mut machine: RunningMachine,
) -> Result<Acknowledged> {
    let entries = stage.dice.between(5, stage.scale.entries);
    machine.work(entries)?;
    machine.kill_workload()?;
    fleet.kill_home()?;
    let acknowledged = machine.stop_dead()?;
    disks.detach()?;
    stage.say(format!("killed at entry {}; nothing of site A is left", acknowledged.disk1));
    Ok(acknowledged)
}

/// What the disaster cost, as figures.
fn lost(stage: &mut Stage<'_>, ledger: Ledger, acknowledged: Acknowledged) -> Result<String> {
    ensure!(
        ledger.disk1 <= acknowledged.disk1 + 1,
        "{} entries recovered, {} were written",
        ledger.disk1,
        acknowledged.disk1
    );
    let entries = acknowledged.disk1.saturating_sub(ledger.disk1);
    let seconds = match entries {
        0 => 0.0,
        _ => acknowledged.time_ns.saturating_sub(ledger.time_ns) as f64 / 1e9,
    };
    stage.report.figures.rpo_entries = Some(entries);
    stage.report.figures.rpo_s = Some(seconds);
    ensure!(seconds <= LOST_S_MAX, "{entries} entries of {seconds:.2} s are lost");
    Ok(format!("entries 1..={}; lost: {entries} entries, {seconds:.2} s", ledger.disk1))
}

/// The ledger goes on, on the branch, through its mounted file systems; then that machine is shut
/// down.
fn go_on(stage: &mut Stage<'_>, recovered: Recovered, from: Ledger, asked: Instant) -> Result<()> {
    let plan = stage.workload("first-branch");
    let mut machine = RunningMachine::start(&plan, recovered.mounts())?;
    stage.report.figures.rto_workload_s = Some(asked.elapsed().as_secs_f64());
    machine.work(stage.scale.entries / 2)?;
    let ended = machine.shut_down()?;
    recovered.detach()?;
    stage.say(format!(
        "the ledger went on from entry {} to {} on the branch",
        from.disk1, ended.disk1
    ));
    Ok(())
}

/// Another point, then latest again: each is a new branch, and the work on an abandoned one is in
/// neither.
async fn change_points(
    stage: &mut Stage<'_>,
    client: &Client,
    older: &NamedPoint,
    latest: Ledger,
) -> Result<Branch> {
    let branch = change(stage, client, PointChoice::Name(older.name.clone())).await?;
    let found = inspect(stage, &branch).await.and_then(|ledger| older.fits(ledger));
    stage.check("another point: clean, and the ledger is that of then", found);
    let branch = change(stage, client, PointChoice::Latest).await?;
    let found = inspect(stage, &branch).await.and_then(|ledger| {
        ensure!(ledger == latest, "{ledger:?} instead of {latest:?}");
        Ok(format!("entries 1..={} as before", ledger.disk1))
    });
    stage.check("latest again: the same as at the failover", found);
    Ok(branch)
}

async fn change(stage: &mut Stage<'_>, client: &Client, point: PointChoice) -> Result<Branch> {
    stage.finish_branch(client, client.change_point(MACHINE, &ChangePoint { point }).await).await
}

/// Status shows one branch with authority: the one that was chosen last (trap T-17).
async fn one_has_authority(stage: &mut Stage<'_>, client: &Client, branch: &Branch) {
    let shown = wait::until("status shows the authority", Duration::from_secs(10), || async {
        let branches = client.machine(MACHINE).await.map_err(told)?.branches;
        let names = branches.into_iter().filter(|one| one.authority).map(|one| one.name);
        let names: Vec<_> = names.collect();
        Ok((names == [branch.name.as_str()]).then_some(()))
    });
    let found = shown.await.map(|()| branch.name.clone());
    stage.check("one branch has authority, the chosen one", found);
}

/// The machine runs on the branch for good.
async fn settle(stage: &mut Stage<'_>, client: &Client, branch: &Branch) -> Result<Elsewhere> {
    one_has_authority(stage, client, branch).await;
    let recovered = Recovered::mount(stage, branch)?;
    let mut machine = RunningMachine::start(&stage.workload("recovery"), recovered.mounts())?;
    machine.work(stage.scale.entries / 2)?;
    stage.finish(client, client.commit(MACHINE).await).await?;
    stage.state(client, MachineState::Committed).await?;
    stage.say("committed, while the workload runs on the branch");
    let point = ChangePoint { point: PointChoice::Latest };
    let answer = client.change_point(MACHINE, &point).await;
    stage.refused("change of point after commit", answer, &["wrong-state", "point-change-refused"]);
    stage.refused("failback without reprotect", client.failback(MACHINE).await, &["wrong-state"]);
    machine.work(10)?;
    Ok((machine, recovered))
}
