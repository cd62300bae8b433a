//! Retrying jobs and giving them up.

use super::engine;
use crate::ServerError;
use crate::app::{App, LiveJob};
use crate::record::{Direction, JobRecord, MachineRecord, name_of};
use crate::view;
use landfall_api_types::resource::{Job, JobState};
use landfall_api_types::{ApiError, codes};
use landfall_model::MachineState;
use landfall_model::authority::{Authority, Side};
use landfall_store::Tx;
use landfall_types::JobId;
use std::sync::Arc;

async fn existing(tx: &mut Tx, id: JobId) -> Result<JobRecord, ApiError> {
    JobRecord::load_by_id(tx, id)
        .await?
        .ok_or_else(|| ApiError::new(&codes::UNKNOWN_JOB, format!("there is no job {id}")))
}

/// `POST /v1/jobs/{id}/retry`.
pub(crate) async fn retry(app: &Arc<App>, id: JobId) -> Result<Job, ApiError> {
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    let mut job = existing(&mut tx, id).await?;
    let state = job.state()?;
    if state != JobState::NeedsOperator {
        let cause = format!("job {id} is {}: it does not wait for an operator", name_of(&state));
        return Err(ApiError::new(&codes::WRONG_STATE, cause)
            .cure("only a job that needs an operator is retried"));
    }
    go_on(&mut job);
    job.save(&mut tx).await?;
    tx.commit().await.map_err(ServerError::Store)?;
    engine::spawn(app, id);
    view::job_by_id(app, id).await
}

/// New orders from here on: the failed ones are answered for good.
fn go_on(job: &mut JobRecord) {
    job.row.state = name_of(&JobState::Running);
    job.body.attempt += 1;
    job.body.error = None;
}

/// Gives a job up, as long as nothing is promoted: what was done is undone.
pub(crate) async fn cancel(app: &Arc<App>, id: JobId) -> Result<Job, ApiError> {
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    let mut job = existing(&mut tx, id).await?;
    let machine = MachineRecord::load_by_id(&mut tx, job.row.machine).await?;
    let state = job.state()?;
    let refuse = |cause: String, cure: &str| {
        Err(ApiError::new(&codes::WRONG_STATE, cause).cure(cure).detail("job", id))
    };
    if !matches!(state, JobState::Running | JobState::NeedsOperator) {
        return refuse(format!("job {id} has ended: {}", name_of(&state)), "nothing is to be done");
    }
    if !job.kind.may_be_given_up() {
        let cause = format!("a {} can't be given up", job.row.kind);
        return refuse(cause, "retry it when it needs an operator");
    }
    if past_giving_up(app, &machine, state) {
        let cause = format!("job {id} has a promotion under way, which can't be taken back");
        return refuse(cause, "wait for it, or retry it when it needs an operator");
    }
    job.body.cancel = true;
    let parked = state == JobState::NeedsOperator;
    if parked {
        go_on(&mut job);
        job.body.direction = Direction::Back;
    }
    job.save(&mut tx).await?;
    tx.commit().await.map_err(ServerError::Store)?;
    if parked {
        engine::spawn(app, id);
    } else if let Some(LiveJob { give_up, .. }) = app.live().get(&id) {
        give_up.cancel();
    }
    view::job_by_id(app, id).await
}

/// Once an epoch is reserved, only the target can prove that it was not promoted in: its present
/// report shows another epoch, after it has refused. Silence proves nothing.
fn past_giving_up(app: &App, machine: &MachineRecord, state: JobState) -> bool {
    let holder = match machine.authority.authority {
        Authority::Promoting { holder, .. } => holder,
        Authority::Held { .. } | Authority::Vacant { .. } => {
            // Authority that went over to the new side stays there.
            return authority_moved(machine);
        }
    };
    let place = match (&machine.body.reverse, holder.side) {
        (Some(reverse), Side::Home) => (reverse.master_target, reverse.replica),
        _ => (machine.body.master_target, machine.body.replica),
    };
    let report = app.fleet.replica(place.0, place.1);
    let elsewhere = report.is_some_and(|report| !report.lineage.epoch().is(&holder.epoch));
    !(state == JobState::NeedsOperator && app.fleet.in_contact(place.0) && elsewhere)
}

fn authority_moved(machine: &MachineRecord) -> bool {
    let Some(holder) = machine.authority.authority.holder() else { return false };
    match machine.row.state {
        MachineState::FailingOver => holder.side == Side::Recovery,
        MachineState::FailingBack => holder.side == Side::Home,
        _ => false,
    }
}
