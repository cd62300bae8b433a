//! A machine whose agent keeps its bitmap over a restart (trap T-16), all disks protected, the one
//! that the agent's own state lies on too: what a root disk is.
//!
//! The guest does by hand what systemd and the initramfs of a distribution do.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use landfall_guest::{Disk, Guest, Kernel, Spec};
use landfall_testkit::{GUEST_KERNELS, require};
use serde_json::Value;

use crate::site::{MACHINE, MIB, PATIENCE, Site, run, until};

const PLACE: &str = "--state /system/agent --instance-file /run/landfall/instance";

struct Machine<'a> {
    site: &'a Site,
    guest: Guest,
}

impl<'a> Machine<'a> {
    fn new(site: &'a Site) -> Self {
        let kernel = Kernel::find(GUEST_KERNELS[0]).expect("was required");
        let spec = Spec::new(kernel)
            .memory_mib(1536)
            .patience(PATIENCE)
            .module("loop")
            .program(env!("CARGO_BIN_EXE_landfall"))
            .programs(["mkfs.ext4", "fsfreeze"])
            .file(&site.passphrase, "/etc/passphrase")
            .disk(Disk::blank("system", 64 * MIB))
            .disk(Disk::blank("data", 96 * MIB));
        let mut guest = Guest::boot(spec).unwrap();
        guest.run("mkfs.ext4 -q $(disk system); mkfs.ext4 -q $(disk data)").unwrap();
        Self { site, guest }
    }

    /// What a system does at each start: watch; the root read-only; what was kept; the root for
    /// writing; everything else.
    fn start_up(&mut self) -> String {
        let network = "ip address del 127.0.0.1/8 dev lo
ip address add 127.0.0.1/32 dev lo
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
ip route add 127.0.0.2/32 via 10.0.2.2
mkdir -p /system /data";
        self.guest.run(network).unwrap();
        let said = self
            .guest
            .run(&format!(
                "landfall agent restart watch {PLACE} || true
mount -o ro $(disk system) /system
landfall agent restart restore {PLACE} 2>&1 || true
mount -o remount,rw /system
mount $(disk data) /data"
            ))
            .unwrap();
        self.guest
            .run(&format!(
            "landfall agent {PLACE} --name agent --server {} --fingerprint {} --passphrase-file \
             /etc/passphrase >/dev/ttyS0 2>&1 &
cat >/run/at-leave <<'end'
#!/bin/sh
mount -o ro $(disk system) /system
landfall agent restart save {PLACE}
umount /system
end
chmod +x /run/at-leave",
            self.site.url, self.site.fingerprint
        ))
            .unwrap();
        eprintln!("{said}");
        said
    }

    fn write(&mut self, name: &str) {
        let script = format!(
            "for dir in /data /system; do
dd if=/dev/urandom of=$dir/{name} bs=64k count=20 2>/dev/null; done; sync"
        );
        self.guest.run(&script).unwrap();
    }

    /// How the newest window was made up for: `copy` (of what was dirty) or `compare`, and the
    /// bytes sent.
    fn caught_up(&mut self) -> (String, u64) {
        let mut found = None;
        until("the catch-up is over", || {
            let status = "landfall --output json agent status --instance-file \
                          /run/landfall/instance";
            let Ok(text) = self.guest.run(status) else { return false };
            let report: Value = serde_json::from_str(&text).unwrap();
            let catch_up = &report["agent"]["catch_up"];
            found = Some(catch_up.clone());
            catch_up["finished"] == true
        });
        let found = found.unwrap();
        let mode = found["mode"].as_str().unwrap().to_owned();
        (mode, found["progress"]["sent_bytes"].as_u64().unwrap())
    }

    /// Both replicas are the disks, byte for byte, while nothing is written.
    fn assert_equal(&mut self) {
        // An agent whose state is frozen carries out no orders: markers come by themselves.
        self.guest.run("umount /data; fsfreeze -f /system").unwrap();
        let now: u64 = self.guest.run("date +%s").unwrap().trim().parse().unwrap();
        until("a point behind all writes", || {
            let points = self.site.landfall(&["--output", "json", "points", MACHINE]).output();
            let points: Value = serde_json::from_slice(&points.unwrap().stdout).unwrap();
            let newest = points["points"].as_array().unwrap().iter();
            let newest = newest.filter_map(|one| one["time"].as_u64());
            newest.max().is_some_and(|time| time / 1_000_000_000 > now)
        });
        for (index, disk) in ["system", "data"].into_iter().enumerate() {
            self.site.assert_equal(index, &self.guest.disk_path(disk));
        }
        self.guest.run("fsfreeze -u /system; mount $(disk data) /data").unwrap();
    }

    fn copies(&self, to: &Path) {
        for disk in ["system", "data"] {
            fs::copy(self.guest.disk_path(disk), to.join(disk)).unwrap();
        }
    }

    fn put_back(&self, from: &Path) {
        for disk in ["system", "data"] {
            fs::copy(from.join(disk), self.guest.disk_path(disk)).unwrap();
        }
    }
}

/// Somebody else's machine has the disk and writes a file.
fn write_elsewhere(disk: &Path, dir: &Path) {
    let mounted = dir.join("elsewhere");
    fs::create_dir(&mounted).unwrap();
    run(Command::new("mount").args(["-o", "loop"]).arg(disk).arg(&mounted));
    fs::write(mounted.join("foreign"), vec![7; 100_000]).unwrap();
    run(Command::new("umount").arg(&mounted));
    File::open(disk).unwrap().sync_all().unwrap();
}

/// T-16: what was kept counts once, and only for disks that were not written meanwhile.
#[test]
fn t16_a_restart_in_good_order_sends_what_was_dirty_and_any_other_compares() {
    let needs = ["root", "loop", "qemu", "guest-kernels", "e2fsprogs", "libnbd"];
    if !require(&needs) {
        return;
    }
    let site = Site::new();
    let mut machine = Machine::new(&site);
    machine.start_up();
    let device = |name: &str, machine: &mut Machine<'_>| {
        machine.guest.run(&format!("disk {name}")).unwrap().trim().to_owned()
    };
    let (system, data) = (device("system", &mut machine), device("data", &mut machine));
    site.protect(&[&system, &data]);
    machine.write("first");
    site.mark("first");

    // In good order. What is written while services end is not sent by anybody: it is dirty.
    machine.write("late");
    machine.guest.reboot().unwrap();
    assert!(machine.start_up().contains("counts for 2 of 2 disks"));
    site.mark("restarted");
    let (mode, sent) = machine.caught_up();
    assert_eq!(mode, "copy");
    assert!(sent < 32 * MIB, "{sent} bytes were sent, of 160 MiB");
    machine.assert_equal();

    // Put back to a state whose bitmap was used already: the target knows a later life.
    machine.guest.power_off().unwrap();
    let old = tempfile::tempdir_in("/var/tmp").unwrap();
    machine.copies(old.path());
    machine.guest.start().unwrap();
    machine.start_up();
    machine.write("undone");
    site.mark("undone");
    assert_eq!(machine.caught_up().0, "copy");
    machine.guest.cut_power();
    machine.put_back(old.path());
    machine.guest.start().unwrap();
    machine.start_up();
    site.mark("put-back");
    assert_eq!(machine.caught_up().0, "compare");
    machine.assert_equal();

    // Written by somebody else while the machine was off.
    machine.guest.power_off().unwrap();
    write_elsewhere(&machine.guest.disk_path("data"), old.path());
    machine.guest.start().unwrap();
    assert!(machine.start_up().contains("counts for 1 of 2 disks"));
    site.mark("foreign");
    assert_eq!(machine.caught_up().0, "compare");
    machine.assert_equal();
    site.assert_points(&["first", "restarted", "undone", "put-back", "foreign"]);
}
