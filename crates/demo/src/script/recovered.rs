use super::stage::Stage;
use crate::filesystem::{self, Mounted};
use crate::ledger::{self, Ledger};
use crate::served::ServedDisk;
use anyhow::{Context as _, Result};
use landfall_api_types::resource::Branch;
use landfall_nbd::Client as NbdClient;
use std::path::{Path, PathBuf};

/// The disks of a branch, mounted as a recovered machine would mount them.
#[derive(Debug)]
pub(super) struct Recovered {
    disks: Vec<ServedDisk>,
    mounts: Vec<Mounted>,
}

impl Recovered {
    /// Attaches both disks, replays what a power cut leaves to be replayed, and mounts them if they
    /// are clean then.
    pub(super) fn mount(stage: &Stage<'_>, branch: &Branch) -> Result<Self> {
        let dir = stage.record.dir.join("recovery/branches").join(&branch.name);
        let mut disks = Vec::new();
        for export in &branch.exports {
            let point = dir.join(format!("nbd-{}", export.disk.0));
            disks.push(ServedDisk::attach(&stage.record.id, &export.uri, &point)?);
        }
        let devices: Vec<_> = disks.iter().map(|disk| disk.device().to_owned()).collect();
        let mounts = mount_after_power_cut(&devices, &dir)?;
        Ok(Self { disks, mounts })
    }

    /// Checks the ledger.
    pub(super) async fn ledger(&self) -> Result<Ledger> {
        ledger::check(&self.mounts[0].point, &self.mounts[1].point).await
    }

    /// Where it is mounted.
    pub(super) fn mounts(&self) -> Vec<Mounted> {
        self.mounts.clone()
    }

    /// Unmounts and detaches.
    pub(super) fn unmount(self) -> Result<()> {
        for mounted in &self.mounts {
            mounted.unmount()?;
        }
        self.detach()
    }

    /// Detaches; the file systems have been unmounted.
    pub(super) fn detach(self) -> Result<()> {
        self.disks.into_iter().try_for_each(ServedDisk::detach)
    }
}

/// Replays the journals, checks that the file systems are clean then, and mounts them at `dir`/1
/// and `dir`/2.
pub(super) fn mount_after_power_cut(devices: &[PathBuf], dir: &Path) -> Result<Vec<Mounted>> {
    for device in devices {
        filesystem::replay_journal(device)?;
        filesystem::check_clean(device)?;
    }
    let numbered = devices.iter().zip(1..);
    numbered.map(|(device, n)| filesystem::mount(device, &dir.join(n.to_string()))).collect()
}

/// Reads the first block of the first disk, as the measure of "served".
pub(super) async fn read_first_block(branch: &Branch) -> Result<()> {
    let export = branch.exports.first().context("the branch serves no disk")?;
    let client = NbdClient::connect_unix(Path::new(&export.socket), &export.export).await?;
    client.read(0, 4096).await?;
    client.disconnect().await;
    Ok(())
}
