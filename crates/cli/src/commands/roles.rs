//! Starts the roles: turns options into the configuration of their libraries, and signals into a
//! clean end.

use crate::args::{MasterTargetArgs, NodeArgs, ProcessServerArgs, ServerArgs, ServerCommand};
use crate::failure::Failure;
use crate::output::{self, Format};
use anyhow::{Context as _, Result};
use landfall_api_client::Enrolment;
use landfall_api_types::resource::NodeRole;
use landfall_master_target::{DiskListener, MasterTargetConfig};
use landfall_process_server::ProcessServerConfig;
use landfall_wire::Compression;
use std::fs;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Bytes of records that may wait at a process server for the next hop; its warnings begin at 30 %
/// free (RQ-PS-6).
const CACHE_BYTES: u64 = 4 << 30;
/// What is logged where `LANDFALL_LOG` does not say otherwise.
const LOG_DEFAULT: &str = "info";

/// `landfall server`.
pub(super) async fn server(args: ServerArgs, format: Format) -> Result<(), Failure> {
    if let Some(ServerCommand::Passphrase { state }) = args.command {
        let passphrase = landfall_config_server::passphrase(&state).map_err(anyhow::Error::new)?;
        output::print(format, &passphrase, Clone::clone);
        return Ok(());
    }
    let state = args.state.context("--state is needed")?;
    let shutdown = begin(&state)?;
    let config = landfall_config_server::Config::new(state, args.listen);
    let run = landfall_config_server::run(config, shutdown);
    Ok(run.await.map_err(anyhow::Error::new)?)
}

/// `landfall process-server`.
pub(super) async fn process_server(args: ProcessServerArgs) -> Result<(), Failure> {
    let shutdown = begin(&args.node.state)?;
    let config = ProcessServerConfig {
        enrolment: enrolment(&args.node, NodeRole::ProcessServer)?,
        state_dir: args.node.state,
        listen: args.listen,
        cache_bytes: CACHE_BYTES,
        compression: Compression::Adaptive,
        bandwidth: args.bandwidth,
    };
    let run = landfall_process_server::run(config, shutdown);
    Ok(run.await.map_err(anyhow::Error::new)?)
}

/// `landfall master-target`.
pub(super) async fn master_target(args: MasterTargetArgs) -> Result<(), Failure> {
    let shutdown = begin(&args.node.state)?;
    let config = MasterTargetConfig {
        enrolment: enrolment(&args.node, NodeRole::MasterTarget)?,
        state_dir: args.node.state,
        retention_dir: args.retention,
        listen: args.listen,
        disks: args.nbd_listen.map(|listen| DiskListener { listen, names: args.nbd_name }),
        encrypt: args.encrypt,
    };
    let run = landfall_master_target::run(config, shutdown);
    Ok(run.await.map_err(anyhow::Error::new)?)
}

/// What is the same for all: the state directory, the log on standard error, a clean end at SIGTERM
/// and SIGINT.
pub(super) fn begin(state: &Path) -> Result<CancellationToken> {
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let filter =
        EnvFilter::try_from_env("LANDFALL_LOG").or_else(|_| EnvFilter::try_new(LOG_DEFAULT));
    let filter = filter.context("understand LANDFALL_LOG")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only where a program that contains this library has its own.
    let _ = log.with_ansi(false).try_init();
    let shutdown = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut received = signal(kind).context("wait for signals")?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            received.recv().await;
            shutdown.cancel();
        });
    }
    Ok(shutdown)
}

/// What a role tells the configuration server when it registers. The passphrase is used at the
/// first start only.
pub(super) fn enrolment(node: &NodeArgs, role: NodeRole) -> Result<Enrolment> {
    let passphrase = match &node.passphrase_file {
        Some(path) if !path.exists() && enrolled(&node.state) => String::new(),
        Some(path) => fs::read_to_string(path)
            .with_context(|| format!("read the passphrase from {}", path.display()))?,
        None => String::new(),
    };
    Ok(Enrolment {
        server_url: node.server.clone(),
        fingerprint: node.fingerprint.parse().context("--fingerprint")?,
        passphrase: passphrase.trim().to_owned(),
        role,
        name: node.name.clone(),
        address: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn enrolled(state: &Path) -> bool {
    landfall_pki::Credentials::exist(state)
}
