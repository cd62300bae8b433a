//! The roles as processes: the one binary, started as a person would start it.

use crate::host::{self, Process, RUN_VARIABLE, start_time};
use crate::wait;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a role may take to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a role may take to end.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// The configuration server's `ready.json`: what the other roles need to find and trust it.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct ServerReady {
    /// `https://host:port`.
    pub(crate) url: String,
    /// SHA-256 of the authority's certificate.
    pub(crate) fingerprint: String,
    /// The registration passphrase is in here.
    pub(crate) passphrase_file: PathBuf,
    /// Credentials of an operator.
    pub(crate) operator_credentials: PathBuf,
}

/// A role that runs.
#[derive(Debug)]
pub(crate) struct Role {
    /// As it is registered.
    pub(crate) name: String,
    state: PathBuf,
    log: PathBuf,
    child: Child,
}

/// How roles of a run are started.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    /// The one binary.
    pub(crate) program: PathBuf,
    /// The demo's run.
    pub(crate) run: String,
    /// Their messages go here.
    pub(crate) logs: PathBuf,
}

impl Launcher {
    /// Starts `landfall ROLE --state STATE ARGS…`.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn start(
        &self,
        role: &str,
        name: &str,
        state: &Path,
        args: &[OsString],
    ) -> Result<Role> {
        fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
        fs::create_dir_all(&self.logs).context("make the directory of the logs")?;
        let log = self.logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("open a log")?;
        let child = Command::new(&self.program)
            .arg(role)
            .arg("--state")
            .arg(state)
            .args(args)
            .env(RUN_VARIABLE, &self.run)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("open a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start landfall {role}"))?;
        Ok(Role { name: name.to_owned(), state: state.to_owned(), log, child })
    }
}

impl Role {
    /// Waits until a configuration server answers; what it wrote then.
    ///
    /// # Errors
    /// When it ends instead, or takes too long.
    pub(crate) fn server_ready(&mut self) -> Result<ServerReady> {
        let path = self.state.join("ready.json");
        wait::until_blocking(&format!("{} is ready", self.name), READY_PATIENCE, || {
            self.lives()?;
            Ok(path.exists().then_some(()))
        })?;
        let text = fs::read(path).context("read ready.json")?;
        serde_json::from_slice(&text).context("read ready.json of the configuration server")
    }

    /// SIGKILL; does not wait.
    ///
    /// # Errors
    /// When it can't be killed.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))
    }

    /// Waits until a killed role is gone.
    ///
    /// # Errors
    /// Of the operating system.
    pub(crate) fn reap(mut self) -> Result<()> {
        self.child.wait().with_context(|| format!("wait for {}", self.name)).map(drop)
    }

    /// Ends it as a service manager would. True when it ended by itself in time.
    ///
    /// # Errors
    /// When it can't be ended.
    pub(crate) fn stop(mut self) -> Result<bool> {
        let pid = self.child.id();
        let by_itself = match start_time(pid) {
            Some(start) => host::terminate(Process { pid, start }, END_PATIENCE)?,
            None => true,
        };
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(by_itself)
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// Its status, and the end of its log.
    pub(crate) fn lives(&mut self) -> Result<()> {
        match self.child.try_wait().context("look at a role")? {
            Some(status) => {
                bail!("{} ended by itself with {status}: {}", self.name, last_lines(&self.log))
            }
            None => Ok(()),
        }
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
