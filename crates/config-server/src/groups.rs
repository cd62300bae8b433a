//! Points of several machines at once (RQ-RP-8, trap T-19). No job: nothing of it is to be gone on
//! with after a restart, because a member that hears nothing gives its part up.

use crate::ServerError;
use crate::app::{App, now};
use crate::jobs::{self, question_within};
use crate::record::MachineRecord;
use landfall_api_types::order::{BarrierAsk, Order};
use landfall_api_types::request::{Consistency, MarkGroup};
use landfall_api_types::resource::GroupPoint;
use landfall_api_types::{ApiError, codes};
use landfall_model::Command;
use landfall_model::barrier::{Ask, Barrier, Outcome};
use landfall_store::EventRow;
use landfall_types::control::MARKER_NAME_BYTES_MAX;
use landfall_types::{GroupPointId, MachineId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// More than any group has that is frozen at once for seconds.
const MEMBERS_MAX: usize = 64;
/// Hooks, and what is synced before the freeze, take their time.
const FREEZE_MAX: Duration = Duration::from_secs(60);
/// Any other question: the members stop by themselves not much later.
const ANSWER_MAX: Duration = Duration::from_secs(10);

type Answer = (MachineId, Ask, Result<(), ApiError>);

/// Makes one; answers when it is there, or why not.
///
/// # Errors
/// `bad-request`, `unknown-machine`, `wrong-state`; `point-failed` with the member that could not
/// keep the promise.
pub(crate) async fn mark(
    app: &Arc<App>,
    ask: MarkGroup,
    by: String,
) -> Result<GroupPoint, ApiError> {
    let members = members(app, &ask).await?;
    let group = GroupPointId::generate();
    let begun = Instant::now();
    let mut barrier = Barrier::new(members.keys().copied());
    let mut causes: BTreeMap<MachineId, ApiError> = BTreeMap::new();
    let mut frozen_ms = 0;
    // Questions of a round that is over go on by themselves, until they are answered or taken back.
    let mut answers: JoinSet<Answer> = JoinSet::new();
    let ask_all = |answers: &mut JoinSet<Answer>, now: Ask| {
        for (id, member) in &members {
            let (app, id, node) = (Arc::clone(app), *id, member.body.agent);
            let order = Order::AgentBarrier { group, ask: question_of(now, &ask) };
            let patience = if now == Ask::Freeze { FREEZE_MAX } else { ANSWER_MAX };
            answers.spawn(async move {
                let answer = question_within(&app, node, &order, patience).await;
                (id, now, answer.map(drop))
            });
        }
    };
    ask_all(&mut answers, barrier.ask());
    let outcome = loop {
        if let Some(outcome) = barrier.outcome() {
            break outcome;
        }
        let Some(Ok((id, asked, answer))) = answers.join_next().await else {
            return Err(ApiError::new(&codes::INTERNAL, "a question to a member was lost"));
        };
        let yes = answer.is_ok();
        if let Err(error) = answer {
            causes.entry(id).or_insert(error);
        }
        if barrier.answered(id, asked, yes) {
            if barrier.ask() == Ask::Keep {
                frozen_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            }
            ask_all(&mut answers, barrier.ask());
        }
    };
    answers.detach_all();
    let told = match &outcome {
        Outcome::Point => format!("a point of {} machines was put: {:?}", members.len(), ask.name),
        Outcome::NoPoint(_) | Outcome::Incomplete(_) => {
            format!("there is no point {:?} of {} machines", ask.name, members.len())
        }
    };
    note(app, &members, &by, &told).await?;
    match outcome {
        Outcome::Point => {
            Ok(GroupPoint { id: group, name: ask.name, machines: ask.machines, frozen_ms })
        }
        Outcome::NoPoint(member) | Outcome::Incomplete(member) => {
            let name = members.get(&member).map_or("", |member| member.row.name.as_str());
            let why = causes.remove(&member).map_or_else(String::new, |error| error.cause);
            Err(ApiError::new(&codes::POINT_FAILED, format!("{name}: {why}"))
                .detail("machine", name))
        }
    }
}

fn question_of(ask: Ask, of: &MarkGroup) -> BarrierAsk {
    match ask {
        Ask::Freeze => BarrierAsk::Freeze { name: of.name.clone(), consistency: of.consistency },
        Ask::Confirm => BarrierAsk::Confirm,
        Ask::Keep => BarrierAsk::Keep,
        Ask::Void => BarrierAsk::Void,
    }
}

/// The machines that were asked for, each with an agent of its own.
async fn members(
    app: &App,
    ask: &MarkGroup,
) -> Result<BTreeMap<MachineId, MachineRecord>, ApiError> {
    let bad = |cause: String| Err(ApiError::new(&codes::BAD_REQUEST, cause));
    if !(1..=MARKER_NAME_BYTES_MAX).contains(&ask.name.len()) {
        return bad(format!("name: {} bytes, not 1 to {MARKER_NAME_BYTES_MAX}", ask.name.len()));
    }
    if ask.consistency == Consistency::Crash {
        return bad("consistency: machines that are not frozen have no moment in common".to_owned());
    }
    if !(2..=MEMBERS_MAX).contains(&ask.machines.len()) {
        return bad(format!("machines: {}, not 2 to {MEMBERS_MAX}", ask.machines.len()));
    }
    let mut tx = app.store.read().await.map_err(ServerError::Store)?;
    let mut members = BTreeMap::new();
    for name in &ask.machines {
        let machine = jobs::find_machine(&mut tx, name).await?;
        jobs::check_accepts(machine.row.state, Command::Mark)?;
        members.insert(machine.row.id, machine);
    }
    let agents: BTreeSet<_> = members.values().map(|member| member.body.agent).collect();
    if agents.len() < ask.machines.len() {
        return bad("machines: one stands there twice, or two have one agent".to_owned());
    }
    Ok(members)
}

/// A line of each member's history (RQ-FO-10).
async fn note(
    app: &App,
    members: &BTreeMap<MachineId, MachineRecord>,
    by: &str,
    told: &str,
) -> Result<(), ApiError> {
    let event = EventRow { time: now(), by: by.to_owned(), event: told.to_owned() };
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    for id in members.keys() {
        tx.append_event(*id, &event).await.map_err(ServerError::Store)?;
    }
    tx.commit().await.map_err(ServerError::Store)?;
    Ok(())
}
