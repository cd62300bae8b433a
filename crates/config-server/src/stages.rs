//! Where a machine's RPO comes from: positions of the hops, as they report them.

use crate::app::App;
use crate::record::MachineRecord;
use landfall_api_types::node::{AgentReport, RelayReport};
use landfall_model::{Passed, StageTime, rpo_by_stage};
use landfall_types::{Lsn, UnixNanos};

/// The RPO of the forward direction by stage; empty while the agent has not said what time it is,
/// or there is no point.
pub(crate) fn of(app: &App, machine: &MachineRecord) -> Vec<StageTime> {
    if machine.homeward() {
        // The producer is a master target: it reports no markers with their times yet.
        return Vec::new();
    }
    let body = &machine.body;
    let Some(agent) = app.fleet.agent(body.agent) else { return Vec::new() };
    let replica = app.fleet.replica(body.master_target, body.replica);
    let newest = replica.as_ref().and_then(|report| report.newest_point.as_ref());
    let (Some(said), Some(newest)) = (agent.now, newest) else { return Vec::new() };
    // A silent agent's clock goes on.
    let age = app.fleet.report_age(body.agent).unwrap_or_default();
    let now = UnixNanos(said.0.saturating_add(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
    let relay = app.fleet.relay(body.process_server, body.replica);
    let relay = relay.filter(|_| app.fleet.in_contact(body.process_server));
    let received = replica.as_ref().map(|report| report.watermarks.received);
    rpo_by_stage(now, newest.time, &agent.timeline, &passed(&agent, relay.as_ref(), received))
}

fn passed(agent: &AgentReport, relay: Option<&RelayReport>, received: Option<Lsn>) -> Passed {
    Passed {
        catching_up: agent.catch_up.as_ref().is_some_and(|catch_up| !catch_up.finished),
        captured: agent.captured,
        sent: (agent.connected != Some(false)).then_some(agent.sent),
        relay_durable: relay.map(|relay| relay.durable_here),
        relay_sent: relay.filter(|relay| relay.downstream).and_then(|relay| relay.sent),
        target_received: received,
    }
}

/// Round trips in milliseconds: source to process server, process server to master target
/// (RQ-PS-5).
pub(crate) fn round_trips(app: &App, machine: &MachineRecord) -> [Option<f64>; 2] {
    let (body, homeward) = (&machine.body, machine.homeward());
    let relay = match &body.reverse {
        Some(reverse) if homeward => app.fleet.relay(reverse.process_server, reverse.replica),
        _ => app.fleet.relay(body.process_server, body.replica),
    };
    let source = app.fleet.agent(body.agent).filter(|_| !homeward).and_then(|agent| agent.rtt_ms);
    [source, relay.and_then(|relay| relay.rtt_ms)]
}
