//! A protected machine that is this one: a real agent, with a loop disk of its own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::Value;

use crate::site::{MIB, Site, run, until};

/// A protected machine: its agent, its disk, what is mounted from it.
pub(crate) struct Member {
    name: String,
    pub(crate) dir: PathBuf,
    device: String,
    pub(crate) agent: Child,
}

impl Member {
    /// With a disk of so many MiB, and variables of the agent's environment.
    pub(crate) fn new(site: &Site, name: &str, mib: u64, environment: &[(&str, &str)]) -> Self {
        let dir = site.path(name);
        fs::create_dir_all(dir.join("mounted")).unwrap();
        let image = dir.join("disk.img");
        File::create(&image).unwrap().set_len(mib * MIB).unwrap();
        let attach = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
        let device = String::from_utf8(attach.unwrap().stdout).unwrap().trim().to_owned();
        run(Command::new("mkfs.ext4").arg("-q").arg(&device));
        run(Command::new("mount").arg(&device).arg(dir.join("mounted")));
        let log = File::create(dir.join("log")).unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_landfall"))
            .args(["agent", "--name", name, "--server", &site.url, "--unpinned"])
            .args(["--fingerprint", &site.fingerprint, "--passphrase-file"])
            .arg(&site.passphrase)
            .arg("--state")
            .arg(dir.join("state"))
            .arg("--instance-file")
            .arg(dir.join("instance"))
            .arg("--hooks")
            .arg(dir.join("hooks"))
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), dir, device, agent }
    }

    /// What its disk is mounted at.
    pub(crate) fn mounted(&self) -> PathBuf {
        self.dir.join("mounted")
    }

    /// When everybody is there.
    pub(crate) fn protect(&self, site: &Site) {
        let there = |servers: &Value, name: &str| {
            let mut servers = servers.as_array().unwrap().iter();
            servers.any(|one| one["name"] == name && one["in_contact"] == true)
        };
        until("the roles report", || {
            let servers = json(site, &["servers"]);
            [&self.name, "process-server", "master-target"].iter().all(|one| there(&servers, one))
        });
        let args = ["protect", &self.name, "--agent", &self.name, "--process-server"];
        let rest = ["process-server", "--master-target", "master-target"];
        let disk = ["--marker-interval", "1s", "--disk", &self.device];
        run(&mut site.landfall(&[&args[..], &rest[..], &disk[..]].concat()));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let _ = Command::new("umount").arg(self.dir.join("mounted")).status();
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("== {}\n{log}", self.dir.display());
        }
    }
}

/// What a command prints.
pub(crate) fn json(site: &Site, args: &[&str]) -> Value {
    let output = site.landfall(&[&["--output", "json"][..], args].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}
