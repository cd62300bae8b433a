//! A disk that a master target serves over NBD, used as a person would: nbdfuse shows it as a file,
//! a loop device makes it a disk.

use crate::host::{self, Loop, Process, RUN_VARIABLE, start_time};
use crate::wait;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long nbdfuse may take to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to write what it still has.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// An export that is attached as a loop device.
#[derive(Debug)]
pub(crate) struct ServedDisk {
    point: PathBuf,
    child: Child,
    attached: Option<Loop>,
}

impl ServedDisk {
    /// Attaches the export at `uri`; `point` becomes the directory of nbdfuse.
    ///
    /// # Errors
    /// When the server refuses, or a program is missing.
    pub(crate) fn attach(run: &str, uri: &str, point: &Path) -> Result<Self> {
        fs::create_dir_all(point).with_context(|| format!("make {}", point.display()))?;
        let log = point.with_extension("log");
        let log_file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = Command::new("nbdfuse")
            .args([point.as_os_str(), uri.as_ref()])
            .env(RUN_VARIABLE, run)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .context("start nbdfuse: is libnbd-bin installed?")?;
        let mut disk = Self { point: point.to_owned(), child, attached: None };
        let file = point.join("nbd");
        wait::until_blocking(&format!("nbdfuse shows {uri}"), CONNECT_PATIENCE, || {
            if let Some(status) = disk.child.try_wait().context("look at nbdfuse")? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("nbdfuse ended with {status}: {}", said.trim());
            }
            Ok(file.exists().then_some(()))
        })?;
        disk.attached = Some(host::attach(&file)?);
        Ok(disk)
    }

    /// The loop device.
    ///
    /// # Panics
    /// Never: a disk is attached from its making to its end.
    pub(crate) fn device(&self) -> &Path {
        &self.attached.as_ref().expect("attached until `detach` takes the disk").device
    }

    /// Detaches; what was written is durable at the master target when this returns.
    ///
    /// # Errors
    /// When something still uses the device, or nbdfuse does not end.
    pub(crate) fn detach(mut self) -> Result<()> {
        if let Some(attached) = self.attached.take() {
            host::detach(&attached.device)?;
            // The kernel lets go of the file a moment later, and nbdfuse can't be unmounted before.
            wait::until_blocking("the loop device lets go", END_PATIENCE, || {
                Ok(host::loops_under(&self.point)?.is_empty().then_some(()))
            })?;
        }
        // Busy for a moment longer than the loop device is listed.
        wait::until_blocking("nbdfuse can be unmounted", END_PATIENCE, || {
            Ok(host::unmount(&self.point).ok())
        })?;
        let pid = self.child.id();
        if let Some(start) = start_time(pid) {
            let process = Process { pid, start };
            wait::until_blocking("nbdfuse ends", END_PATIENCE, || {
                Ok((!process.is_alive()).then_some(()))
            })?;
        }
        self.child.wait().context("wait for nbdfuse")?;
        Ok(())
    }
}
