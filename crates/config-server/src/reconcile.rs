//! What must always hold: looked at again and again, from what is stored and reported; takes no
//! input.
//!
//! * A machine whose target has a durable legal point of the present epoch is no longer
//!   *protecting*.
//! * A machine whose home has a durable legal point is no longer *reprotecting*: the job that
//!   closes it is begun.
//! * A source of an epoch that is over is fenced as soon as it is in contact (design section 7).
//! * Every replica keeps what its machine's policy asks for.
//! * What is wrong has an alert, and nothing else has.
//! * Answered orders are forgotten after a day.

use crate::ServerError;
use crate::app::{App, now};
use crate::jobs::{Kind, give, start_internal};
use crate::record::MachineRecord;
use crate::{alerts, policies};
use landfall_api_types::node::ReplicaReport;
use landfall_api_types::order::Order;
use landfall_model::authority::{Authority, Side};
use landfall_model::{Event, MachineState};
use landfall_store::EventRow;
use landfall_types::{Lsn, MachineId, OrderId, UnixNanos};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long answered orders are kept, for people who look for what happened.
const ORDERS_KEPT_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
/// How often old orders are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// Runs until shutdown.
pub(crate) async fn run(app: Arc<App>) {
    let mut interval = tokio::time::interval(app.timing.reconcile_interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut forgotten = Instant::now();
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        if let Err(error) = look(&app).await {
            tracing::warn!(%error, "a reconciler could not look");
        }
        if forgotten.elapsed() > FORGET_INTERVAL {
            forgotten = Instant::now();
            if let Err(error) = forget(&app).await {
                tracing::warn!(%error, "old orders could not be forgotten");
            }
        }
    }
}

async fn forget(app: &App) -> Result<(), ServerError> {
    let before = UnixNanos(now().0.saturating_sub(ORDERS_KEPT_NS));
    let mut tx = app.store.begin().await?;
    tx.forget_orders(before).await?;
    alerts::forget(&mut tx).await?;
    Ok(tx.commit().await?)
}

async fn look(app: &Arc<App>) -> Result<(), ServerError> {
    let mut tx = app.store.read().await?;
    let mut machines = Vec::new();
    for row in tx.machines().await? {
        machines.push(MachineRecord::load(&mut tx, row).await?);
    }
    drop(tx);
    alerts::look(app, &machines).await?;
    for machine in machines {
        if machine.row.state != MachineState::Unprotected {
            policies::carry_over(app, &machine).await?;
        }
        fence_returned(app, &machine).await?;
        if machine.row.active_job.is_some() {
            continue;
        }
        match machine.row.state {
            MachineState::Protecting if point_durable(app, &machine) => {
                protected(app, machine.row.id).await?;
            }
            MachineState::Reprotecting if home_point_durable(app, &machine) => {
                // Somebody else may have begun a job in between: then it is looked at again.
                if let Err(error) = start_internal(app, machine.row.id, Kind::CloseReprotect).await
                {
                    tracing::debug!(%error, "the reprotect is closed later");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The recovery site can recover something of the present epoch: not only what it had before.
fn point_durable(app: &App, machine: &MachineRecord) -> bool {
    let (node, replica) = machine.target();
    let report = app.fleet.replica(node, replica);
    report.is_some_and(|report| {
        app.fleet.in_contact(node)
            && report.lineage.epoch().is(&machine.authority.lineage.epoch())
            && legal_behind(&report, machine.fork())
    })
}

/// Home can recover something. Its base is no point: its content is unknown until the window has
/// closed (trap T-15).
fn home_point_durable(app: &App, machine: &MachineRecord) -> bool {
    let Some(reverse) = &machine.body.reverse else { return false };
    let Some(base) = &reverse.base else { return false };
    let report = app.fleet.replica(reverse.master_target, reverse.replica);
    report.is_some_and(|report| {
        app.fleet.in_contact(reverse.master_target) && legal_behind(&report, base.durable)
    })
}

fn legal_behind(report: &ReplicaReport, lsn: Lsn) -> bool {
    report.open_windows.is_empty() && report.newest_legal.is_some_and(|legal| legal > lsn)
}

async fn protected(app: &App, id: MachineId) -> Result<(), ServerError> {
    let mut tx = app.store.begin().await?;
    let mut machine = MachineRecord::load_by_id(&mut tx, id).await?;
    if machine.row.state != MachineState::Protecting || machine.row.active_job.is_some() {
        return Ok(());
    }
    machine.happen(Event::PointDurable)?;
    machine.save(&mut tx).await?;
    let event = "protected: the recovery site has a recovery point".to_owned();
    let event = EventRow { time: now(), by: "reconciler".to_owned(), event };
    tx.append_event(id, &event).await?;
    tx.commit().await?;
    Ok(())
}

/// A source that comes back with an epoch that is over is told before anything else happens to it.
/// A stopped source that was reverted to an older state comes back unfenced, and is told again.
async fn fence_returned(app: &App, machine: &MachineRecord) -> Result<(), ServerError> {
    let Authority::Held { holder } = &machine.authority.authority else { return Ok(()) };
    let agent = machine.body.agent;
    if holder.side != Side::Recovery || !app.fleet.in_contact(agent) {
        return Ok(());
    }
    let Some(report) = app.fleet.agent(agent) else { return Ok(()) };
    let older = report.epoch.is_some_and(|epoch| !epoch.is(&holder.epoch));
    if report.fenced || !older || report.machine != Some(machine.row.id) {
        return Ok(());
    }
    let prefix = fence_prefix(machine.row.id);
    let open = app.store.read().await?.open_orders(agent).await?;
    if open.iter().any(|order| order.idempotency.starts_with(&prefix)) {
        return Ok(());
    }
    let key = format!("{prefix}{}/{}", holder.epoch.number, OrderId::generate());
    let order = Order::AgentFence { epoch: machine.authority.lineage.epoch() };
    give(app, agent, key, &order).await?;
    Ok(())
}

/// Orders that fence a machine's source.
pub(crate) fn fence_prefix(machine: MachineId) -> String {
    format!("fence/{machine}/")
}
