//! Promise: a guest does what it is told, keeps its disks over reboots and power cuts, and a test
//! learns what went wrong.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use landfall_guest::{Bus, Disk, Guest, GuestError, Kernel, Spec};
use landfall_testkit::require;

const MIB: u64 = 1 << 20;

fn kernel(name: &str) -> Kernel {
    Kernel::find(name).expect("was required")
}

#[test]
fn reboots_resets_and_power_cuts_keep_the_disks() {
    if !require(&["qemu", "guest-kernels", "e2fsprogs"]) {
        return;
    }
    let kernel = kernel("6.12-cloud");
    let release = kernel.release().to_owned();
    let spec = Spec::new(kernel).program("mkfs.ext4").disk(Disk::blank("data", 64 * MIB));
    let mut guest = Guest::boot(spec).unwrap();
    assert_eq!(guest.run("uname -r").unwrap(), release);
    guest.run("mkfs.ext4 -q $(disk data) && mount $(disk data) /mnt").unwrap();
    guest.run("echo synced >/mnt/a; sync").unwrap();
    guest.run("echo lost >/tmp/x").unwrap();

    guest.run("sleep 1000 >/dev/null 2>&1 &").unwrap();
    guest.run("echo rebooted >/mnt/b").unwrap();
    guest.reboot().unwrap();
    assert!(guest.run("cat /tmp/x").is_err(), "memory is gone");
    guest.run("mount $(disk data) /mnt").unwrap();
    assert_eq!(guest.run("cat /mnt/a /mnt/b").unwrap(), "synced\nrebooted");

    guest.run("echo reset >/mnt/c; sync; echo gone >/mnt/d").unwrap();
    guest.reset().unwrap();
    guest.run("mount $(disk data) /mnt").unwrap();
    assert_eq!(
        guest.run("cat /mnt/c; ls /mnt | tr '\\n' ' '").unwrap(),
        "reset\na b c lost+found "
    );

    guest.run("echo cut >/mnt/e; sync; echo gone >/mnt/f").unwrap();
    guest.cut_power();
    assert!(matches!(guest.run("true"), Err(GuestError::Off)));
    guest.start().unwrap();
    guest.run("mount $(disk data) /mnt && [ -e /mnt/e ] && [ ! -e /mnt/f ]").unwrap();

    guest.run("echo clean >/mnt/g").unwrap();
    guest.power_off().unwrap();
    guest.start().unwrap();
    assert_eq!(guest.run("mount $(disk data) /mnt && cat /mnt/g").unwrap(), "clean");
}

#[test]
fn buses_sector_sizes_and_hot_plug() {
    if !require(&["qemu", "guest-kernels"]) {
        return;
    }
    let spec = Spec::new(kernel("6.1-cloud"))
        .disk(Disk::blank("virtio", 16 * MIB))
        .disk(Disk::blank("scsi", 16 * MIB).bus(Bus::Scsi).sector_bytes(4096))
        .disk(Disk::blank("nvme", 16 * MIB).bus(Bus::Nvme));
    let mut guest = Guest::boot(spec).unwrap();
    let devices = guest.run("for name in virtio scsi nvme; do disk $name; done").unwrap();
    assert_eq!(devices, "/dev/vda\n/dev/sda\n/dev/nvme0n1");
    let sectors = guest.run("cat /sys/block/*d?/queue/logical_block_size").unwrap();
    assert_eq!(sectors, "4096\n512");
    guest.run("echo hello | dd of=$(disk nvme) conv=sync,fsync 2>&1").unwrap();
    let nvme = std::fs::read(guest.disk_path("nvme")).unwrap();
    assert_eq!(&nvme[..6], b"hello\n");

    guest.plug(Disk::blank("late", 8 * MIB)).unwrap();
    assert_eq!(guest.run("disk late").unwrap(), "/dev/vdb");
    guest.resize("late", 24 * MIB).unwrap();
    let wait = "until [ $(cat /sys/block/vdb/size) = 49152 ]; do usleep 10000; done";
    guest.run(wait).unwrap();
    guest.unplug("late").unwrap();
    guest.run("[ ! -e /sys/block/vdb ]").unwrap();
}

#[test]
fn failures_are_told_apart() {
    if !require(&["qemu", "guest-kernels"]) {
        return;
    }
    let mut guest = Guest::boot(Spec::new(kernel("6.12-cloud"))).unwrap();
    let error = guest.run("echo why; exit 7").unwrap_err();
    let GuestError::Failed { status: 7, output, .. } = &error else { panic!("{error}") };
    assert_eq!(output, "why");
    assert_eq!(guest.try_run("kill -9 $$").unwrap().status, 137);
    let error = guest.run("echo c >/proc/sysrq-trigger").unwrap_err();
    let GuestError::Restarted { console } = &error else { panic!("{error}") };
    assert!(console.contains("sysrq triggered crash"), "{console}");
    // Its shell is new: the answer of the script that panicked never comes.
    assert_eq!(guest.run("echo alive").unwrap(), "alive");
    let error = guest.run_within(Duration::from_millis(200), "sleep 60").unwrap_err();
    assert!(matches!(error, GuestError::Late { .. }), "{error}");
}

#[test]
fn programs_of_this_machine_run_and_reach_it() {
    if !require(&["qemu", "guest-kernels", "fio"]) {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        listener.accept().unwrap().0.write_all(b"from outside\n").unwrap();
    });
    let spec = Spec::new(kernel("6.12-cloud")).program("fio").this_test();
    let mut guest = Guest::boot(spec).unwrap();
    assert_eq!(guest.run(&format!("nc 10.0.2.2 {port} </dev/null")).unwrap(), "from outside");
    server.join().unwrap();
    assert!(guest.run("fio --version").unwrap().starts_with("fio-"));
    let output = guest.run_test("inner_test", "GREETING=hello").unwrap();
    assert!(output.contains("hello from inside"), "{output}");
    assert!(guest.run_test("inner_test", "GREETING=").is_err(), "its failure is ours");
    assert!(guest.run_test("no_such_test", "").is_err(), "nothing ran");
}

#[test]
#[ignore = "runs inside a guest"]
fn inner_test() {
    let greeting = std::env::var("GREETING").unwrap();
    assert_eq!(greeting, "hello");
    println!("{greeting} from inside {}", std::fs::read_to_string("/proc/version").unwrap());
}
