//! Records and reports as people see them.

use crate::ServerError;
use crate::app::{App, now};
use crate::jobs::Kind;
use crate::record::{JobRecord, MachineRecord, state_of};
use crate::stages;
use landfall_api_types::node::{AgentReport, ReplicaReport};
use landfall_api_types::resource::{
    Branch, CaptureMode, CatchUp, Divergence, Health, HistoryEntry, Job, JobState, Machine,
    Progress, Step, Watermarks,
};
use landfall_api_types::{ApiError, codes};
use landfall_model::{Command, MachineState, accepts, rpo};
use landfall_store::Tx;
use landfall_types::{JobId, MachineId, NodeId};

/// How many lines of history are shown.
const HISTORY_SHOWN: u32 = 100;

/// What nodes say of the present direction.
struct Direction {
    /// Source, relay, target.
    path: [NodeId; 3],
    agent: Option<AgentReport>,
    /// The replica at the recovery site.
    recovery: Option<ReplicaReport>,
    /// The replica that receives.
    target: Option<ReplicaReport>,
}

fn direction(app: &App, machine: &MachineRecord) -> Direction {
    let body = &machine.body;
    let recovery = app.fleet.replica(body.master_target, body.replica);
    match &body.reverse {
        Some(reverse) if machine.homeward() => Direction {
            path: [body.master_target, reverse.process_server, reverse.master_target],
            agent: None,
            target: app.fleet.replica(reverse.master_target, reverse.replica),
            recovery,
        },
        _ => Direction {
            path: [body.agent, body.process_server, body.master_target],
            agent: app.fleet.agent(body.agent),
            target: recovery.clone(),
            recovery,
        },
    }
}

/// A machine with everything that is known of it.
pub(crate) async fn machine(
    app: &App,
    tx: &mut Tx,
    machine: &MachineRecord,
) -> Result<Machine, ServerError> {
    let direction = direction(app, machine);
    let target = direction.target.as_ref();
    let newest_point = target.and_then(|report| report.newest_point.clone());
    let replicates = !idle(machine.state());
    let events = tx.events(machine.row.id, HISTORY_SHOWN).await?;
    let point_time = newest_point.as_ref().filter(|_| replicates).map(|point| point.time);
    let unsupported = [Command::Pause, Command::Resume];
    let accepted = accepts(machine.state()).into_iter().filter(|one| !unsupported.contains(one));
    Ok(Machine {
        id: machine.row.id,
        name: machine.row.name.clone(),
        state: machine.state(),
        generation: machine.row.generation,
        accepts: accepted.map(|command| command.name().to_owned()).collect(),
        health: health(app, machine, &direction),
        epoch: machine.authority.authority.epoch(),
        lineage: machine.authority.lineage.clone(),
        instance: machine.body.instance,
        disks: machine.body.disks.clone(),
        replica: machine.target().1,
        path: direction.path.iter().map(|node| app.fleet.name(*node)).collect(),
        capture: capture(machine, &direction),
        disk_capture: direction.agent.as_ref().map_or_else(Vec::new, |agent| agent.disks.clone()),
        capture_losses: direction.agent.as_ref().map_or_else(Vec::new, |one| one.losses.clone()),
        capture_returns: direction.agent.as_ref().map_or(0, |agent| agent.returns),
        watermarks: watermarks(machine, &direction),
        rpo_s: rpo(now(), point_time).map(|rpo| rpo.as_secs_f64()),
        rpo_stages: if replicates { stages::of(app, machine) } else { Vec::new() },
        rtt_ms: stages::round_trips(app, machine),
        newest_point,
        catch_up: catch_up(machine, &direction),
        branches: branches(app, machine),
        journal_records: target.map_or(0, |report| report.journal_records),
        journal_bytes: target.map_or(0, |report| report.journal_bytes),
        encryption: target.and_then(|report| report.key.clone()),
        policy: machine.body.policy.clone(),
        retention: target.and_then(|report| report.retention.clone()),
        history: events
            .into_iter()
            .map(|event| HistoryEntry { time: event.time, by: event.by, event: event.event })
            .collect(),
        problems: problems(app, tx, machine, &direction).await?,
    })
}

impl MachineRecord {
    pub(crate) const fn state(&self) -> MachineState {
        self.row.state
    }
}

/// States in which nothing replicates.
const fn idle(state: MachineState) -> bool {
    matches!(state, MachineState::Unprotected | MachineState::FailedOver | MachineState::Committed)
}

fn health(app: &App, machine: &MachineRecord, direction: &Direction) -> Health {
    if idle(machine.state()) {
        return Health::Idle;
    }
    if direction.path.iter().any(|node| !app.fleet.in_contact(*node)) {
        return Health::NoContact;
    }
    let legal = direction
        .target
        .as_ref()
        .is_some_and(|report| report.open_windows.is_empty() && report.newest_legal.is_some());
    if legal { Health::Healthy } else { Health::CatchingUp }
}

fn capture(machine: &MachineRecord, direction: &Direction) -> Option<(CaptureMode, String)> {
    if machine.homeward() {
        let reason = "the machine runs from a branch that Landfall serves".to_owned();
        return Some((CaptureMode::Served, reason));
    }
    direction.agent.as_ref().and_then(|agent| agent.capture.clone())
}

fn watermarks(machine: &MachineRecord, direction: &Direction) -> Watermarks {
    let mut marks = direction.target.as_ref().map_or_else(Watermarks::default, |r| r.watermarks);
    if machine.homeward() {
        let recovery = direction.recovery.as_ref();
        marks.captured = recovery.map_or(marks.captured, |report| report.watermarks.durable);
        let sent = recovery.and_then(|report| report.reverse.as_ref()).map(|one| one.sent);
        marks.sent = sent.unwrap_or(marks.sent);
    } else if let Some(agent) = &direction.agent {
        (marks.captured, marks.sent) = (agent.captured, agent.sent);
    }
    marks
}

fn catch_up(machine: &MachineRecord, direction: &Direction) -> Option<CatchUp> {
    match machine.homeward() {
        true => direction.recovery.as_ref()?.reverse.as_ref()?.catch_up.clone(),
        false => direction.agent.as_ref()?.catch_up.clone(),
    }
}

/// Branches of both replicas, the recovery site's first.
pub(crate) fn branches(app: &App, machine: &MachineRecord) -> Vec<Branch> {
    replicas(app, machine).into_iter().flat_map(|report| report.branches).collect()
}

/// Divergence that is kept at either side.
pub(crate) fn divergence(app: &App, machine: &MachineRecord) -> Vec<Divergence> {
    let all = replicas(app, machine).into_iter().flat_map(|report| report.divergence);
    all.filter(|one| !one.discarded).collect()
}

fn replicas(app: &App, machine: &MachineRecord) -> Vec<ReplicaReport> {
    let body = &machine.body;
    let reverse = body.reverse.as_ref();
    let reverse = reverse.and_then(|one| app.fleet.replica(one.master_target, one.replica));
    app.fleet.replica(body.master_target, body.replica).into_iter().chain(reverse).collect()
}

async fn problems(
    app: &App,
    tx: &mut Tx,
    machine: &MachineRecord,
    direction: &Direction,
) -> Result<Vec<ApiError>, ServerError> {
    let mut problems = Vec::new();
    if let Some(id) = machine.row.active_job
        && let Some(job) = JobRecord::load_by_id(tx, id).await?
        && job.state()? == JobState::NeedsOperator
    {
        problems.extend(job.body.error.map(|error| error.detail("job", id)));
    }
    if machine.state() == MachineState::Unprotected {
        return Ok(problems);
    }
    let silent = |node: &&NodeId| !app.fleet.in_contact(**node);
    if !idle(machine.state()) {
        for node in direction.path.iter().filter(silent) {
            let name = app.fleet.name(*node);
            let cause = format!("{name} is out of contact");
            problems.push(ApiError::new(&codes::NODE_SILENT, cause).detail("server", name));
        }
    }
    let expected = (machine.body.agent, machine.body.instance);
    for node in app.fleet.all() {
        if let Some(agent) = &node.report.agent
            && agent.machine == Some(machine.row.id)
            && (node.id, agent.instance) != expected
        {
            let cause =
                format!("{} says that it is this machine, and is another instance", node.name);
            problems.push(ApiError::new(&codes::OTHER_INSTANCE, cause).detail("server", node.name));
        }
    }
    for node in direction.path {
        problems.extend(app.fleet.get(node).into_iter().flat_map(|node| node.report.problems));
    }
    Ok(problems)
}

/// A machine's name, also of one that is not protected any more.
pub(crate) async fn machine_name(tx: &mut Tx, id: MachineId) -> Result<String, ServerError> {
    Ok(tx.machine(id).await?.name)
}

/// A job by its ID.
pub(crate) async fn job_by_id(app: &App, id: JobId) -> Result<Job, ApiError> {
    let mut tx = app.store.read().await.map_err(ServerError::Store)?;
    let record = JobRecord::load_by_id(&mut tx, id).await?;
    let record = record
        .ok_or_else(|| ApiError::new(&codes::UNKNOWN_JOB, format!("there is no job {id}")))?;
    Ok(job(app, &mut tx, &record).await?)
}

/// A job as people see it.
pub(crate) async fn job(app: &App, tx: &mut Tx, job: &JobRecord) -> Result<Job, ServerError> {
    let machine = MachineRecord::load_by_id(tx, job.row.machine).await?;
    let mut steps = Vec::new();
    for row in &job.steps {
        let state = state_of("state of a step", &row.state)?;
        steps.push(Step { name: row.name.clone(), state, detail: row.detail.clone() });
    }
    let state = job.state()?;
    let waiting = app.live().get(&job.row.id).and_then(|live| live.waiting.clone());
    Ok(Job {
        id: job.row.id,
        kind: job.row.kind.clone(),
        machine: job.row.machine,
        machine_name: machine.row.name.clone(),
        state,
        steps,
        progress: (state == JobState::Running).then(|| progress(app, job, &machine)).flatten(),
        error: waiting.or_else(|| job.body.error.clone()),
        outcome: job.body.outcome.clone(),
        created: job.row.created,
        finished: job.row.finished,
    })
}

/// Steps that take long are followed by what the node reports.
fn progress(app: &App, job: &JobRecord, machine: &MachineRecord) -> Option<Progress> {
    if job.kind != Kind::Failback {
        return None;
    }
    let reverse = machine.body.reverse.as_ref()?;
    app.fleet.replica(reverse.master_target, reverse.replica)?.fold
}
