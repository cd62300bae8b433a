//! A machine whose agent keeps nothing over a restart: every one is answered by a comparison.

use landfall_guest::{Disk, Guest, Kernel, Spec};
use landfall_testkit::{GUEST_KERNELS, require};

use crate::site::{MIB, PATIENCE, Site};

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
    site.protect(&[device.trim()]);
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
    site.assert_equal(0, &data);
    site.assert_points(&["first", "rebooted", "reset", "cut"]);
}
