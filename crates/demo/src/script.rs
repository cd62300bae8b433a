//! The eight steps, in order: each takes what the one before left, so none can be left out by
//! mistake.
//!
//! A check that fails is recorded and the script goes on where it can; an order that fails ends it.

mod again;
mod disaster;
mod failback;
mod fleet;
mod protect;
mod recovered;
mod reprotect;
mod stage;
mod test_failover;

pub(crate) use stage::Stage;

use anyhow::Result;
use stage::MACHINE;

/// What a run is to leave behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtEnd {
    /// Nothing.
    StopAll,
    /// Roles and machine, running.
    KeepRunning,
}

/// Plays the whole cycle.
///
/// # Errors
/// The first order that failed; checks that failed are in the report.
pub(crate) async fn play(stage: &mut Stage<'_>, at_end: AtEnd) -> Result<()> {
    let (mut disks, mut machine) = protect::make_machine(stage)?;
    let (mut fleet, client) = protect::start_roles(stage).await?;
    protect::protect(stage, &client, &disks, &mut machine).await?;
    let older = test_failover::test(stage, &client, &mut machine).await?;
    let mut elsewhere =
        disaster::disaster(stage, &client, &mut fleet, &mut disks, machine, &older).await?;
    reprotect::reprotect(stage, &client, &mut fleet, &mut disks, &mut elsewhere).await?;
    let mut machine = failback::failback(stage, &client, &fleet, &disks, elsewhere).await?;
    again::protected_again(stage, &client, &mut fleet, &mut machine).await?;
    match at_end {
        AtEnd::KeepRunning => by_hand(stage, &fleet),
        AtEnd::StopAll => {
            machine.shut_down()?;
            let found = fleet.stop();
            stage.check("the roles end when they are asked to", found);
        }
    }
    Ok(())
}

/// The commands with which a person goes on.
fn by_hand(stage: &mut Stage<'_>, fleet: &fleet::Fleet) {
    let program = stage.program.display().to_string();
    let credentials = fleet.operator_credentials().display().to_string();
    let dir = stage.record.dir.display().to_string();
    stage.say("Everything is left running. To look around:");
    let commands = [
        format!("export LANDFALL_CREDENTIALS={credentials}"),
        format!("{program} status {MACHINE} --watch"),
        format!("{program} servers"),
        format!("{program} points {MACHINE}"),
        format!("{program} test-failover {MACHINE} --point latest"),
        format!("{program} test-failover {MACHINE} --clean-up test-1"),
        format!("{program} jobs"),
        format!("less {dir}/logs/*.log"),
    ];
    for command in commands {
        stage.say(format!("  {command}"));
    }
    stage.say("To remove everything:");
    stage.say(format!("  {program} demo --clean-up"));
}
