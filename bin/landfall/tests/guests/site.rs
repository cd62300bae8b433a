//! What stands beside a guest: configuration server, process server and master target.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;
/// An emulated processor, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// A loopback address that the guest can be given a route to: its own 127.0.0.1 stays its own.
const HOST: &str = "127.0.0.2:0";
pub(crate) const MACHINE: &str = "web-1";

/// Configuration server, process server and master target.
pub(crate) struct Site {
    dir: TempDir,
    roles: Vec<Child>,
    pub(crate) url: String,
    pub(crate) fingerprint: String,
    pub(crate) passphrase: PathBuf,
    credentials: PathBuf,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut site = Self {
            dir,
            roles: Vec::new(),
            url: String::new(),
            fingerprint: String::new(),
            passphrase: PathBuf::new(),
            credentials: PathBuf::new(),
        };
        site.make_volume();
        site.start("server", &["--listen", HOST]);
        let ready = site.path("server/ready.json");
        until("the configuration server is ready", || ready.exists());
        let ready: serde_json::Value = serde_json::from_slice(&fs::read(ready).unwrap()).unwrap();
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        site.url = text("url");
        site.fingerprint = text("fingerprint");
        site.passphrase = text("passphrase_file").into();
        site.credentials = text("operator_credentials").into();
        let retention = site.path("retention").display().to_string();
        site.start("process-server", &["--listen", HOST]);
        site.start("master-target", &["--listen", HOST, "--retention", &retention]);
        site
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A master target wants a volume of its own (RQ-RV-1).
    fn make_volume(&self) {
        let (image, point) = (self.path("retention.img"), self.path("retention"));
        File::create(&image).unwrap().set_len(1024 * MIB).unwrap();
        fs::create_dir(&point).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point));
    }

    fn start(&mut self, role: &str, args: &[&str]) {
        let log = File::create(self.path(&format!("{role}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.arg(role).arg("--state").arg(self.path(role)).args(args);
        if role != "server" {
            command.args(["--name", role, "--server", &self.url]);
            command.args(["--fingerprint", &self.fingerprint, "--passphrase-file"]);
            command.arg(&self.passphrase);
        }
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.roles.push(child);
    }

    pub(crate) fn landfall(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.arg("--credentials").arg(&self.credentials).args(args).stdin(Stdio::null());
        command
    }

    /// A named point behind everything that was written so far: there is none while a window is
    /// open, so it also waits for the end of a catch-up.
    pub(crate) fn mark(&self, name: &str) {
        let mut said = String::new();
        until(&format!("the point {name}"), || {
            let output = self.landfall(&["mark", MACHINE, name]).output().unwrap();
            let now = String::from_utf8_lossy(&output.stderr).into_owned();
            if now.lines().next() != said.lines().next() {
                eprintln!("{name}: {now}");
                said = now;
            }
            output.status.success()
        });
    }

    /// No restart has cost a point that was durable.
    pub(crate) fn assert_points(&self, names: &[&str]) {
        let output = self.landfall(&["points", MACHINE]).output().unwrap();
        let points = String::from_utf8_lossy(&output.stdout).into_owned();
        for name in names {
            assert!(points.contains(name), "{name} is missing:\n{points}");
        }
    }

    /// Protects disks of the agent, when all roles report.
    pub(crate) fn protect(&self, disks: &[&str]) {
        until("the roles report", || {
            let output = self.landfall(&["--output", "json", "servers"]).output().unwrap();
            let servers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let servers = servers.as_array().unwrap().iter();
            servers.filter(|one| one["in_contact"] == true).count() == 3
        });
        let agent = ["protect", MACHINE, "--agent", "agent", "--process-server", "process-server"];
        let rest = ["--master-target", "master-target", "--marker-interval", "1s"];
        let mut command = self.landfall(&[&agent[..], &rest[..]].concat());
        for disk in disks {
            command.args(["--disk", disk]);
        }
        run(&mut command);
    }

    /// The newest point of the disk with this index is the file, byte for byte.
    pub(crate) fn assert_equal(&self, index: usize, disk: &Path) {
        let copy = self.path("copy.raw");
        let socket = self.path("master-target/nbd.sock");
        let socket = socket.display();
        let uri = format!("nbd+unix:///{MACHINE}%2F{index}%40latest?socket={socket}");
        run(Command::new("nbdcopy").arg(uri).arg(&copy));
        let (mine, theirs) = (fs::read(disk).unwrap(), fs::read(&copy).unwrap());
        assert_eq!(mine.len(), theirs.len());
        let differs = mine.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the replica of {} differs", disk.display());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for role in self.roles.iter_mut().rev() {
            let _ = role.kill();
            let _ = role.wait();
        }
        let _ = Command::new("umount").arg(self.path("retention")).status();
        if std::thread::panicking() {
            for role in ["server", "process-server", "master-target"] {
                let log = fs::read_to_string(self.path(&format!("{role}.log"))).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(15).collect();
                eprintln!("== {role}");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Looks at `condition` until it holds; each look is a program that runs, or costs next to nothing.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
