//! The executor: one task per job, one step after the other, each end of a step one transaction.

use super::kind::Step;
use super::orders::{Cx, Done, Failure};
use super::{Kind, steps, undo};
use crate::ServerError;
use crate::app::{App, LiveJob, now};
use crate::record::{Direction, JobRecord, MachineRecord, name_of};
use landfall_api_types::resource::{JobState, StepState};
use landfall_api_types::{ApiError, codes};
use landfall_model::authority::Authority;
use landfall_store::EventRow;
use landfall_types::{Class, JobId};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause after the first transient failure.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between attempts.
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// What one round of a job came to.
enum Round {
    /// Go on at once.
    On,
    /// Try the same again, later.
    Later,
    /// It has ended, or waits for an operator.
    Over,
}

/// Goes on with every job that was running when the server ended.
pub(crate) async fn resume_all(app: &Arc<App>) -> Result<(), ServerError> {
    let running = name_of(&JobState::Running);
    for row in app.store.read().await?.jobs_in_state(&running).await? {
        tracing::info!(job = %row.id, kind = row.kind, "a job goes on");
        spawn(app, row.id);
    }
    Ok(())
}

/// Lets a job run, unless it runs already.
pub(crate) fn spawn(app: &Arc<App>, id: JobId) {
    {
        let mut live = app.live();
        if live.contains_key(&id) {
            return;
        }
        live.insert(id, LiveJob::default());
    }
    app.jobs.ring();
    let task = Arc::clone(app);
    app.spawn(async move {
        tokio::select! {
            () = run(&task, id) => {}
            () = task.shutdown.cancelled() => {}
        }
        task.live().remove(&id);
        task.jobs.ring();
    });
}

async fn run(app: &App, id: JobId) {
    let mut pause = PAUSE_FIRST;
    loop {
        match Box::pin(advance(app, id)).await {
            Ok(Round::On) => pause = PAUSE_FIRST,
            Ok(Round::Over) => return,
            Ok(Round::Later) => {
                let give_up = app.live().get(&id).map(|live| live.give_up.clone());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = given_up(give_up.as_ref()) => {}
                }
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
            Err(error) => match error.class() {
                Class::Fenced => {
                    tracing::error!(%error, job = %id, "another server has taken over");
                    app.shutdown.cancel();
                    return;
                }
                Class::Transient => {
                    tracing::warn!(error = %ApiError::from(error), job = %id, "a job is held up");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_LONGEST);
                }
                Class::Permanent | Class::Corrupt | Class::Bug => {
                    let error = ApiError::from(error);
                    tracing::error!(%error, job = %id, "a job can't go on");
                    if let Err(error) = park(app, id, error).await {
                        tracing::error!(%error, job = %id, "and that could not be recorded");
                    }
                    return;
                }
            },
        }
    }
}

async fn given_up(token: Option<&CancellationToken>) {
    match token {
        // Cancelled already: the round before has seen it, waiting is for something else.
        Some(token) if !token.is_cancelled() => token.cancelled().await,
        _ => std::future::pending().await,
    }
}

/// A job that fails by itself waits for an operator.
async fn park(app: &App, id: JobId, error: ApiError) -> Result<(), ServerError> {
    let mut tx = app.store.begin().await?;
    if let Some(mut job) = JobRecord::load_by_id(&mut tx, id).await? {
        job.body.error = Some(error);
        job.row.state = name_of(&JobState::NeedsOperator);
        job.save(&mut tx).await?;
        tx.commit().await?;
        app.jobs.ring();
    }
    Ok(())
}

async fn load(app: &App, id: JobId) -> Result<Option<Cx<'_>>, ServerError> {
    let mut tx = app.store.read().await?;
    let Some(job) = JobRecord::load_by_id(&mut tx, id).await? else { return Ok(None) };
    let machine = MachineRecord::load_by_id(&mut tx, job.row.machine).await?;
    let give_up = app.live().get(&id).map(|live| live.give_up.clone()).unwrap_or_default();
    Ok(Some(Cx { app, job, machine, give_up }))
}

async fn advance(app: &App, id: JobId) -> Result<Round, ServerError> {
    let Some(mut cx) = load(app, id).await? else { return Ok(Round::Over) };
    if cx.job.state()? != JobState::Running {
        return Ok(Round::Over);
    }
    match cx.job.body.direction {
        Direction::Forward => forward(&mut cx).await,
        Direction::Back => {
            // Giving up is not given up.
            cx.give_up = CancellationToken::new();
            back(&mut cx).await
        }
    }
}

async fn forward(cx: &mut Cx<'_>) -> Result<Round, ServerError> {
    if cx.job.body.cancel && may_turn_back(cx) {
        return turn_back(cx).await;
    }
    let position = cx.job.body.position;
    let Some(step) = cx.job.kind.steps().get(position).copied() else {
        return finish(cx, JobState::Succeeded).await;
    };
    match steps::carry_out(cx, step).await {
        Ok(done) => end_step(cx, step, done).await,
        Err(Failure::Wait(error)) => later(cx, error).await,
        Err(Failure::Refused(error)) => refused(cx, step, error).await,
        Err(Failure::GivenUp) => Ok(Round::On),
        Err(Failure::Server(error)) => Err(error),
    }
}

/// Until an epoch is reserved; from then on the job only goes forward.
fn may_turn_back(cx: &Cx<'_>) -> bool {
    let reserved = cx.job.kind.steps().iter().position(|step| *step == Step::ReserveEpoch);
    let promoting = matches!(cx.machine.authority.authority, Authority::Promoting { .. });
    let before = reserved.is_none_or(|reserved| cx.job.body.position <= reserved);
    cx.job.kind.may_be_given_up() && before && !promoting
}

async fn turn_back(cx: &mut Cx<'_>) -> Result<Round, ServerError> {
    cx.job.body.direction = Direction::Back;
    cx.job.body.attempt += 1;
    let last = cx.job.kind.steps().len().saturating_sub(1);
    cx.job.body.position = cx.job.body.position.min(last);
    let mut tx = cx.app.store.begin().await?;
    cx.job.save(&mut tx).await?;
    tx.commit().await?;
    cx.app.waiting(cx.job.row.id, None);
    cx.app.jobs.ring();
    Ok(Round::On)
}

/// The end of a step, what it changed, and the begin of the next one, in one transaction.
async fn end_step(cx: &mut Cx<'_>, step: Step, done: Done) -> Result<Round, ServerError> {
    let position = cx.job.body.position;
    let state = if done.skipped { StepState::Skipped } else { StepState::Succeeded };
    if let Some(row) = cx.job.steps.get_mut(position) {
        row.state = name_of(&state);
        row.detail = done.detail;
    }
    if let Some(row) = cx.job.steps.get_mut(position + 1) {
        row.state = name_of(&StepState::Started);
    }
    cx.job.body.position += 1;
    cx.job.body.error = None;
    let mut tx = cx.app.store.begin().await?;
    cx.job.save(&mut tx).await?;
    if cx.job.body.cancel && step == Step::ReserveEpoch {
        // Given up while this step ran: nothing of the reservation is written, and the job turns
        // back.
        return Ok(Round::On);
    }
    for row in cx.job.steps.iter().skip(position).take(2) {
        tx.update_step(row).await?;
    }
    cx.machine.save(&mut tx).await?;
    tx.commit().await?;
    cx.app.waiting(cx.job.row.id, None);
    cx.app.jobs.ring();
    Ok(Round::On)
}

/// A transient failure: the same step again, with new orders because the old ones are answered.
async fn later(cx: &mut Cx<'_>, error: ApiError) -> Result<Round, ServerError> {
    cx.job.body.attempt += 1;
    let mut tx = cx.app.store.begin().await?;
    cx.job.save(&mut tx).await?;
    tx.commit().await?;
    cx.app.waiting(cx.job.row.id, Some(error));
    Ok(Round::Later)
}

/// A failure for good: undone by itself, or left to an operator.
async fn refused(cx: &mut Cx<'_>, step: Step, error: ApiError) -> Result<Round, ServerError> {
    tracing::warn!(job = %cx.job.row.id, ?step, %error, "a step of a job has failed");
    let position = cx.job.body.position;
    if let Some(row) = cx.job.steps.get_mut(position) {
        row.state = name_of(&StepState::Failed);
        row.detail.clone_from(&error.cause);
    }
    cx.job.body.error = Some(error);
    let backs_out = cx.job.body.direction == Direction::Forward && cx.job.kind.backs_out(step);
    if backs_out {
        cx.job.body.direction = Direction::Back;
        cx.job.body.attempt += 1;
    } else {
        cx.job.row.state = name_of(&JobState::NeedsOperator);
    }
    let mut tx = cx.app.store.begin().await?;
    cx.job.save(&mut tx).await?;
    if let Some(row) = cx.job.steps.get(position) {
        tx.update_step(row).await?;
    }
    tx.commit().await?;
    cx.app.waiting(cx.job.row.id, None);
    cx.app.jobs.ring();
    Ok(if backs_out { Round::On } else { Round::Over })
}

/// Undoes one step.
async fn back(cx: &mut Cx<'_>) -> Result<Round, ServerError> {
    let position = cx.job.body.position;
    let Some(step) = cx.job.kind.steps().get(position).copied() else {
        return finish(cx, JobState::RolledBack).await;
    };
    let pending = name_of(&StepState::Pending);
    let begun = cx.job.steps.get(position).is_some_and(|row| row.state != pending);
    if begun {
        // An order that is still open could be carried out behind its undoing.
        let undone = match cx.settle().await {
            Ok(()) => undo::undo(cx, step).await,
            Err(failure) => Err(failure),
        };
        match undone {
            Ok(done) => mark_undone(cx, done),
            Err(Failure::Wait(error)) => return later(cx, error).await,
            Err(Failure::Refused(error)) => return refused(cx, step, error).await,
            Err(Failure::GivenUp) => return Ok(Round::Later),
            Err(Failure::Server(error)) => return Err(error),
        }
    }
    if position == 0 {
        return finish(cx, JobState::RolledBack).await;
    }
    cx.job.body.position -= 1;
    let mut tx = cx.app.store.begin().await?;
    cx.job.save(&mut tx).await?;
    if let Some(row) = cx.job.steps.get(position) {
        tx.update_step(row).await?;
    }
    cx.machine.save(&mut tx).await?;
    tx.commit().await?;
    cx.app.jobs.ring();
    Ok(Round::On)
}

fn mark_undone(cx: &mut Cx<'_>, done: Done) {
    let failed = name_of(&StepState::Failed);
    let position = cx.job.body.position;
    if let Some(row) = cx.job.steps.get_mut(position)
        && row.state != failed
    {
        row.state = name_of(&StepState::Skipped);
        row.detail = if done.detail.is_empty() { "undone".to_owned() } else { done.detail };
    }
}

/// The end of a job: state of the machine, history and job in one transaction.
async fn finish(cx: &mut Cx<'_>, state: JobState) -> Result<Round, ServerError> {
    let succeeded = state == JobState::Succeeded;
    let event = match succeeded {
        true => cx.job.kind.success(),
        false => cx.job.kind.rolled_back(),
    };
    if let Some(event) = event {
        cx.machine.happen(event)?;
    }
    let ends_reverse = match cx.job.kind {
        Kind::Disable | Kind::CancelReprotect | Kind::CommitHome => succeeded,
        Kind::Reprotect => !succeeded,
        _ => false,
    };
    if ends_reverse {
        cx.machine.body.reverse = None;
    }
    if !succeeded && cx.job.body.error.is_none() {
        let cause = "it was given up, and what was done was undone";
        cx.job.body.error = Some(ApiError::new(&codes::GIVEN_UP, cause));
    }
    cx.machine.row.active_job = None;
    cx.job.end(state, now());
    let event = EventRow { time: now(), by: cx.job.body.by.clone(), event: told(cx, succeeded) };
    let mut tx = cx.app.store.begin().await?;
    cx.job.save(&mut tx).await?;
    for row in &cx.job.steps {
        tx.update_step(row).await?;
    }
    cx.machine.save(&mut tx).await?;
    tx.append_event(cx.machine.row.id, &event).await?;
    tx.commit().await?;
    let (kind, told) = (&cx.job.row.kind, event.event);
    tracing::info!(job = %cx.job.row.id, kind, told, "a job has ended");
    cx.app.waiting(cx.job.row.id, None);
    cx.app.jobs.ring();
    Ok(Round::Over)
}

/// The line of the machine's history (RQ-FO-10).
fn told(cx: &Cx<'_>, succeeded: bool) -> String {
    let epoch = cx.machine.authority.lineage.epoch();
    let lsn = cx.machine.fork();
    let notes = cx.job.body.vars.notes.join("; ");
    let what = match (cx.job.kind, succeeded) {
        (kind, false) => {
            let cause = cx.job.body.error.as_ref().map_or("", |error| error.cause.as_str());
            format!("{} was rolled back: {cause}", name_of(&kind))
        }
        (Kind::Protect, true) => "protected: the first copy has begun".to_owned(),
        (Kind::TestFailover, true) => "a test branch is served".to_owned(),
        (Kind::TestCleanUp, true) => "a test branch was removed".to_owned(),
        (Kind::Failover, true) => format!("failed over at LSN {lsn} in epoch {epoch}"),
        (Kind::ChangePoint, true) => format!("changed to LSN {lsn} in epoch {epoch}"),
        (Kind::Commit, true) => format!("committed in epoch {epoch}"),
        (Kind::CommitHome, true) => format!("home committed in epoch {epoch}"),
        (Kind::Reprotect, true) => "the window towards home is open".to_owned(),
        (Kind::CloseReprotect, true) => "reprotected: home has a recovery point".to_owned(),
        (Kind::CancelReprotect, true) => "the way home was given up".to_owned(),
        (Kind::Failback, true) => format!("failed back at LSN {lsn} in epoch {epoch}"),
        (Kind::Disable, true) => "protection has ended".to_owned(),
        (Kind::Mark, true) => "a named point was put".to_owned(),
        (Kind::DiscardDivergence, true) => "divergence was discarded".to_owned(),
    };
    if notes.is_empty() { what } else { format!("{what}; {notes}") }
}
