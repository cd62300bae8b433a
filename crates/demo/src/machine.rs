//! The machine that is protected: two disks with ext4 and the workload, at home on loop devices, at
//! the recovery site on the disks of a branch.

use crate::dice::Dice;
use crate::filesystem::{self, Mounted};
use crate::host::{self, Loop, Process, RUN_VARIABLE, start_time};
use crate::ledger::JournalMode;
use crate::wait;
use crate::workload::Acknowledged;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Share of a disk that is filled with files before it is protected, in percent: what a first copy
/// must carry and the way home must not.
const FILLED_PERCENT: u64 = 35;
/// Length of each of these files.
const FILLING_BYTES: u64 = 4 << 20;
/// How long a workload may take to finish its entry and close its database.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// The disks at home: files, and loop devices while the machine is there.
#[derive(Debug)]
pub(crate) struct HomeDisks {
    images: [PathBuf; 2],
    attached: Vec<Loop>,
}

impl HomeDisks {
    /// Makes two disks with file systems that hold files.
    ///
    /// # Errors
    /// Of the file system or the programs.
    pub(crate) fn make(dir: &Path, bytes: u64, seed: u64) -> Result<Self> {
        fs::create_dir_all(dir).context("make the directory of the disks")?;
        let images = [dir.join("disk1.img"), dir.join("disk2.img")];
        for image in &images {
            let file = File::create(image).context("make a disk")?;
            file.set_len(bytes).context("make a disk")?;
            filesystem::make(image)?;
        }
        let mut disks = Self { images, attached: Vec::new() };
        disks.attach()?;
        for (index, device) in disks.devices().iter().enumerate() {
            let mounted = filesystem::mount(device, &dir.join("filling"))?;
            fill(
                &mounted.point,
                bytes * FILLED_PERCENT / 100,
                Dice::new(seed, &format!("disk {index}")),
            )?;
            mounted.unmount()?;
        }
        Ok(disks)
    }

    /// Attaches the disks to loop devices; perhaps others than before.
    ///
    /// # Errors
    /// Of losetup.
    pub(crate) fn attach(&mut self) -> Result<()> {
        ensure!(self.attached.is_empty(), "the disks are attached");
        for image in &self.images {
            self.attached.push(host::attach(image)?);
        }
        Ok(())
    }

    /// Detaches the disks and waits until the kernel has let go of them.
    ///
    /// # Errors
    /// Of losetup, or when something still uses them.
    pub(crate) fn detach(&mut self) -> Result<()> {
        for attached in self.attached.drain(..) {
            host::detach(&attached.device)?;
        }
        let dir = self.images[0].parent().context("disks have a directory")?;
        wait::until_blocking("the kernel lets go of the disks", Duration::from_secs(20), || {
            Ok(host::loops_under(dir)?.is_empty().then_some(()))
        })
    }

    /// `/dev/loopN` of both.
    pub(crate) fn devices(&self) -> Vec<PathBuf> {
        self.attached.iter().map(|attached| attached.device.clone()).collect()
    }
}

fn fill(point: &Path, bytes: u64, mut dice: Dice) -> Result<()> {
    let dir = point.join("filling");
    fs::create_dir_all(&dir).context("fill a disk")?;
    let mut buf = vec![0; usize::try_from(FILLING_BYTES).expect("a few MiB")];
    for number in 0..bytes / FILLING_BYTES {
        dice.fill(&mut buf);
        let mut file = File::create(dir.join(format!("{number:04}"))).context("fill a disk")?;
        file.write_all(&buf).and_then(|()| file.sync_all()).context("fill a disk")?;
    }
    Ok(())
}

/// How a workload is to be.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadPlan {
    /// The one binary.
    pub(crate) program: PathBuf,
    /// The demo's run.
    pub(crate) run: String,
    /// The demo's seed.
    pub(crate) seed: u64,
    /// By seed.
    pub(crate) journal_mode: JournalMode,
    /// Its messages go here.
    pub(crate) log: PathBuf,
    /// What it acknowledged goes here.
    pub(crate) acknowledged: PathBuf,
}

/// A machine that is up: its file systems mounted and its workload running.
#[derive(Debug)]
pub(crate) struct RunningMachine {
    mounts: Vec<Mounted>,
    workload: Child,
    acknowledged: PathBuf,
    log: PathBuf,
}

impl RunningMachine {
    /// Starts the workload on mounted disks and waits until it has acknowledged an entry of its
    /// own.
    ///
    /// # Errors
    /// When the workload ends.
    pub(crate) fn start(plan: &WorkloadPlan, mounts: Vec<Mounted>) -> Result<Self> {
        let [disk1, disk2] = &mounts[..] else { bail!("a machine has two disks") };
        let log =
            File::options().create(true).append(true).open(&plan.log).context("open a log")?;
        let mode = match plan.journal_mode {
            JournalMode::Wal => "wal",
            JournalMode::Delete => "delete",
        };
        let mut command = Command::new(&plan.program);
        command.arg("demo-workload");
        command.arg("--disk1").arg(&disk1.point).arg("--disk2").arg(&disk2.point);
        command.arg("--acknowledged").arg(&plan.acknowledged);
        command.args(["--seed", &plan.seed.to_string(), "--journal-mode", mode]);
        command.env(RUN_VARIABLE, &plan.run).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let _ = fs::remove_file(&plan.acknowledged);
        let workload = command.spawn().context("start the workload")?;
        let (acknowledged, log) = (plan.acknowledged.clone(), plan.log.clone());
        let mut machine = Self { mounts, workload, acknowledged, log };
        // What it finds is acknowledged at once; the entry after that is its own.
        let first = machine.wait_for("the workload starts", |_| true)?;
        machine.wait_for("the workload goes on", |now| now.disk2 > first.disk2)?;
        Ok(machine)
    }

    /// What it has acknowledged so far.
    ///
    /// # Errors
    /// When there is nothing, or the workload has ended by itself.
    pub(crate) fn acknowledged(&mut self) -> Result<Acknowledged> {
        self.lives()?;
        Acknowledged::read(&self.acknowledged)?.context("the workload has acknowledged nothing")
    }

    fn wait_for(
        &mut self,
        what: &str,
        is_so: impl Fn(&Acknowledged) -> bool,
    ) -> Result<Acknowledged> {
        wait::until_blocking(what, Duration::from_secs(60), || {
            self.lives()?;
            Ok(Acknowledged::read(&self.acknowledged)?.filter(|now| is_so(now)))
        })
    }

    fn lives(&mut self) -> Result<()> {
        let Some(status) = self.workload.try_wait().context("look at the workload")? else {
            return Ok(());
        };
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        bail!("the workload ended with {status}: {}", said.trim());
    }

    /// Waits until `count` more entries are acknowledged on both disks.
    ///
    /// # Errors
    /// When the workload stands still for a minute, or has ended.
    pub(crate) fn work(&mut self, count: u64) -> Result<Acknowledged> {
        let until = self.acknowledged()?.disk2 + count;
        self.wait_for(&format!("the workload has acknowledged entry {until}"), |now| {
            now.disk2 >= until
        })
    }

    /// Shuts the machine down: the workload ends by itself, the file systems are unmounted. What it
    /// acknowledged, all of it on both disks.
    ///
    /// # Errors
    /// When the workload failed, or a file system can't be unmounted.
    pub(crate) fn shut_down(mut self) -> Result<Acknowledged> {
        self.lives()?;
        if let Some(start) = start_time(self.workload.id()) {
            host::terminate(Process { pid: self.workload.id(), start }, END_PATIENCE)?;
        }
        let status = self.workload.wait().context("wait for the workload")?;
        if !status.success() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the workload ended with {status}: {}", said.trim());
        }
        for mounted in &self.mounts {
            mounted.unmount()?;
        }
        Acknowledged::read(&self.acknowledged)?.context("the workload has acknowledged nothing")
    }

    /// First half of a disaster: SIGKILL in the middle of the work.
    ///
    /// # Errors
    /// When the process can't be killed.
    pub(crate) fn kill_workload(&mut self) -> Result<()> {
        self.workload.kill().context("kill the workload")
    }

    /// Second half: the file systems stop dead, whatever the kernel still had in memory. What was
    /// acknowledged before.
    ///
    /// # Errors
    /// Of the programs.
    pub(crate) fn stop_dead(mut self) -> Result<Acknowledged> {
        self.workload.wait().context("wait for the workload")?;
        for mounted in &self.mounts {
            mounted.abort()?;
        }
        for mounted in &self.mounts {
            mounted.unmount()?;
        }
        Acknowledged::read(&self.acknowledged)?.context("the workload has acknowledged nothing")
    }
}
