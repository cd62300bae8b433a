//! Named policies: what is wanted is here, what is in force is at the master targets; a reconciler
//! carries the difference over.

use crate::ServerError;
use crate::app::{App, now};
use crate::http::check_name;
use crate::jobs::{find_machine, give};
use crate::record::{MachineRecord, decode, encode};
use landfall_api_types::order::Order;
use landfall_api_types::retention::{DEFAULT_POLICY, Policy, PutPolicy, RPO_S_DEFAULT};
use landfall_api_types::{ApiError, codes};
use landfall_model::MachineState;
use landfall_store::{EventRow, PolicyRow, Tx};
use landfall_types::{NodeId, OrderId, ReplicaId, RetentionPolicy};
use serde::{Deserialize, Serialize};

/// What a policy's row says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PolicyBody {
    pub(crate) retention: RetentionPolicy,
    pub(crate) rpo_s: u64,
}

impl Default for PolicyBody {
    fn default() -> Self {
        Self { retention: RetentionPolicy::default(), rpo_s: RPO_S_DEFAULT }
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::new(&codes::UNKNOWN_POLICY, format!("no policy is named {name:?}"))
}

/// A policy by its name. The default one is there without a row until somebody changes it.
pub(crate) async fn find(tx: &mut Tx, name: &str) -> Result<Option<PolicyBody>, ServerError> {
    match tx.policy(name).await? {
        Some(row) => decode("policy", &row.body).map(Some),
        None => Ok((name == DEFAULT_POLICY).then(PolicyBody::default)),
    }
}

/// As [`find`], refused when there is none.
pub(crate) async fn existing(tx: &mut Tx, name: &str) -> Result<PolicyBody, ApiError> {
    find(tx, name).await?.ok_or_else(|| unknown(name))
}

/// The policy that holds for a machine. Policies in use can't be removed; were one gone all the
/// same, the default holds.
pub(crate) async fn of(tx: &mut Tx, machine: &MachineRecord) -> Result<PolicyBody, ServerError> {
    Ok(find(tx, &machine.body.policy).await?.unwrap_or_default())
}

/// Every policy, by name.
pub(crate) async fn list(app: &App) -> Result<Vec<Policy>, ApiError> {
    let mut tx = app.store.read().await.map_err(ServerError::Store)?;
    let mut bodies = vec![];
    let rows = tx.policies().await.map_err(ServerError::Store)?;
    if rows.iter().all(|row| row.name != DEFAULT_POLICY) {
        bodies.push((DEFAULT_POLICY.to_owned(), PolicyBody::default()));
    }
    for row in rows {
        bodies.push((row.name, decode("policy", &row.body)?));
    }
    let mut all = Vec::new();
    for (name, body) in bodies {
        all.push(view(&mut tx, name, body).await?);
    }
    Ok(all)
}

async fn view(tx: &mut Tx, name: String, body: PolicyBody) -> Result<Policy, ServerError> {
    let mut machines = Vec::new();
    for row in tx.machines().await? {
        let machine = MachineRecord::load(tx, row).await?;
        if machine.body.policy == name && machine.state() != MachineState::Unprotected {
            machines.push(machine.row.name);
        }
    }
    Ok(Policy { name, retention: body.retention, rpo_s: body.rpo_s, machines })
}

/// A policy as people see it.
pub(crate) async fn show(app: &App, name: &str) -> Result<Policy, ApiError> {
    let mut tx = app.store.read().await.map_err(ServerError::Store)?;
    let body = existing(&mut tx, name).await?;
    Ok(view(&mut tx, name.to_owned(), body).await?)
}

/// Makes a policy, or changes it; its machines follow within a moment.
pub(crate) async fn put(app: &App, name: &str, ask: PutPolicy) -> Result<Policy, ApiError> {
    check_name(name)?;
    let bad = |cause: String| ApiError::new(&codes::BAD_REQUEST, cause);
    ask.retention.validate().map_err(|error| bad(error.to_string()))?;
    if ask.rpo_s == 0 {
        return Err(bad("rpo_s: not above 0".to_owned()));
    }
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    let found = tx.policy(name).await.map_err(ServerError::Store)?;
    if ask.new && (found.is_some() || name == DEFAULT_POLICY) {
        return Err(ApiError::new(&codes::NAME_TAKEN, format!("there is a policy {name:?}")));
    }
    let body = PolicyBody { retention: ask.retention, rpo_s: ask.rpo_s };
    let text = encode("policy", &body)?;
    let written = match found {
        Some(row) => tx.update_policy(&PolicyRow { body: text, ..row }).await,
        None => {
            let row = PolicyRow { name: name.to_owned(), generation: 0, body: text };
            tx.insert_policy(&row).await
        }
    };
    written.map_err(ServerError::Store)?;
    tx.commit().await.map_err(ServerError::Store)?;
    show(app, name).await
}

/// Removes a policy that no machine is protected with.
pub(crate) async fn remove(app: &App, name: &str) -> Result<(), ApiError> {
    let policy = show(app, name).await?;
    if name == DEFAULT_POLICY {
        let cause = "the default policy is always there";
        return Err(ApiError::new(&codes::POLICY_IN_USE, cause));
    }
    if let Some(machine) = policy.machines.first() {
        let cause = format!("{machine} is protected with policy {name:?}");
        return Err(ApiError::new(&codes::POLICY_IN_USE, cause).detail("machine", machine));
    }
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    tx.remove_policy(name).await.map_err(ServerError::Store)?;
    tx.commit().await.map_err(ServerError::Store)?;
    Ok(())
}

/// Another policy holds for a machine from now on.
pub(crate) async fn assign(
    app: &App,
    machine: &str,
    policy: &str,
    by: String,
) -> Result<Policy, ApiError> {
    let mut tx = app.store.begin().await.map_err(ServerError::Store)?;
    existing(&mut tx, policy).await?;
    let mut record = find_machine(&mut tx, machine).await?;
    if record.body.policy != policy {
        policy.clone_into(&mut record.body.policy);
        record.save(&mut tx).await?;
        let event = EventRow { time: now(), by, event: format!("policy {policy} was assigned") };
        tx.append_event(record.row.id, &event).await.map_err(ServerError::Store)?;
        tx.commit().await.map_err(ServerError::Store)?;
    }
    show(app, policy).await
}

/// Orders the policy wherever a replica of the machine reports another one.
pub(crate) async fn carry_over(app: &App, machine: &MachineRecord) -> Result<(), ServerError> {
    let mut tx = app.store.read().await?;
    let wanted = of(&mut tx, machine).await?.retention;
    let body = &machine.body;
    let home = body.reverse.as_ref().map(|reverse| (reverse.master_target, reverse.replica));
    for (node, replica) in [(body.master_target, body.replica)].into_iter().chain(home) {
        let report = app.fleet.replica(node, replica).filter(|_| app.fleet.in_contact(node));
        let other = report.and_then(|report| report.retention).map(|kept| kept.policy);
        if other.is_none_or(|other| other == wanted) {
            continue;
        }
        let open = tx.open_orders(node).await?;
        let prefix = format!("policy/{replica}/");
        if open.iter().all(|order| !order.idempotency.starts_with(&prefix)) {
            order(app, node, replica, prefix, &wanted).await?;
        }
    }
    Ok(())
}

async fn order(
    app: &App,
    node: NodeId,
    replica: ReplicaId,
    prefix: String,
    wanted: &RetentionPolicy,
) -> Result<(), ServerError> {
    let key = format!("{prefix}{}", OrderId::generate());
    give(app, node, key, &Order::MtPolicy { replica, policy: wanted.clone() }).await?;
    Ok(())
}
