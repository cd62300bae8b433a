use super::stage::{Stage, told};
use crate::filesystem;
use crate::host;
use crate::roles::{Launcher, Role, ServerReady};
use crate::wait;
use crate::workload::now_ns;
use anyhow::{Context as _, Result};
use landfall_api_client::Client;
use landfall_api_types::resource::Server;
use landfall_types::InstanceId;
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names under which the roles register.
pub(super) const SERVER: &str = "configuration-server";
pub(super) const RECOVERY_PS: &str = "process-server-recovery";
pub(super) const RECOVERY_MT: &str = "master-target-recovery";
pub(super) const HOME_PS: &str = "process-server-home";
pub(super) const HOME_MT: &str = "master-target-home";
pub(super) const HOME_AGENT: &str = "agent-home";

/// All roles of the run.
#[derive(Debug)]
pub(super) struct Fleet {
    launcher: Launcher,
    dir: PathBuf,
    ready: ServerReady,
    /// Configuration server, process server and master target of the recovery site.
    recovery: Vec<Role>,
    /// Process server, master target and agent at home; empty while home is dead.
    home: Vec<Role>,
}

impl Fleet {
    /// Starts everything, the configuration server first: the others register with it.
    pub(super) async fn start(stage: &mut Stage<'_>) -> Result<(Self, Client)> {
        let launcher = stage.launcher();
        let dir = stage.record.dir.clone();
        for (site, bytes) in
            [("recovery", stage.scale.retention_bytes), ("home", stage.scale.home_retention_bytes)]
        {
            make_volume(
                &dir.join(site).join("retention.img"),
                &dir.join(site).join("retention"),
                bytes,
            )?;
        }
        let state = dir.join("recovery/server");
        let mut server =
            launcher.start("server", SERVER, &state, &["--listen".into(), "127.0.0.1:0".into()])?;
        let ready = server.server_ready()?;
        let client = Client::open(&ready.operator_credentials).map_err(told)?;
        let mut fleet = Self { launcher, dir, ready, recovery: vec![server], home: Vec::new() };
        let ps = fleet.process_server(RECOVERY_PS, "recovery")?;
        fleet.recovery.push(ps);
        let mt = fleet.master_target(RECOVERY_MT, "recovery")?;
        fleet.recovery.push(mt);
        let instance = fleet.dir.join("home/instance");
        fs::write(&instance, InstanceId::generate().to_string()).context("write the instance")?;
        fleet.start_home(&client).await?;
        Ok((fleet, client))
    }

    /// Starts the roles at home, at first and after the disaster, and waits until all of the fleet
    /// report.
    pub(super) async fn start_home(&mut self, client: &Client) -> Result<()> {
        let since = now_ns()?;
        let ps = self.process_server(HOME_PS, "home")?;
        self.home.push(ps);
        let mt = self.master_target(HOME_MT, "home")?;
        self.home.push(mt);
        let mut args = self.common(HOME_AGENT);
        args.extend(["--instance-file".into(), self.dir.join("home/instance").into()]);
        // What dies here has lost its power: nothing of it goes on in the kernel.
        args.push("--unpinned".into());
        let state = self.dir.join("home/agent");
        self.home.push(self.launcher.start("agent", HOME_AGENT, &state, &args)?);
        self.report(client, since).await
    }

    /// SIGKILL for everything at home; all are struck before one is waited for.
    pub(super) fn kill_home(&mut self) -> Result<()> {
        for role in &mut self.home {
            role.kill()?;
        }
        self.home.drain(..).try_for_each(Role::reap)
    }

    /// Waits until every role is registered and has reported since `since`.
    async fn report(&mut self, client: &Client, since: u64) -> Result<()> {
        let reported = |servers: &[Server]| {
            let fresh = |one: &Server| one.last_report.is_some_and(|time| time.0 >= since);
            [RECOVERY_PS, RECOVERY_MT, HOME_PS, HOME_MT, HOME_AGENT].iter().all(|name| {
                servers.iter().any(|one| one.name == *name && one.in_contact && fresh(one))
            })
        };
        let deadline = Duration::from_secs(30);
        let fleet = RefCell::new(self);
        wait::until("all roles report", deadline, || async {
            fleet.borrow_mut().lives()?;
            let servers = client.servers().await.map_err(told)?;
            Ok(reported(&servers).then_some(()))
        })
        .await
    }

    /// Fails when a role ended by itself.
    pub(super) fn lives(&mut self) -> Result<String> {
        let all = self.recovery.iter_mut().chain(&mut self.home);
        let mut count = 0;
        for role in all {
            role.lives()?;
            count += 1;
        }
        Ok(format!("{count} processes"))
    }

    /// Ends all roles in the order in which data flow, so that none complains about another.
    pub(super) fn stop(self) -> Result<String> {
        let mut names = Vec::new();
        for role in self.home.into_iter().rev().chain(self.recovery.into_iter().rev()) {
            let name = role.name.clone();
            anyhow::ensure!(role.stop()?, "{name} did not end when asked, and was killed");
            names.push(name);
        }
        Ok(format!("{} roles ended when asked", names.len()))
    }

    /// The NBD socket of the recovery site's master target.
    pub(super) fn recovery_socket(&self) -> PathBuf {
        self.dir.join("recovery/master-target/nbd.sock")
    }

    /// Credentials for the command line.
    pub(super) fn operator_credentials(&self) -> &Path {
        &self.ready.operator_credentials
    }

    fn process_server(&self, name: &str, site: &str) -> Result<Role> {
        let mut args = self.common(name);
        args.extend(["--listen".into(), "127.0.0.1:0".into()]);
        self.launcher.start(
            "process-server",
            name,
            &self.dir.join(site).join("process-server"),
            &args,
        )
    }

    fn master_target(&self, name: &str, site: &str) -> Result<Role> {
        let mut args = self.common(name);
        args.extend(["--listen".into(), "127.0.0.1:0".into(), "--retention".into()]);
        args.push(self.dir.join(site).join("retention").into());
        self.launcher.start(
            "master-target",
            name,
            &self.dir.join(site).join("master-target"),
            &args,
        )
    }

    fn common(&self, name: &str) -> Vec<OsString> {
        vec![
            "--name".into(),
            name.into(),
            "--server".into(),
            self.ready.url.clone().into(),
            "--fingerprint".into(),
            self.ready.fingerprint.clone().into(),
            "--passphrase-file".into(),
            self.ready.passphrase_file.clone().into(),
        ]
    }
}

/// A volume of its own for a master target's retention (RQ-RV-1).
fn make_volume(image: &Path, point: &Path, bytes: u64) -> Result<()> {
    let parent = image.parent().context("a volume has a directory")?;
    fs::create_dir_all(parent).context("make the directory of a volume")?;
    let file = File::create(image).context("make a volume")?;
    file.set_len(bytes).context("make a volume")?;
    filesystem::make(image)?;
    let attached = host::attach(image)?;
    filesystem::mount(&attached.device, point).map(drop)
}
