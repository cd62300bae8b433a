//! Beginning jobs: what an operator asks, checked by the table before
//! anything is written.

use super::control::cancel;
use super::engine;
use super::kind::{Kind, Params};
use super::orders::silent;
use super::reprotect;
use crate::ServerError;
use crate::app::{App, now, random};
use crate::http::check_name;
use crate::policies;
use crate::record::{
    AuthorityBody, Direction, JobBody, JobRecord, MachineBody, MachineRecord, Vars, encode, name_of,
};
use crate::view;
use landfall_api_types::request::{Protect, TestFailover};
use landfall_api_types::resource::{Job, JobState, NodeRole, StepState};
use landfall_api_types::retention::DEFAULT_POLICY;
use landfall_api_types::{ApiError, codes};
use landfall_model::authority::{Authority, Holder, Side};
use landfall_model::{Command, Illegal, MachineState};
use landfall_store::{AuthorityRow, EventRow, JobRow, MachineRow, StepRow, Tx};
use landfall_types::{
    BranchId, Epoch, EpochId, InstanceId, JobId, Lineage, MachineId, NodeId, ReplicaId,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most disks of a machine: what one NBD server and one ring comfortably serve.
const DISKS_MAX: usize = 64;
/// Most bytes of a marker's name.
const MARK_BYTES_MAX: usize = landfall_types::control::MARKER_NAME_BYTES_MAX;
const MARKER_INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
const MARKER_INTERVAL_MS_DEFAULT: u64 = 5_000;

/// A machine by its name.
pub(crate) async fn find_machine(tx: &mut Tx, name: &str) -> Result<MachineRecord, ApiError> {
    let row = tx.machine_named(name).await.map_err(ServerError::Store)?;
    let row = row.ok_or_else(|| {
        ApiError::new(&codes::UNKNOWN_MACHINE, format!("no machine is named {name:?}"))
    })?;
    Ok(MachineRecord::load(tx, row).await?)
}

/// A registered server of a role, by name or ID.
pub(crate) fn find_server(app: &App, name: &str, role: NodeRole) -> Result<NodeId, ApiError> {
    let wanted = name_of(&role);
    match app.fleet.find(name) {
        Some(node) if node.role == role => Ok(node.id),
        Some(node) => {
            let cause = format!("{name} is a {}, not a {wanted}", name_of(&node.role));
            Err(ApiError::new(&codes::UNKNOWN_SERVER, cause))
        }
        None => {
            let cause = format!("no {wanted} named {name:?} is registered");
            Err(ApiError::new(&codes::UNKNOWN_SERVER, cause))
        }
    }
}

/// The table of design section 14.10, with cause and cure (promise P9).
pub(crate) fn check_accepts(state: MachineState, command: Command) -> Result<(), ApiError> {
    landfall_model::next(state, command.into()).map(|_| ()).map_err(|illegal| refused(&illegal))
}

fn refused(illegal: &Illegal) -> ApiError {
    ApiError::new(&codes::WRONG_STATE, illegal.to_string())
        .cure(illegal.cure())
        .detail("state", illegal.state)
}

fn check_idle(machine: &MachineRecord) -> Result<(), ApiError> {
    match machine.row.active_job {
        None => Ok(()),
        Some(job) => {
            let cause = format!("job {job} of {} has not ended", machine.row.name);
            Err(ApiError::new(&codes::JOB_RUNNING, cause).detail("job", job))
        }
    }
}

/// Begins the job of a command.
pub(crate) async fn start(
    app: &Arc<App>,
    name: &str,
    command: Command,
    params: Params,
    by: String,
) -> Result<Job, ApiError> {
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    let mut machine = find_machine(&mut tx, name).await?;
    check_accepts(machine.row.state, command)?;
    if command == Command::Disable
        && let Some(job) = protecting_job(&mut tx, &machine).await?
    {
        // Its undoing is what disabling would do.
        drop(tx);
        return cancel(app, job).await;
    }
    check_idle(&machine)?;
    let (kind, params) = prepare(app, &mut machine, command, params)?;
    let next = landfall_model::next(machine.row.state, command.into());
    machine.row.state = next.map_err(|illegal| refused(&illegal))?;
    begin(app, tx, machine, kind, params, by).await
}

/// Begins a job that no operator has asked for.
pub(crate) async fn start_internal(
    app: &Arc<App>,
    id: MachineId,
    kind: Kind,
) -> Result<(), ApiError> {
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    let machine = MachineRecord::load_by_id(&mut tx, id).await?;
    check_idle(&machine)?;
    begin(app, tx, machine, kind, Params::Nothing, "reconciler".to_owned()).await?;
    Ok(())
}

/// The job that is protecting the machine, if it runs.
async fn protecting_job(tx: &mut Tx, machine: &MachineRecord) -> Result<Option<JobId>, ApiError> {
    let Some(id) = machine.row.active_job else { return Ok(None) };
    let job = JobRecord::load_by_id(tx, id).await?;
    Ok(job.filter(|job| job.kind == Kind::Protect).map(|_| id))
}

/// What must hold before a job begins, and what it changes at its begin.
fn prepare(
    app: &App,
    machine: &mut MachineRecord,
    command: Command,
    params: Params,
) -> Result<(Kind, Params), ApiError> {
    let at_home = machine.row.state == MachineState::FailedBack;
    let kind = match (command, &params) {
        (Command::Failover, Params::Failover(ask)) => {
            if ask.source_is_dead.as_deref().is_none_or(|words| words.trim().is_empty()) {
                let cause = "nothing proves that the source can't write any more";
                return Err(ApiError::new(&codes::NO_FENCE_PROOF, cause));
            }
            in_contact(app, &[machine.body.master_target])?;
            Kind::Failover
        }
        (Command::ChangePoint, _) if at_home => {
            let cause = "home's disks are attached to the machine, which may have written";
            return Err(ApiError::new(&codes::POINT_CHANGE_REFUSED, cause));
        }
        (Command::ChangePoint, _) => Kind::ChangePoint,
        (Command::Commit, _) if at_home => Kind::CommitHome,
        (Command::Commit, _) => Kind::Commit,
        (Command::Reprotect, Params::Reprotect(ask)) => {
            machine.body.reverse = Some(reprotect::reverse(app, machine, ask)?);
            Kind::Reprotect
        }
        (Command::Failback, _) => {
            in_contact(app, &machine.nodes())?;
            Kind::Failback
        }
        (Command::TestFailover, Params::TestFailover(ask)) => {
            let named = TestFailover { name: Some(test_name(app, machine, ask)?), ..ask.clone() };
            return Ok((Kind::TestFailover, Params::TestFailover(named)));
        }
        (Command::TestCleanUp, Params::TestCleanUp(ask)) => {
            check_test_branch(app, machine, &ask.name)?;
            Kind::TestCleanUp
        }
        (Command::Mark, Params::Mark(ask)) => {
            if !(1..=MARK_BYTES_MAX).contains(&ask.name.len()) {
                let cause = format!("name: {} bytes, not 1 to {MARK_BYTES_MAX}", ask.name.len());
                return Err(ApiError::new(&codes::BAD_REQUEST, cause));
            }
            in_contact(app, &[machine.body.agent])?;
            Kind::Mark
        }
        (Command::DiscardDivergence, Params::DiscardDivergence(ask)) => {
            check_named(app, machine, &ask.names)?;
            Kind::DiscardDivergence
        }
        (Command::Cancel, _) => Kind::CancelReprotect,
        (Command::Disable, _) => Kind::Disable,
        _ => {
            let cause = format!("`{command}` is not begun this way");
            return Err(ApiError::new(&codes::NOT_SUPPORTED, cause));
        }
    };
    Ok((kind, params))
}

fn check_test_branch(app: &App, machine: &MachineRecord, name: &str) -> Result<(), ApiError> {
    let cause = match view::branches(app, machine).iter().find(|branch| branch.name == name) {
        Some(branch) if branch.authority => format!("{name:?} is no test branch: it has authority"),
        Some(_) => return Ok(()),
        None => format!("no test branch is named {name:?}"),
    };
    Err(ApiError::new(&codes::UNKNOWN_BRANCH, cause))
}

fn in_contact(app: &App, nodes: &[NodeId]) -> Result<(), ApiError> {
    match nodes.iter().find(|node| !app.fleet.in_contact(**node)) {
        Some(node) => Err(silent(app, *node)),
        None => Ok(()),
    }
}

fn check_named(app: &App, machine: &MachineRecord, names: &[String]) -> Result<(), ApiError> {
    let known = view::divergence(app, machine);
    let unknown = names.iter().find(|name| !known.iter().any(|one| one.name == **name));
    match (unknown, names.is_empty()) {
        (_, true) => Err(ApiError::new(&codes::BAD_REQUEST, "names: nothing is named")),
        (Some(name), _) => {
            let cause = format!("names: no divergence is named {name:?}");
            Err(ApiError::new(&codes::BAD_REQUEST, cause))
        }
        (None, _) => Ok(()),
    }
}

/// The name that was asked for, or the first `test-N` that is free.
fn test_name(app: &App, machine: &MachineRecord, ask: &TestFailover) -> Result<String, ApiError> {
    let branches = view::branches(app, machine);
    let taken = |name: &str| branches.iter().any(|branch| branch.name == name);
    match &ask.name {
        Some(name) => {
            check_name(name)?;
            if taken(name) {
                let cause = format!("a branch is named {name:?} already");
                return Err(ApiError::new(&codes::NAME_TAKEN, cause));
            }
            Ok(name.clone())
        }
        None => {
            let free = (1_u32..).map(|n| format!("test-{n}")).find(|name| !taken(name));
            Ok(free.unwrap_or_else(|| "test".to_owned()))
        }
    }
}

/// Writes state, job and event in one transaction, then lets the job run.
async fn begin(
    app: &Arc<App>,
    mut tx: Tx,
    mut machine: MachineRecord,
    kind: Kind,
    params: Params,
    by: String,
) -> Result<Job, ApiError> {
    let id = JobId::generate();
    let vars = Vars { branch_id: Some(BranchId::generate()), ..Vars::default() };
    let body = JobBody {
        params,
        by: by.clone(),
        direction: Direction::Forward,
        position: 0,
        attempt: 0,
        cancel: false,
        vars,
        error: None,
        outcome: None,
    };
    let row = JobRow {
        id,
        machine: machine.row.id,
        kind: name_of(&kind),
        state: name_of(&JobState::Running),
        created: now(),
        finished: None,
        body: encode("job", &body)?,
    };
    let step = |(position, step): (usize, &super::Step)| StepRow {
        job: id,
        position: position as u64,
        name: name_of(step),
        state: name_of(if position == 0 { &StepState::Started } else { &StepState::Pending }),
        detail: String::new(),
    };
    let steps: Vec<_> = kind.steps().iter().enumerate().map(step).collect();
    machine.row.active_job = Some(id);
    machine.save(&mut tx).await?;
    tx.insert_job(&row, &steps).await.map_err(ServerError::Store)?;
    let event = format!("{} was asked for (job {id})", row.kind);
    let event = EventRow { time: now(), by, event };
    tx.append_event(machine.row.id, &event).await.map_err(ServerError::Store)?;
    tx.commit().await.map_err(ServerError::Store)?;
    engine::spawn(app, id);
    view::job_by_id(app, id).await
}

/// `POST /v1/machines`.
pub(crate) async fn start_protect(
    app: &Arc<App>,
    ask: Protect,
    by: String,
) -> Result<Job, ApiError> {
    check_protect(&ask)?;
    let agent = find_server(app, &ask.agent, NodeRole::Agent)?;
    let body = MachineBody {
        agent,
        // Read from the agent's report by the first step, together with its disks.
        instance: InstanceId::generate(),
        process_server: find_server(app, &ask.process_server, NodeRole::ProcessServer)?,
        master_target: find_server(app, &ask.master_target, NodeRole::MasterTarget)?,
        replica: ReplicaId::generate(),
        disks: Vec::new(),
        images: match ask.images.is_empty() {
            true => vec![None; ask.disks.len()],
            false => ask.images.iter().cloned().map(Some).collect(),
        },
        marker_interval_ms: ask.marker_interval_ms.unwrap_or(MARKER_INTERVAL_MS_DEFAULT),
        policy: ask.policy.clone().unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
        reverse: None,
    };
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    policies::existing(&mut tx, &body.policy).await?;
    let machine = match tx.machine_named(&ask.name).await.map_err(ServerError::Store)? {
        Some(row) => protect_again(&mut tx, row, body).await?,
        None => new_machine(&mut tx, &ask.name, body).await?,
    };
    check_agent_free(app, &mut tx, &machine).await?;
    in_contact(app, &[agent, machine.body.process_server, machine.body.master_target])?;
    let mut machine = machine;
    machine.row.state = MachineState::Protecting;
    begin(app, tx, machine, Kind::Protect, Params::Protect(ask), by).await
}

fn check_protect(ask: &Protect) -> Result<(), ApiError> {
    let bad = |cause: String| Err(ApiError::new(&codes::BAD_REQUEST, cause));
    check_name(&ask.name)?;
    if !(1..=DISKS_MAX).contains(&ask.disks.len()) {
        return bad(format!("disks: {} disks, not 1 to {DISKS_MAX}", ask.disks.len()));
    }
    for (what, paths) in [("disks", &ask.disks), ("images", &ask.images)] {
        let different: BTreeSet<_> = paths.iter().collect();
        if different.len() != paths.len() {
            let cause = format!("{what}: a path is named twice");
            return Err(ApiError::new(&codes::DISK_TAKEN, cause));
        }
        if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
            return bad(format!("{what}: {path:?} is no absolute path"));
        }
    }
    if !ask.images.is_empty() && ask.images.len() != ask.disks.len() {
        return bad(format!("images: {} for {} disks", ask.images.len(), ask.disks.len()));
    }
    if ask.marker_interval_ms.is_some_and(|ms| !MARKER_INTERVAL_MS.contains(&ms)) {
        let (low, high) = (MARKER_INTERVAL_MS.start(), MARKER_INTERVAL_MS.end());
        return bad(format!("marker_interval_ms: not {low} to {high}"));
    }
    Ok(())
}

/// A machine whose protection had ended. Its epochs go on where they were: a number is never given
/// twice (trap T-17), and whoever still holds an earlier one is below it.
async fn protect_again(
    tx: &mut Tx,
    row: MachineRow,
    body: MachineBody,
) -> Result<MachineRecord, ApiError> {
    let mut machine = MachineRecord::load(tx, row).await?;
    if machine.row.state != MachineState::Unprotected && machine.body.agent != body.agent {
        let cause = format!("{} is the name of another machine", machine.row.name);
        return Err(ApiError::new(&codes::NAME_TAKEN, cause));
    }
    check_accepts(machine.row.state, Command::Protect)?;
    check_idle(&machine)?;
    let parent = machine.authority.lineage.epoch().id;
    let number = machine.authority_row.highest + 1;
    machine.authority = first_authority(number, Some(parent))?;
    machine.authority_row.highest = number;
    machine.body = body;
    Ok(machine)
}

async fn new_machine(
    tx: &mut Tx,
    name: &str,
    body: MachineBody,
) -> Result<MachineRecord, ApiError> {
    let id = MachineId::generate();
    let authority = first_authority(1, None)?;
    let row = MachineRow {
        id,
        name: name.to_owned(),
        state: MachineState::Unprotected,
        generation: 0,
        active_job: None,
        body: encode("machine", &body)?,
    };
    let authority_row = AuthorityRow {
        machine: id,
        generation: 0,
        highest: 1,
        body: encode("authority", &authority)?,
    };
    tx.insert_machine(&row).await.map_err(ServerError::Store)?;
    tx.insert_authority(&authority_row).await.map_err(ServerError::Store)?;
    Ok(MachineRecord { row, body, authority_row, authority })
}

/// Home writes: whoever protects a machine says so.
fn first_authority(number: u64, parent: Option<EpochId>) -> Result<AuthorityBody, ServerError> {
    let epoch = Epoch { number, id: EpochId::new(random()?), parent };
    let holder = Holder { epoch, side: Side::Home, branch: None };
    let lineage = Lineage::root(epoch);
    Ok(AuthorityBody {
        authority: Authority::Held { holder },
        lineage: lineage.clone(),
        replicated: lineage,
    })
}

/// An agent protects one machine: its capture has one log.
async fn check_agent_free(app: &App, tx: &mut Tx, machine: &MachineRecord) -> Result<(), ApiError> {
    for row in tx.machines().await.map_err(ServerError::Store)? {
        if row.id == machine.row.id || row.state == MachineState::Unprotected {
            continue;
        }
        let other = MachineRecord::load(tx, row).await?;
        if other.body.agent == machine.body.agent {
            let agent = app.fleet.name(other.body.agent);
            let cause = format!("{agent} protects machine {}", other.row.name);
            return Err(ApiError::new(&codes::DISK_TAKEN, cause));
        }
    }
    Ok(())
}
