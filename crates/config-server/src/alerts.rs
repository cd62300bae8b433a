//! Alerts: what is wrong at present, compared with what was raised. Raised and cleared here only,
//! from records and reports, so that nothing can be forgotten by whoever found it.

use crate::ServerError;
use crate::app::{App, now};
use crate::policies;
use crate::record::{MachineRecord, decode, encode};
use crate::stages;
use crate::view;
use landfall_api_types::alert::{Alert, AlertFilter, Severity};
use landfall_api_types::{ApiError, codes};
use landfall_model::{MachineState, is_rising, most, rpo};
use landfall_store::{AlertRow, EventRow, Tx};
use landfall_types::{Class, MachineId, NodeId, UnixNanos};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Duration;

/// How long alerts are kept that were cleared.
const KEPT_NS: u64 = 90 * 24 * 60 * 60 * 1_000_000_000;
/// How many are listed when nothing is said.
const LISTED: u32 = 200;
const LISTED_MAX: u32 = 1_000;

/// What an alert's row says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Body {
    severity: Severity,
    machine: Option<MachineId>,
    /// The server that says it, or is silent.
    server: Option<NodeId>,
    cause: String,
    cure: String,
}

/// Something that holds at present.
struct Found {
    code: String,
    subject: String,
    body: Body,
}

/// Looks at everything once: raises what is new, clears what has ended.
pub(crate) async fn look(app: &App, machines: &[MachineRecord]) -> Result<(), ServerError> {
    let mut found = nodes(app, machines);
    let mut read = app.store.read().await?;
    for machine in machines {
        found.extend(rpo_in_danger(app, &mut read, machine).await?);
    }
    let open = read.open_alerts().await?;
    drop(read);
    let changes = compare(app, found, open)?;
    if changes.is_empty() {
        return Ok(());
    }
    let mut tx = app.store.begin().await?;
    for change in changes {
        write(&mut tx, change).await?;
    }
    Ok(tx.commit().await?)
}

enum Change {
    Raise(AlertRow, Body),
    Update(AlertRow),
    Clear(AlertRow, Body),
}

fn compare(app: &App, found: Vec<Found>, open: Vec<AlertRow>) -> Result<Vec<Change>, ServerError> {
    let mut changes = Vec::new();
    for one in &found {
        let holds = |row: &&AlertRow| row.code == one.code && row.subject == one.subject;
        let text = encode("alert", &one.body)?;
        match open.iter().find(holds) {
            Some(row) if same(&decode("alert", &row.body)?, &one.body) => {}
            Some(row) => changes.push(Change::Update(AlertRow { body: text, ..row.clone() })),
            None => {
                let row = AlertRow {
                    id: 0,
                    code: one.code.clone(),
                    subject: one.subject.clone(),
                    raised: now(),
                    cleared: None,
                    body: text,
                };
                changes.push(Change::Raise(row, one.body.clone()));
            }
        }
    }
    for row in open {
        let holds = found.iter().any(|one| one.code == row.code && one.subject == row.subject);
        let body: Body = decode("alert", &row.body)?;
        // What a silent server said last still counts: nobody knows that it has ended. Its silence
        // itself ends with its next report.
        let known = body.server.is_none_or(|server| app.fleet.in_contact(server));
        if !holds && known {
            changes.push(Change::Clear(AlertRow { cleared: Some(now()), ..row }, body));
        }
    }
    Ok(changes)
}

/// True when an alert says the same but for figures, which change with every look.
fn same(told: &Body, found: &Body) -> bool {
    let words = |text: &str| text.replace(|sign: char| sign.is_ascii_digit(), "");
    told.severity == found.severity && words(&told.cause) == words(&found.cause)
}

async fn write(tx: &mut Tx, change: Change) -> Result<(), ServerError> {
    let (row, body, what) = match change {
        Change::Update(row) => return Ok(tx.update_alert(&row).await?),
        Change::Raise(row, body) => {
            tx.raise_alert(&row).await?;
            (row, body, "raised")
        }
        Change::Clear(row, body) => {
            tx.update_alert(&row).await?;
            (row, body, "cleared")
        }
    };
    tracing::warn!(code = row.code, cause = body.cause, what, "alert");
    if let Some(machine) = body.machine {
        let event = format!("alert {} {what}: {}", row.code, body.cause);
        let event = EventRow { time: now(), by: "reconciler".to_owned(), event };
        tx.append_event(machine, &event).await?;
    }
    Ok(())
}

/// What servers say of themselves, and those that say nothing.
fn nodes(app: &App, machines: &[MachineRecord]) -> Vec<Found> {
    let mut all = Vec::new();
    let used = |node: NodeId| {
        machines.iter().find(|machine| {
            machine.state() != MachineState::Unprotected && machine.nodes().contains(&node)
        })
    };
    for node in app.fleet.all() {
        if app.fleet.gone(node.id) {
            // One that nothing is protected with may be switched off.
            if used(node.id).is_some() {
                let cause = format!("{} is out of contact", node.name);
                let error = ApiError::new(&codes::NODE_SILENT, cause);
                all.push(of_node(node.id, Severity::Critical, None, &error));
            }
            continue;
        }
        if !app.fleet.in_contact(node.id) {
            continue;
        }
        for error in &node.report.problems {
            let severity = match error.registered().class {
                Class::Corrupt | Class::Fenced => Severity::Critical,
                Class::Transient | Class::Permanent | Class::Bug => Severity::Warning,
            };
            all.push(of_node(node.id, severity, None, error));
        }
        for condition in &node.report.conditions {
            let known = |machine: &&MachineRecord| Some(machine.row.id) == condition.machine;
            let machine = machines.iter().find(known).map(|machine| machine.row.id);
            all.push(of_node(node.id, condition.severity, machine, &condition.error));
        }
    }
    // The same of one thing once.
    all.sort_by(|a, b| (&a.code, &a.subject).cmp(&(&b.code, &b.subject)));
    all.dedup_by(|a, b| a.code == b.code && a.subject == b.subject);
    all
}

fn of_node(
    server: NodeId,
    severity: Severity,
    machine: Option<MachineId>,
    error: &ApiError,
) -> Found {
    let mut subject = format!("server/{server}");
    if let Some(machine) = machine {
        subject = format!("{subject}/machine/{machine}");
    }
    for name in ["replica", "disk", "branch", "lsn"] {
        if let Some(value) = error.details.get(name) {
            subject = format!("{subject}/{name}/{value}");
        }
    }
    let body = Body {
        severity,
        machine,
        server: Some(server),
        cause: error.cause.clone(),
        cure: error.cure.clone(),
    };
    Found { code: error.code.clone(), subject, body }
}

/// RQ-RP-9, T-18: counted from the newest durable legal point, also when nobody reports. A warning
/// comes before the threshold is crossed; both name the stage that is to blame.
async fn rpo_in_danger(
    app: &App,
    tx: &mut Tx,
    machine: &MachineRecord,
) -> Result<Option<Found>, ServerError> {
    if !matches!(machine.state(), MachineState::Protected | MachineState::Reprotected) {
        return Ok(None);
    }
    let threshold_s = policies::of(tx, machine).await?.rpo_s;
    let (node, replica) = machine.target();
    let newest = app.fleet.replica(node, replica).and_then(|report| report.newest_point);
    let rpo = rpo(now(), newest.map(|point| point.time));
    let Some(rpo) = rpo else { return Ok(None) };
    let (code, severity) = match rpo.as_secs() > threshold_s {
        true => (&codes::RPO_EXCEEDED, Severity::Critical),
        false if is_rising(rpo, Duration::from_secs(threshold_s)) => {
            (&codes::RPO_RISING, Severity::Warning)
        }
        false => return Ok(None),
    };
    let (name, seconds) = (&machine.row.name, rpo.as_secs());
    let mut cause =
        format!("the RPO of {name} has risen to {seconds} s; {threshold_s} s are allowed");
    let mut error = ApiError::new(code, "");
    if let Some(blamed) = most(&stages::of(app, machine)) {
        let stage = blamed.stage.name();
        let _ = write!(cause, "; {:.0} s of it are spent in: {stage}", blamed.s);
        blamed.stage.help().clone_into(&mut error.cure);
    }
    let body =
        Body { severity, machine: Some(machine.row.id), server: None, cause, cure: error.cure };
    Ok(Some(Found { code: error.code, subject: format!("machine/{}", machine.row.id), body }))
}

/// Forgets old alerts.
pub(crate) async fn forget(tx: &mut Tx) -> Result<(), ServerError> {
    tx.forget_alerts(UnixNanos(now().0.saturating_sub(KEPT_NS))).await?;
    Ok(())
}

/// Alerts as people see them, the newest first.
pub(crate) async fn list(app: &App, filter: &AlertFilter) -> Result<Vec<Alert>, ApiError> {
    let limit = filter.limit.unwrap_or(LISTED);
    if !(1..=LISTED_MAX).contains(&limit) {
        let cause = format!("limit: {limit} is not 1 to {LISTED_MAX}");
        return Err(ApiError::new(&codes::BAD_REQUEST, cause));
    }
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut tx = app.store.read().await.map_err(ServerError::Store)?;
    let mut before = filter.before.unwrap_or(u64::MAX);
    let mut all = Vec::new();
    loop {
        let rows = tx.alerts(before, LISTED_MAX).await.map_err(ServerError::Store)?;
        let Some(last) = rows.last() else { return Ok(all) };
        before = last.id;
        for row in rows {
            let alert = shown(app, &mut tx, row).await?;
            if passes(&alert, filter) {
                all.push(alert);
            }
            if all.len() == wanted {
                return Ok(all);
            }
        }
    }
}

fn passes(alert: &Alert, filter: &AlertFilter) -> bool {
    (filter.cleared || alert.cleared.is_none())
        && filter.machine.as_ref().is_none_or(|name| alert.machine.as_ref() == Some(name))
        && filter.code.as_ref().is_none_or(|code| alert.code == *code)
}

async fn shown(app: &App, tx: &mut Tx, row: AlertRow) -> Result<Alert, ServerError> {
    let body: Body = decode("alert", &row.body)?;
    let machine = match body.machine {
        Some(id) => Some(view::machine_name(tx, id).await?),
        None => None,
    };
    Ok(Alert {
        id: row.id,
        code: row.code,
        severity: body.severity,
        machine,
        server: body.server.map(|server| app.fleet.name(server)),
        cause: body.cause,
        cure: body.cure,
        raised: row.raised,
        cleared: row.cleared,
    })
}
