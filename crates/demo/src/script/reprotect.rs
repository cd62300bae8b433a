//! Step 6: home is back, with what it wrote after the point; the log goes the other way.

use super::disaster::Elsewhere;
use super::fleet::{Fleet, HOME_MT, RECOVERY_PS};
use super::protect::paths;
use super::stage::{MACHINE, Stage, told};
use crate::host::flush_buffers;
use crate::machine::HomeDisks;
use crate::preflight::mib;
use anyhow::{Context as _, Result, ensure};
use landfall_api_client::Client;
use landfall_api_types::request::Reprotect;
use landfall_api_types::resource::{Divergence, Machine};
use landfall_model::MachineState;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The way home must need less than this share of the disks.
const SENT_SHARE_MAX: f64 = 0.5;

/// Step 6, up to the state reprotected.
pub(super) async fn reprotect(
    stage: &mut Stage<'_>,
    client: &Client,
    fleet: &mut Fleet,
    disks: &mut HomeDisks,
    elsewhere: &mut Elsewhere,
) -> Result<()> {
    stage.begin(6, "Reprotect to the original disks, while the workload goes on");
    disks.attach()?;
    let devices = disks.devices();
    let untouched = fingerprint(&devices)?;
    fleet.start_home(client).await?;
    let before = elsewhere.0.acknowledged()?;
    let mut ask = Reprotect {
        process_server: RECOVERY_PS.to_owned(),
        master_target: HOME_MT.to_owned(),
        disks: paths(&devices),
        discard_divergence: Vec::new(),
        dry_run: false,
    };
    let estimate = client.reprotect_estimate(MACHINE, &ask).await.map_err(told)?;
    let total = mib(estimate.total_bytes);
    stage.say(format!(
        "estimate: {} of {total} ({})",
        mib(estimate.estimate_bytes),
        estimate.uncertainty
    ));
    stage.report.figures.way_home_estimate_bytes = Some(estimate.estimate_bytes);
    for one in &estimate.divergence {
        stage.say(format!("diverged: {}", shown(one)));
    }
    let refused = client.reprotect(MACHINE, &ask).await;
    stage.refused("reprotect over what diverged", refused, &["divergence-kept"]);

    ask.discard_divergence = estimate.divergence.into_iter().map(|one| one.name).collect();
    stage.say(format!("discarded by name: {}", ask.discard_divergence.join(", ")));
    stage.finish(client, client.reprotect(MACHINE, &ask).await).await?;
    let machine = stage.state(client, MachineState::Reprotected).await?;
    let found = sent(stage, &machine);
    stage.check("far less than the disks was sent", found);
    let found = match fingerprint(&devices)? == untouched {
        true => Ok("the same bytes as before".to_owned()),
        false => Err(anyhow::anyhow!("they were written to")),
    };
    stage.check("the disks at home are untouched until the failback (T-15)", found);
    let worked = elsewhere.0.work(stage.scale.entries / 4)?.disk2 - before.disk2;
    stage.say(format!("{worked} entries were written meanwhile at the recovery site"));
    Ok(())
}

fn shown(one: &Divergence) -> String {
    format!("{:?} at {}: {}, {}", one.name, one.server, one.description, mib(one.written_bytes))
}

fn sent(stage: &mut Stage<'_>, machine: &Machine) -> Result<String> {
    let catch_up = machine.catch_up.as_ref().context("status shows no catch-up")?;
    let sent = catch_up.progress.sent_bytes;
    stage.report.figures.way_home_bytes = Some(sent);
    let total = 2 * stage.scale.disk_bytes;
    let share = sent as f64 / total as f64;
    let found = format!("{} of {}, {:.1} %", mib(sent), mib(total), share * 100.0);
    ensure!(sent > 0, "nothing was sent, though both sides wrote");
    ensure!(share < SENT_SHARE_MAX, "{found}");
    Ok(found)
}

/// A hash of the whole content of devices.
fn fingerprint(devices: &[PathBuf]) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for device in devices {
        hash_into(&mut hasher, device)?;
    }
    Ok(hasher.finalize())
}

fn hash_into(hasher: &mut blake3::Hasher, device: &Path) -> Result<()> {
    flush_buffers(device)?;
    let file = File::open(device).with_context(|| format!("open {}", device.display()))?;
    hasher.update_reader(file).with_context(|| format!("read {}", device.display()))?;
    Ok(())
}
