//! Step 7: the machine comes home, onto its own disks.

use super::disaster::Elsewhere;
use super::fleet::Fleet;
use super::recovered::mount_after_power_cut;
use super::stage::{MACHINE, Stage};
use crate::host::flush_buffers;
use crate::ledger;
use crate::machine::{HomeDisks, RunningMachine};
use crate::preflight::mib;
use crate::workload::Acknowledged;
use anyhow::{Context as _, Result, bail, ensure};
use landfall_api_client::Client;
use landfall_api_types::resource::JobOutcome;
use landfall_model::MachineState;
use landfall_nbd::Client as NbdClient;
use landfall_types::Lsn;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

/// Bytes that are compared at once.
const COMPARE_BYTES: u32 = 1 << 20;

/// Step 7, up to the commit at home.
pub(super) async fn failback(
    stage: &mut Stage<'_>,
    client: &Client,
    fleet: &Fleet,
    disks: &HomeDisks,
    elsewhere: Elsewhere,
) -> Result<RunningMachine> {
    stage.begin(7, "Failback: the machine is shut down there and comes home");
    let (machine, recovered) = elsewhere;
    let acknowledged = machine.shut_down()?;
    recovered.detach()?;
    let asked = Instant::now();
    let job = stage.finish(client, client.failback(MACHINE).await).await?;
    stage.report.figures.failback_s = Some(asked.elapsed().as_secs_f64());
    let Some(JobOutcome::Released { epoch, lsn, disks: released }) = job.outcome else {
        bail!("the failback released no disks: {:?}", job.outcome);
    };
    stage.say(format!(
        "{} are the machine's own again, at LSN {lsn} in epoch {epoch}",
        released.join(", ")
    ));
    let found = compare(fleet, disks, lsn).await;
    let same =
        stage.check("every block of the home disks is that of the branch they came from", found);
    ensure!(same, "the machine is not started on disks that differ");

    let dir = stage.record.dir.join("home/mount");
    let mounts = mount_after_power_cut(&disks.devices(), &dir).context("mount the home disks")?;
    let ledger = ledger::check(&mounts[0].point, &mounts[1].point).await;
    let found = ledger.and_then(|ledger| complete(ledger, acknowledged));
    stage.check("at home: clean, and the ledger is complete", found);
    let mut machine = RunningMachine::start(&stage.workload("home-again"), mounts)?;
    machine.work(stage.scale.entries / 4)?;
    stage.finish(client, client.commit(MACHINE).await).await?;
    stage.state(client, MachineState::Protected).await?;
    Ok(machine)
}

/// A planned failback loses nothing.
fn complete(ledger: ledger::Ledger, acknowledged: Acknowledged) -> Result<String> {
    ensure!(
        ledger.disk1 == acknowledged.disk1 && ledger.disk2 == acknowledged.disk2,
        "{ledger:?} after a shutdown with {acknowledged:?}"
    );
    Ok(format!("entries 1..={} on both disks, none lost", ledger.disk1))
}

/// Compares each disk, read below any file system, with the read-only view of the branch at `lsn`
/// over NBD.
async fn compare(fleet: &Fleet, disks: &HomeDisks, lsn: Lsn) -> Result<String> {
    let mut bytes = 0;
    for (index, device) in disks.devices().iter().enumerate() {
        let export = format!("{MACHINE}/{index}@{lsn}");
        let client = NbdClient::connect_unix(&fleet.recovery_socket(), &export)
            .await
            .with_context(|| format!("connect to the export {export}"))?;
        bytes += compare_disk(&client, device).await.with_context(|| format!("disk {index}"))?;
        client.disconnect().await;
    }
    Ok(format!("{} compared", mib(bytes)))
}

async fn compare_disk(client: &NbdClient, device: &Path) -> Result<u64> {
    // What this side's cache holds from before is not what is on the disk.
    flush_buffers(device)?;
    let file = File::open(device).with_context(|| format!("open {}", device.display()))?;
    let size = client.info().size;
    let mut ours = vec![0; COMPARE_BYTES as usize];
    let mut at = 0;
    while at < size {
        let length = COMPARE_BYTES.min(u32::try_from(size - at).unwrap_or(COMPARE_BYTES));
        let theirs = client.read(at, length).await?;
        let ours = &mut ours[..length as usize];
        file.read_exact_at(ours, at).with_context(|| format!("read {}", device.display()))?;
        if let Some(differs) = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b) {
            bail!("differs at byte {}", at + differs as u64);
        }
        at += u64::from(length);
    }
    Ok(size)
}
