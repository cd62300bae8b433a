//! Promise: a protected machine that restarts, in good order or not, ends up with a replica that is
//! its disk, and everything that was acknowledged as durable stays.
//!
//! The machine is a guest with the real agent; configuration server, process server and master
//! target run beside it, outside.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop there and then")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landfall_guest::{Disk, Guest, Kernel, Spec};
use landfall_testkit::{GUEST_KERNELS, require};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// An emulated processor, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// A loopback address that the guest can be given a route to: its own 127.0.0.1 stays its own.
const HOST: &str = "127.0.0.2:0";
const MACHINE: &str = "web-1";

/// Configuration server, process server and master target.
struct Site {
    dir: TempDir,
    roles: Vec<Child>,
    url: String,
    fingerprint: String,
    passphrase: PathBuf,
    credentials: PathBuf,
}

impl Site {
    fn new() -> Self {
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

    fn path(&self, below: &str) -> PathBuf {
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

    fn landfall(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.arg("--credentials").arg(&self.credentials).args(args).stdin(Stdio::null());
        command
    }

    /// A named point behind everything that was written so far: there is none while a window is
    /// open, so it also waits for the end of a catch-up.
    fn mark(&self, name: &str) {
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
    fn assert_points(&self, names: &[&str]) {
        let output = self.landfall(&["points", MACHINE]).output().unwrap();
        let points = String::from_utf8_lossy(&output.stdout).into_owned();
        for name in names {
            assert!(points.contains(name), "{name} is missing:\n{points}");
        }
    }

    /// The newest point of the disk is the file, byte for byte.
    fn assert_equal(&self, disk: &Path) {
        let copy = self.path("copy.raw");
        let socket = self.path("master-target/nbd.sock");
        let uri = format!("nbd+unix:///{MACHINE}%2F0%40latest?socket={}", socket.display());
        run(Command::new("nbdcopy").arg(uri).arg(&copy));
        let (mine, theirs) = (fs::read(disk).unwrap(), fs::read(&copy).unwrap());
        assert_eq!(mine.len(), theirs.len());
        let differs = mine.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the replica differs from the disk");
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
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// The protected machine: a disk of its own for the system, one that is protected.
struct Machine {
    guest: Guest,
    agent: String,
}

impl Machine {
    fn new(site: &Site) -> Self {
        let kernel = Kernel::find(GUEST_KERNELS[0]).expect("was required");
        let spec = Spec::new(kernel)
            .memory_mib(1536)
            .patience(PATIENCE)
            .module("loop")
            .program(env!("CARGO_BIN_EXE_landfall"))
            .program("mkfs.ext4")
            .file(&site.passphrase, "/etc/passphrase")
            .disk(Disk::blank("system", 64 * MIB))
            .disk(Disk::blank("data", 48 * MIB));
        let mut guest = Guest::boot(spec).unwrap();
        guest.run("mkfs.ext4 -q $(disk system); mkfs.ext4 -q $(disk data)").unwrap();
        let agent = format!(
            "ip address del 127.0.0.1/8 dev lo
ip address add 127.0.0.1/32 dev lo
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
ip route add 127.0.0.2/32 via 10.0.2.2
mkdir -p /system /data
mount $(disk system) /system
mount $(disk data) /data
landfall agent --state /system/agent --instance-file /system/instance --name agent \
--server {} --fingerprint {} --passphrase-file /etc/passphrase >/dev/ttyS0 2>&1 &",
            site.url, site.fingerprint
        );
        let mut machine = Self { guest, agent };
        machine.start_agent();
        machine
    }

    /// What a system does at each start.
    fn start_agent(&mut self) {
        self.guest.run(&self.agent).unwrap();
    }

    fn write(&mut self, name: &str) {
        let script =
            format!("dd if=/dev/urandom of=/data/{name} bs=64k count=40 2>/dev/null; sync");
        self.guest.run(&script).unwrap();
    }

    /// A writer that goes on until the machine ends.
    fn write_on(&mut self) {
        let writer = "while dd if=/dev/urandom of=/data/restless bs=16k count=16 conv=fsync; do :; \
                      done >/dev/null 2>&1 &";
        self.guest.run(writer).unwrap();
    }

    /// Nothing is written any more, but the agent still runs.
    fn rest(&mut self) {
        self.guest.run("umount /data").unwrap();
    }
}

#[test]
fn reboots_resets_and_power_cuts_of_a_protected_machine() {
    let needs = ["root", "loop", "qemu", "guest-kernels", "e2fsprogs", "libnbd"];
    if !require(&needs) {
        return;
    }
    let site = Site::new();
    let mut machine = Machine::new(&site);
    let device = machine.guest.run("disk data").unwrap();
    let protect = ["protect", MACHINE, "--agent", "agent", "--process-server", "process-server"];
    let rest = ["--master-target", "master-target", "--disk", &device, "--marker-interval", "1s"];
    until("the roles report", || {
        let output = site.landfall(&["--output", "json", "servers"]).output().unwrap();
        let servers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        servers.as_array().unwrap().iter().filter(|one| one["in_contact"] == true).count() == 3
    });
    run(&mut site.landfall(&[&protect[..], &rest[..]].concat()));
    machine.write("first");
    site.mark("first");

    machine.guest.reboot().unwrap();
    machine.start_agent();
    machine.write("rebooted");
    site.mark("rebooted");

    machine.write_on();
    machine.guest.reset().unwrap();
    machine.start_agent();
    machine.write("reset");
    site.mark("reset");

    machine.write_on();
    machine.guest.cut_power();
    machine.guest.start().unwrap();
    machine.start_agent();
    machine.write("cut");
    machine.rest();
    site.mark("cut");
    let data = machine.guest.disk_path("data");
    site.assert_equal(&data);
    site.assert_points(&["first", "rebooted", "reset", "cut"]);
}
