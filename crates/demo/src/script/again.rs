//! Step 8: protected again, from what both sites share.

use super::fleet::Fleet;
use super::protect::rpo_is_shown;
use super::stage::{MACHINE, Stage, told};
use super::test_failover::{mark, test_at};
use crate::machine::RunningMachine;
use crate::preflight::mib;
use anyhow::{Result, ensure};
use landfall_api_client::Client;
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::Machine;
use landfall_types::WindowReason;

/// Share of the disks that may be sent before the machine counts as protected again.
const SENT_SHARE_MAX: f64 = 0.02;

/// Step 8.
pub(super) async fn protected_again(
    stage: &mut Stage<'_>,
    client: &Client,
    fleet: &mut Fleet,
    machine: &mut RunningMachine,
) -> Result<()> {
    stage.begin(8, "Protected again, without a first copy");
    rpo_is_shown(stage, client).await?;
    let status = client.machine(MACHINE).await.map_err(told)?;
    let found = no_first_copy(stage, &status);
    stage.check("no first copy was needed", found);
    let point = mark(stage, client, machine, "home-again").await?;
    machine.work(stage.scale.entries / 4)?;
    let ledger = test_at(stage, client, PointChoice::Name(point.name.clone())).await;
    let found = ledger.and_then(|ledger| point.fits(ledger));
    stage.check("test failover of the machine that came home", found);
    let found = fleet.lives();
    stage.check("no role ended by itself", found);
    let status = client.machine(MACHINE).await.map_err(told)?;
    // Positions are dense: the newest durable one counts every record since the beginning, of both
    // sites.
    stage.report.figures.journal_records = Some(status.watermarks.durable.get());
    stage.report.figures.entries = Some(machine.acknowledged()?.disk2);
    Ok(())
}

fn no_first_copy(stage: &mut Stage<'_>, status: &Machine) -> Result<String> {
    // The catch-up that status shows may still be the one of the way home: that one is not of this
    // direction.
    let ours = status.catch_up.as_ref().filter(|one| one.reason != WindowReason::Reprotect);
    let sent = ours.map_or(0, |catch_up| catch_up.progress.sent_bytes);
    stage.report.figures.protect_again_bytes = Some(sent);
    let total = 2 * stage.scale.disk_bytes;
    let reason = ours.map(|catch_up| catch_up.reason);
    ensure!(reason != Some(WindowReason::FirstCopy), "the agent made a first copy");
    ensure!((sent as f64) < SENT_SHARE_MAX * total as f64, "{} were sent ({reason:?})", mib(sent));
    Ok(format!("{} sent for a catch-up", mib(sent)))
}
