//! The agent as a process: enrolment, orders, reports.

use crate::agent::Agent;
use crate::freeze::thaw_left_behind;
use crate::instance::{Hardware, instance_of};
use crate::network::FleetNetwork;
use crate::settings::Settings;
use crate::state::StateError;
use landfall_api_client::{Backoff, Enrolment, LedgerError, NodeClient, OrderLoop};
use landfall_api_types::ApiError;
use landfall_api_types::node::Report;
use landfall_pki::PkiError;
use landfall_types::Class;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the agent reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What an agent needs to run.
pub struct AgentConfig {
    /// How to join the fleet.
    pub enrolment: Enrolment,
    /// Where credentials, orders and state are kept.
    pub state_dir: PathBuf,
    /// Where the instance's nonce is kept, outside the protected disks: see
    /// [`crate::instance::INSTANCE_FILE`].
    pub instance_file: PathBuf,
    /// How it works on this machine.
    pub settings: Settings,
}

/// Why the agent can't run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Joining the fleet.
    #[error("join the fleet: {0}")]
    Enrol(ApiError),
    /// The credentials are of no use.
    #[error("the credentials")]
    Credentials(#[source] PkiError),
    /// Its own state.
    #[error("the agent's state")]
    State(#[source] StateError),
    /// Results of orders.
    #[error("the results of orders")]
    Ledger(#[source] LedgerError),
}

impl AgentError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Enrol(error) => error.registered().class,
            Self::Credentials(_) => Class::Permanent,
            Self::State(error) => error.class(),
            Self::Ledger(error) => error.class(),
        }
    }
}

/// Runs the agent until `shutdown`.
///
/// # Errors
/// [`AgentError`]; never because the configuration server is away once the agent has enrolled.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    // First of all: whatever else fails, nothing stays frozen.
    match thaw_left_behind(&config.settings.points.guard.record) {
        Ok(mounts) if mounts.is_empty() => {}
        Ok(mounts) => tracing::warn!(?mounts, "an earlier process had left these frozen"),
        Err(error) => tracing::error!(%error, "look for what an earlier process left frozen"),
    }
    let hardware = Hardware::of_this_machine();
    let instance = instance_of(&config.instance_file, &config.state_dir, hardware.as_ref())
        .map_err(AgentError::State)?;
    let Some(client) = enrol(&config, &shutdown).await? else { return Ok(()) };
    let network = FleetNetwork::new(client.credentials()).map_err(AgentError::Credentials)?;
    let network = Arc::new(network);
    let agent = Agent::open(&config.state_dir, instance, config.settings.clone(), network)
        .map_err(AgentError::State)?;
    let agent = Arc::new(agent);
    let orders = OrderLoop::open(client.clone(), &config.state_dir).map_err(AgentError::Ledger)?;
    let shown = Settings::status_file(&config.instance_file);
    let reports = tokio::spawn(report(Arc::clone(&agent), client, shown, shutdown.clone()));
    let resumed = tokio::spawn(resume(Arc::clone(&agent), shutdown.clone()));
    let result = orders.run(Arc::clone(&agent), shutdown.clone()).await;
    shutdown.cancel();
    let _ended = (reports.await, resumed.await);
    agent.shut_down().await;
    result.map_err(AgentError::Ledger)
}

/// Enrols, or opens the credentials; `None` at shutdown.
async fn enrol(
    config: &AgentConfig,
    shutdown: &CancellationToken,
) -> Result<Option<NodeClient>, AgentError> {
    let mut backoff = Backoff::new();
    loop {
        match NodeClient::open_or_enroll(&config.state_dir, &config.enrolment).await {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.registered().class == Class::Transient => {
                tracing::info!(%error, "enrolment is tried again");
            }
            Err(error) => return Err(AgentError::Enrol(error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Goes on with what was running, as often as it takes: a disk may come later than the agent.
async fn resume(agent: Arc<Agent>, shutdown: CancellationToken) {
    let mut backoff = Backoff::new();
    while let Err(error) = agent.resume().await {
        tracing::error!(%error, "what was protected can't be captured");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

async fn report(
    agent: Arc<Agent>,
    client: NodeClient,
    shown: PathBuf,
    shutdown: CancellationToken,
) {
    let mut interval = tokio::time::interval(REPORT_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        let (state, problems) = agent.report();
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent: Some(state),
            problems,
            ..Report::default()
        };
        show(&shown, &report);
        tokio::select! {
            () = shutdown.cancelled() => return,
            sent = client.report(&report) => if let Err(error) = sent {
                tracing::debug!(%error, "the report did not arrive");
            },
        }
    }
}

/// For `landfall agent status`. Lies in memory: nothing is made durable, and a reader sees a whole
/// report or the one before.
fn show(path: &Path, report: &Report) {
    let partial = path.with_extension("partial");
    let written = serde_json::to_vec_pretty(report).map_err(std::io::Error::other);
    let written = written.and_then(|text| std::fs::write(&partial, text));
    if let Err(error) = written.and_then(|()| std::fs::rename(&partial, path)) {
        tracing::debug!(%error, "the report can't be shown here");
    }
}
