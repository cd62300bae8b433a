//! Steps 1 to 3: a machine, the roles, the first copy.

use super::fleet::{Fleet, HOME_AGENT, HOME_PS, RECOVERY_MT};
use super::stage::{MACHINE, Stage, told};
use crate::filesystem;
use crate::machine::{HomeDisks, RunningMachine};
use crate::preflight::mib;
use crate::wait;
use anyhow::{Result, ensure};
use landfall_api_client::Client;
use landfall_api_types::request::Protect;
use landfall_api_types::resource::Health;
use landfall_model::MachineState;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Largest RPO that the demo accepts while nothing is wrong: some markers.
const RPO_MARKERS_MAX: f64 = 5.0;

/// Step 1: two disks, and a workload that does not stop for what follows.
pub(super) fn make_machine(stage: &mut Stage<'_>) -> Result<(HomeDisks, RunningMachine)> {
    stage.begin(1, "A machine with two disks");
    let dir = stage.record.dir.join("home");
    let disks = HomeDisks::make(&dir.join("disks"), stage.scale.disk_bytes, stage.seed)?;
    let mut mounts = Vec::new();
    for (device, n) in disks.devices().iter().zip(1..) {
        mounts.push(filesystem::mount(device, &dir.join("mount").join(n.to_string()))?);
    }
    std::fs::create_dir_all(stage.record.dir.join("logs"))?;
    let plan = stage.workload("home");
    let mode = plan.journal_mode;
    let machine = RunningMachine::start(&plan, mounts)?;
    let names = paths(&disks.devices());
    let size = mib(stage.scale.disk_bytes);
    stage.say(format!(
        "{} of {size} each, ext4; a workload writes its ledger ({mode:?})",
        names.join(", ")
    ));
    stage.report.figures.disks_bytes = Some(2 * stage.scale.disk_bytes);
    Ok((disks, machine))
}

/// Step 2: the roles of both sites.
pub(super) async fn start_roles(stage: &mut Stage<'_>) -> Result<(Fleet, Client)> {
    stage.begin(2, "The roles, as processes of the one binary, with mutual TLS");
    let (fleet, client) = Fleet::start(stage).await?;
    for server in client.servers().await.map_err(told)? {
        let address = server.address.unwrap_or_else(|| "no listener".to_owned());
        stage.say(format!("{}: {address}", server.name));
    }
    Ok((fleet, client))
}

/// Step 3: first copy while the workload writes, then continuous replication.
pub(super) async fn protect(
    stage: &mut Stage<'_>,
    client: &Client,
    disks: &HomeDisks,
    machine: &mut RunningMachine,
) -> Result<()> {
    stage.begin(3, "Protect: the first copy, while the workload writes");
    let before = machine.acknowledged()?;
    let started = Instant::now();
    let request = Protect {
        name: MACHINE.to_owned(),
        agent: HOME_AGENT.to_owned(),
        process_server: HOME_PS.to_owned(),
        master_target: RECOVERY_MT.to_owned(),
        disks: paths(&disks.devices()),
        images: Vec::new(),
        marker_interval_ms: Some(stage.scale.marker_interval_ms),
        policy: None,
        encrypt: stage.key.clone(),
    };
    stage.finish(client, client.protect(&request).await).await?;
    let protected = stage.state(client, MachineState::Protected).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let sent = protected.catch_up.as_ref().map_or(0, |catch_up| catch_up.progress.sent_bytes);
    stage.report.figures.first_copy_bytes = Some(sent);
    stage.report.figures.first_copy_s = Some(elapsed);
    let worked = machine.acknowledged()?.disk2 - before.disk2;
    stage.say(format!(
        "first copy: {} in {elapsed:.1} s, {worked} entries written meanwhile",
        mib(sent)
    ));
    if let Some(key) = stage.key.clone() {
        let found = protected.encryption.clone();
        let told = found.clone().unwrap_or_else(|| "not encrypted".to_owned());
        stage.check(
            "the replica is encrypted",
            if found == Some(key) { Ok(told) } else { Err(anyhow::anyhow!(told)) },
        );
    }
    if let Some((mode, reason)) = &protected.capture {
        stage.say(format!("capture: {mode:?} ({reason})"));
    }
    rpo_is_shown(stage, client).await?;
    stage.refused("commit without failover", client.commit(MACHINE).await, &["wrong-state"]);
    stage.refused("failback without reprotect", client.failback(MACHINE).await, &["wrong-state"]);
    Ok(())
}

/// Replication is healthy, and the RPO shown is that of a machine whose markers come every few
/// seconds (trap T-18).
pub(super) async fn rpo_is_shown(stage: &mut Stage<'_>, client: &Client) -> Result<f64> {
    let limit = RPO_MARKERS_MAX * (stage.scale.marker_interval_ms as f64) / 1000.0;
    let rpo = wait::until("the RPO is that of replication", Duration::from_secs(60), || async {
        let machine = client.machine(MACHINE).await.map_err(told)?;
        let rpo = machine.rpo_s.filter(|_| machine.health == Health::Healthy);
        Ok(rpo.filter(|rpo| *rpo <= limit))
    })
    .await;
    let found = match &rpo {
        Ok(rpo) => Ok(format!("{rpo:.1} s")),
        Err(_) => {
            Err(anyhow::anyhow!("not healthy with an RPO of at most {limit} s within a minute"))
        }
    };
    stage.check(&format!("the RPO shown is at most {limit} s"), found);
    let rpo = rpo?;
    ensure!(rpo >= 0.0, "an RPO below 0: {rpo}");
    Ok(rpo)
}

/// The devices of the home disks, as the API wants them.
pub(super) fn paths(devices: &[PathBuf]) -> Vec<String> {
    devices.iter().map(|path| path.display().to_string()).collect()
}
