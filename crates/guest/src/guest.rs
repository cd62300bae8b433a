//! A machine that a test may break.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::console;
use crate::control::{Control, NoAnswer, Output};
use crate::device::Backing;
use crate::error::io_error;
use crate::process::Process;
use crate::qemu::{self, CONSOLE, CONTROL, INITRAMFS, QMP};
use crate::qmp::Qmp;
use crate::spec::Boots;
use crate::{Disk, GuestError, Spec, initramfs};

/// A machine that a test may break: see the crate's documentation.
///
/// It is on after [`Guest::boot`] and [`Guest::start`], off after [`Guest::power_off`] and
/// [`Guest::cut_power`]. Its disks keep their content over all of these; its memory does not.
#[derive(Debug)]
pub struct Guest {
    spec: Spec,
    /// Taken away only when a failed test's files are kept.
    directory: Option<TempDir>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    control: Control,
    qmp: Qmp,
}

impl Guest {
    /// Builds the initramfs and starts a guest.
    ///
    /// # Errors
    /// When something that goes into it is missing here, or it is not up within the spec's
    /// patience.
    pub fn boot(spec: Spec) -> Result<Self, GuestError> {
        let directory = tempfile::Builder::new()
            .prefix("landfall-guest-")
            .tempdir()
            .map_err(io_error("create", "a temporary directory"))?;
        if let Boots::Ours(kernel) = &spec.boots {
            let archive = initramfs::build(&spec, kernel)?;
            let path = directory.path().join(INITRAMFS);
            std::fs::write(&path, archive).map_err(io_error("write", &path))?;
        }
        for disk in &spec.disks {
            prepare(disk, directory.path())?;
        }
        let mut guest = Self { spec, directory: Some(directory), running: None };
        guest.start()?;
        Ok(guest)
    }

    /// Switches the guest on, with the disks as they are.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn start(&mut self) -> Result<(), GuestError> {
        if !qemu::has_kvm() {
            eprintln!("guest: no usable KVM here: the processor is emulated, which is slow");
        }
        let listen = |name: &str| {
            let path = self.directory().join(name);
            // The one of an earlier life.
            let _ = std::fs::remove_file(&path);
            UnixListener::bind(&path).map_err(io_error("listen on", path))
        };
        let (control, qmp) = (listen(CONTROL)?, listen(QMP)?);
        let process =
            Process::start(qemu::command(&self.spec, self.directory()), self.directory())?;
        let connect = |listener: &UnixListener| {
            let stream = process.accept(listener, self.spec.patience);
            stream.map_err(io_error("accept", "QEMU's connection"))
        };
        // In the order in which QEMU connects. A QEMU that dislikes its command line ends during
        // this, and has said why.
        let streams = connect(&control)?.zip(connect(&qmp)?);
        let connected = streams.and_then(|(control, qmp)| Some((control, Qmp::new(qmp).ok()?)));
        let Some((control, qmp)) = connected else {
            let (doing, console) = ("start".to_owned(), self.console());
            return Err(GuestError::Ended { doing, message: process.messages(), console });
        };
        let control = Control::new(control);
        self.running = Some(Running { process, control, qmp });
        self.wait_ready("boot")
    }

    /// Runs `script` by the guest's shell and gives what it printed.
    ///
    /// What should go on after the script's end is started with `&` and its own outputs. The
    /// command `disk NAME` prints the device of a disk.
    ///
    /// # Errors
    /// [`GuestError::Failed`] when it ends with another status than 0, and as
    /// [`Guest::try_run`].
    pub fn run(&mut self, script: &str) -> Result<String, GuestError> {
        self.run_within(self.spec.patience, script)
    }

    /// [`Guest::run`] with another limit than the spec's patience.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_within(&mut self, limit: Duration, script: &str) -> Result<String, GuestError> {
        let output = self.try_run_within(limit, script)?;
        if output.status == 0 {
            return Ok(output.text());
        }
        let (script, status, output) = (script.to_owned(), output.status, output.text());
        Err(GuestError::Failed { script, status, output })
    }

    /// Runs `script`, however it ends.
    ///
    /// # Errors
    /// When there is no answer: [`GuestError::Late`], [`GuestError::Ended`],
    /// [`GuestError::Restarted`], [`GuestError::Off`].
    pub fn try_run(&mut self, script: &str) -> Result<Output, GuestError> {
        self.try_run_within(self.spec.patience, script)
    }

    fn try_run_within(&mut self, limit: Duration, script: &str) -> Result<Output, GuestError> {
        let control = &mut self.running.as_mut().ok_or(GuestError::Off)?.control;
        let answer = control.send(script).and_then(|()| control.answer(limit));
        answer.map_err(|why| self.explain(why, limit, script))
    }

    /// Restarts the guest as `reboot` does: processes are ended, file systems unmounted.
    ///
    /// # Errors
    /// When it is not up again within the spec's patience.
    pub fn reboot(&mut self) -> Result<(), GuestError> {
        self.leave("reboot")?;
        self.wait_ready("reboot")
    }

    /// Presses the reset button: what the guest had in memory is gone.
    ///
    /// # Errors
    /// When it is not up again within the spec's patience.
    pub fn reset(&mut self) -> Result<(), GuestError> {
        self.qmp("system_reset", json!({}))?;
        self.wait_ready("start after a reset")
    }

    /// Switches the guest off as `poweroff` does: processes are ended, file systems unmounted.
    ///
    /// # Errors
    /// When QEMU has not ended within the spec's patience.
    pub fn power_off(&mut self) -> Result<(), GuestError> {
        self.leave("poweroff")?;
        let limit = self.spec.patience;
        let running = self.running.as_mut().ok_or(GuestError::Off)?;
        if !running.process.wait_end(limit) {
            return Err(self.explain(NoAnswer::Late, limit, "power off"));
        }
        self.running = None;
        Ok(())
    }

    /// Cuts the power: QEMU is killed. What it had answered to the guest is in the disks' files.
    pub fn cut_power(&mut self) {
        self.running = None;
    }

    /// Plugs a disk in; the guest finds it by `$(disk NAME)`.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn plug(&mut self, disk: Disk) -> Result<(), GuestError> {
        prepare(&disk, self.directory())?;
        let node = disk.blockdev(self.directory());
        self.qmp("blockdev-add", node)?;
        self.qmp("device_add", disk.device())?;
        self.spec.disks.push(disk);
        Ok(())
    }

    /// Pulls the disk `name` out, and waits until the guest has let it go.
    ///
    /// # Errors
    /// When QEMU refuses or the guest does not let it go.
    ///
    /// # Panics
    /// When there is no such disk.
    pub fn unplug(&mut self, name: &str) -> Result<(), GuestError> {
        let at = self.spec.disks.iter().position(|disk| disk.name == name);
        let disk = self.spec.disks.remove(at.expect("a disk of this guest"));
        let id = format!("disk-{name}");
        self.qmp("device_del", json!({ "id": id }))?;
        self.running.as_mut().ok_or(GuestError::Off)?.qmp.wait_event("DEVICE_DELETED", &id)?;
        self.qmp("blockdev-del", json!({ "node-name": disk.node() }))
    }

    /// Makes the disk `name` larger while the guest uses it.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn resize(&mut self, name: &str, bytes: u64) -> Result<(), GuestError> {
        self.qmp("block_resize", json!({ "node-name": format!("node-{name}"), "size": bytes }))
    }

    /// The file behind the disk `name`.
    ///
    /// # Panics
    /// When there is no such disk.
    #[must_use]
    pub fn disk_path(&self, name: &str) -> PathBuf {
        let disk = self.spec.disks.iter().find(|disk| disk.name == name);
        disk.expect("a disk of this guest").path(self.directory())
    }

    /// The end of the console log.
    #[must_use]
    pub fn console(&self) -> String {
        console::tail(&self.directory().join(CONSOLE))
    }

    fn directory(&self) -> &Path {
        self.directory.as_ref().expect("is taken away only by drop").path()
    }

    fn qmp(&mut self, command: &str, arguments: serde_json::Value) -> Result<(), GuestError> {
        let running = self.running.as_mut().ok_or(GuestError::Off)?;
        running.qmp.execute(command, arguments).map(drop)
    }

    /// Ends the guest's life in good order by `how` (see `leave`), without waiting for it.
    fn leave(&mut self, how: &str) -> Result<(), GuestError> {
        let limit = self.spec.patience;
        let control = &mut self.running.as_mut().ok_or(GuestError::Off)?.control;
        let sent = control.send(&format!("exec leave {how}"));
        sent.map_err(|why| self.explain(why, limit, how))
    }

    fn wait_ready(&mut self, doing: &str) -> Result<(), GuestError> {
        let limit = self.spec.patience;
        let control = &mut self.running.as_mut().ok_or(GuestError::Off)?.control;
        let ready = control.wait_ready(limit);
        ready.map(drop).map_err(|why| self.explain(why, limit, doing))
    }

    fn explain(&mut self, why: NoAnswer, limit: Duration, doing: &str) -> GuestError {
        let (doing, console) = (doing.to_owned(), self.console());
        match why {
            NoAnswer::Late => GuestError::Late { limit, doing, console },
            NoAnswer::Restarted => GuestError::Restarted { console },
            NoAnswer::Garbage(line) => GuestError::Protocol(line),
            NoAnswer::Ended => {
                let message = self.running.take().map(|running| running.process.messages());
                GuestError::Ended { doing, message: message.unwrap_or_default(), console }
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.running = None;
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!(
                "guest: end of the console log:\n{}",
                console::tail(&directory.path().join(CONSOLE))
            );
            eprintln!("guest: kept {}", directory.keep().display());
        }
    }
}

/// Makes the file of a blank disk.
fn prepare(disk: &Disk, directory: &Path) -> Result<(), GuestError> {
    let Backing::Blank(bytes) = disk.backing else { return Ok(()) };
    let path = disk.path(directory);
    let file = File::create(&path).map_err(io_error("create", &path))?;
    file.set_len(bytes).map_err(io_error("extend", path))
}
