//! What operators ask.

use super::Caller;
use super::enroll::refused_request;
use super::reply::{Answer, Ask, Refusal, Reply, bad};
use crate::app::App;
use crate::groups;
use crate::jobs::{self, Params};
use crate::record::{JobRecord, MachineRecord};
use crate::view;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use landfall_api_types::request::{
    ChangePoint, Commit, DiscardDivergence, Failback, Failover, Mark, MarkGroup, NewDiskClient,
    Protect, Reprotect, TestCleanUp, TestFailover,
};
use landfall_api_types::resource::{
    DiskClient, Divergence, GroupPoint, Job, JobState, Machine, Server,
};
use landfall_api_types::{ApiError, codes};
use landfall_model::Command;
use landfall_pki::{PeerIdentity, Role};
use landfall_types::{JobId, NodeId};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longest wait for a job's change.
const JOB_WAIT_MAX: Duration = Duration::from_secs(60);
/// How many jobs are listed when nothing is said, and at most.
const JOBS_LISTED: u32 = 200;
const JOBS_LISTED_MAX: u32 = 1_000;

/// Nothing, but an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) fn who(caller: Caller) -> String {
    caller.0.map_or_else(|| "unknown".to_owned(), |identity| identity.to_string())
}

/// `GET /v1/health`.
pub(super) async fn health(State(app): State<Arc<App>>) -> Answer<()> {
    app.store.read().await?.machines().await?;
    Ok(Reply(()))
}

/// `GET /v1/servers`.
pub(super) async fn servers(State(app): State<Arc<App>>) -> Answer<Vec<Server>> {
    Ok(Reply(app.fleet.servers()))
}

/// `POST /v1/disk-clients`.
pub(super) async fn disk_client(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Ask(ask): Ask<NewDiskClient>,
) -> Answer<DiskClient> {
    let identity = PeerIdentity { role: Role::DiskClient, node: NodeId::generate() };
    let signed =
        app.authority.sign(&ask.csr_pem, identity, SystemTime::now()).map_err(refused_request)?;
    tracing::info!(id = %identity.node, by = who(by), "a disk client's certificate was made");
    let id = identity.node;
    Ok(Reply(DiskClient { id, certificate_pem: signed.pem, ca_pem: signed.authority_pem }))
}

/// `GET /v1/machines`.
pub(super) async fn machines(State(app): State<Arc<App>>) -> Answer<Vec<Machine>> {
    let mut tx = app.store.read().await?;
    let mut all = Vec::new();
    for row in tx.machines().await? {
        let record = MachineRecord::load(&mut tx, row).await?;
        all.push(view::machine(&app, &mut tx, &record).await?);
    }
    Ok(Reply(all))
}

/// `GET /v1/machines/{name}`.
pub(super) async fn machine(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<Machine> {
    let mut tx = app.store.read().await?;
    let record = jobs::find_machine(&mut tx, &name).await?;
    Ok(Reply(view::machine(&app, &mut tx, &record).await?))
}

/// `GET /v1/machines/{name}/divergence`.
pub(super) async fn divergence(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<Vec<Divergence>> {
    let record = jobs::find_machine(&mut app.store.read().await?, &name).await?;
    Ok(Reply(view::divergence(&app, &record)))
}

/// `POST /v1/machines`.
pub(super) async fn protect(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Ask(ask): Ask<Protect>,
) -> Answer<Job> {
    Ok(Reply(jobs::start_protect(&app, ask, who(by)).await?))
}

async fn start(
    app: &Arc<App>,
    name: &str,
    command: Command,
    by: Caller,
    params: Params,
) -> Answer<Job> {
    Ok(Reply(jobs::start(app, name, command, params, who(by)).await?))
}

/// `POST …/test-failover`.
pub(super) async fn test_failover(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<TestFailover>,
) -> Answer<Job> {
    start(&app, &name, Command::TestFailover, by, Params::TestFailover(ask)).await
}

/// `POST …/test-failover/clean-up`.
pub(super) async fn test_clean_up(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<TestCleanUp>,
) -> Answer<Job> {
    start(&app, &name, Command::TestCleanUp, by, Params::TestCleanUp(ask)).await
}

/// `POST …/failover`.
pub(super) async fn failover(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<Failover>,
) -> Answer<Job> {
    start(&app, &name, Command::Failover, by, Params::Failover(ask)).await
}

/// `POST …/change-point`.
pub(super) async fn change_point(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<ChangePoint>,
) -> Answer<Job> {
    start(&app, &name, Command::ChangePoint, by, Params::ChangePoint(ask)).await
}

/// `POST …/commit`.
pub(super) async fn commit(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(Commit {}): Ask<Commit>,
) -> Answer<Job> {
    start(&app, &name, Command::Commit, by, Params::Nothing).await
}

/// `POST …/reprotect`: with `dry_run` the answer is an estimate.
pub(super) async fn reprotect(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<Reprotect>,
) -> Result<Response, Refusal> {
    let estimate = jobs::reprotect_estimate(&app, &name, &ask).await?;
    if ask.dry_run {
        return Ok(Reply(estimate).into_response());
    }
    jobs::check_divergence(&estimate, &ask.discard_divergence)?;
    let job = start(&app, &name, Command::Reprotect, by, Params::Reprotect(ask)).await?;
    Ok(job.into_response())
}

/// `POST …/failback`.
pub(super) async fn failback(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(Failback {}): Ask<Failback>,
) -> Answer<Job> {
    start(&app, &name, Command::Failback, by, Params::Nothing).await
}

/// `POST …/disable`.
pub(super) async fn disable(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Answer<Job> {
    start(&app, &name, Command::Disable, by, Params::Nothing).await
}

/// `POST …/cancel`: gives up what is under way.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Answer<Job> {
    let record = jobs::find_machine(&mut app.store.read().await?, &name).await?;
    jobs::check_accepts(record.row.state, Command::Cancel)?;
    match record.row.active_job {
        Some(job) => Ok(Reply(jobs::cancel(&app, job).await?)),
        None => start(&app, &name, Command::Cancel, by, Params::Nothing).await,
    }
}

/// `POST …/pause`.
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Answer<Job> {
    unsupported(&app, &name, Command::Pause).await
}

/// `POST …/resume`.
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Answer<Job> {
    unsupported(&app, &name, Command::Resume).await
}

async fn unsupported(app: &App, name: &str, command: Command) -> Answer<Job> {
    let record = jobs::find_machine(&mut app.store.read().await?, name).await?;
    jobs::check_accepts(record.row.state, command)?;
    let cause = format!("`{command}` is not part of this version");
    Err(ApiError::new(&codes::NOT_SUPPORTED, cause).into())
}

/// `POST …/mark`.
pub(super) async fn mark(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<Mark>,
) -> Answer<Job> {
    start(&app, &name, Command::Mark, by, Params::Mark(ask)).await
}

/// `POST /v1/group-points`.
pub(super) async fn mark_group(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Ask(ask): Ask<MarkGroup>,
) -> Answer<GroupPoint> {
    Ok(Reply(groups::mark(&app, ask, who(by)).await?))
}

/// `POST …/divergence/discard`.
pub(super) async fn discard_divergence(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<DiscardDivergence>,
) -> Answer<Job> {
    start(&app, &name, Command::DiscardDivergence, by, Params::DiscardDivergence(ask)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    /// Older than this job: the next page begins behind the last job of the one before.
    before: Option<String>,
    limit: Option<u32>,
}

/// `GET /v1/jobs?before=ID&limit=N`, newest first.
pub(super) async fn jobs(
    State(app): State<Arc<App>>,
    Query(query): Query<JobsQuery>,
) -> Answer<Vec<Job>> {
    let limit = query.limit.unwrap_or(JOBS_LISTED);
    if !(1..=JOBS_LISTED_MAX).contains(&limit) {
        return Err(bad("number of jobs from 1 to 1000", &limit.to_string()));
    }
    let mut tx = app.store.read().await?;
    let before = match query.before {
        Some(text) => {
            let id: JobId = text.parse().map_err(|_| bad("job", &text))?;
            let found = tx.job(id).await?;
            let unknown =
                || ApiError::new(&codes::UNKNOWN_JOB, format!("before: there is no job {id}"));
            Some(found.ok_or_else(unknown)?)
        }
        None => None,
    };
    let mut all = Vec::new();
    for row in tx.jobs(before.as_ref(), limit).await? {
        let record = JobRecord::load(&mut tx, row).await?;
        all.push(view::job(&app, &mut tx, &record).await?);
    }
    Ok(Reply(all))
}

#[derive(Deserialize)]
pub(super) struct JobQuery {
    #[serde(default)]
    wait_ms: u64,
}

/// `GET /v1/jobs/{id}`: with `wait_ms` it answers at the job's next change, at once when it has
/// ended.
pub(super) async fn job(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<JobQuery>,
) -> Answer<Job> {
    let id: JobId = id.parse().map_err(|_| bad("job", &id))?;
    let mut bell = app.jobs.listen();
    let until =
        tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(JOB_WAIT_MAX);
    let mut first: Option<Job> = None;
    loop {
        bell.mark_unchanged();
        let job = view::job_by_id(&app, id).await?;
        let changed = first.as_ref().is_some_and(|first| *first != job);
        let over = tokio::time::Instant::now() >= until || app.shutdown.is_cancelled();
        if changed || over || job.state != JobState::Running {
            return Ok(Reply(job));
        }
        first.get_or_insert(job);
        // Progress comes with reports, which do not ring: look again once a second.
        let soon = tokio::time::Instant::now() + Duration::from_secs(1);
        tokio::select! {
            _ = bell.changed() => {}
            () = tokio::time::sleep_until(until.min(soon)) => {}
            () = app.shutdown.cancelled() => {}
        }
    }
}

/// `POST /v1/jobs/{id}/retry`.
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Answer<Job> {
    let id: JobId = id.parse().map_err(|_| bad("job", &id))?;
    Ok(Reply(jobs::retry(&app, id).await?))
}

/// `POST /v1/jobs/{id}/cancel`.
pub(super) async fn cancel_job(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Ask(Nothing {}): Ask<Nothing>,
) -> Answer<Job> {
    let id: JobId = id.parse().map_err(|_| bad("job", &id))?;
    Ok(Reply(jobs::cancel(&app, id).await?))
}
