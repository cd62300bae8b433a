//! Disks of a master target in a guest: by the Linux kernel's own NBD driver over TCP, and by QEMU
//! over the Unix socket, which keeps the guest waiting while the master target is away. ext4 and
//! fio's verification on both. Guards P2, P4; T-10.

mod common;

use common::{Machine, Site, branch_of};
use landfall_api_types::order::Order;
use landfall_api_types::request::PointChoice;
use landfall_guest::{Disk, Guest, Kernel, Spec};
use landfall_nbd::{Client, Security};
use landfall_pki::Role;
use landfall_testkit::{GUEST_KERNELS, require};
use landfall_transport::testing::Fleet;
use std::time::Duration;

const DISK_BYTES: u64 = 64 << 20;
/// An emulated processor, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Random writes whose blocks carry what they are, read back and compared.
fn fio(directory: &str, more: &str) -> String {
    format!(
        "fio --name=verify --directory={directory} --rw=randwrite --bs=4k --size=6m --verify=crc32c \
         --verify_fatal=1 --ioengine=psync --fallocate=none --randseed=7 {more} 2>&1"
    )
}

/// Runs something that waits for the guest beside the server, which runs on this runtime.
async fn within<T: Send + 'static>(
    mut guest: Guest,
    work: impl FnOnce(&mut Guest) -> T + Send + 'static,
) -> (Guest, T) {
    let work = tokio::task::spawn_blocking(move || {
        let done = work(&mut guest);
        (guest, done)
    });
    work.await.expect("the guest does what it is told")
}

fn run(guest: &mut Guest, script: &str) -> String {
    guest.run(script).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// ext4 by the kernel's driver; what was written is there after a new connection.
fn by_the_kernel(guest: &mut Guest, port: u16, export: &str) {
    let attach = |guest: &mut Guest| {
        guest.attach_nbd("/dev/nbd0", port, export, "").expect("connected");
    };
    attach(guest);
    run(guest, "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt");
    run(guest, &fio("/mnt", "--end_fsync=1"));
    run(guest, "umount /mnt && e2fsck -fn /dev/nbd0");
    guest.detach_nbd("/dev/nbd0").expect("disconnected");
    attach(guest);
    run(guest, "mount /dev/nbd0 /mnt");
    run(guest, &fio("/mnt", "--verify_only=1"));
    run(guest, "fstrim /mnt; umount /mnt && e2fsck -fn /dev/nbd0");
    guest.detach_nbd("/dev/nbd0").expect("disconnected");
}

/// A view is read-only, and says so.
fn view_is_read_only(guest: &mut Guest, port: u16, view: &str) {
    guest.attach_nbd("/dev/nbd1", port, view, "").expect("connected");
    assert_eq!(run(guest, "cat /sys/block/nbd1/ro"), "1");
    let write = "dd if=/dev/zero of=/dev/nbd1 bs=4096 count=1 conv=fsync 2>&1";
    assert!(guest.run(write).is_err(), "a write to a view is refused");
    run(guest, "dd if=/dev/nbd1 of=/dev/null bs=1M count=8 2>&1");
    guest.detach_nbd("/dev/nbd1").expect("disconnected");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_disks_by_the_kernel_and_by_qemu() {
    if !require(&["qemu", "guest-kernels", "nbd-client", "e2fsprogs", "fio"]) {
        return;
    }
    let fleet = Fleet::new();
    let mut site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::with_disks_of(DISK_BYTES);
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    site.order(Order::MtFreeze { replica: machine.replica }).await;
    let branch = branch_of(site.order(machine.promote(2, PointChoice::Latest)).await);
    let (of_qemu, of_kernel) = (branch.exports[0].export.clone(), branch.exports[1].export.clone());
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = site.target.nbd().listen_tcp(loopback, Security::Loopback).expect("listens");
    let port = endpoint.address().port();

    let kernel = Kernel::find(GUEST_KERNELS[0]).expect("was required");
    let spec = Spec::new(kernel)
        .patience(PATIENCE)
        .nbd()
        .module("ext4")
        .programs(["mkfs.ext4", "e2fsck", "fio"])
        .disk(Disk::nbd("branch", &site.socket(), &of_qemu));
    let guest = tokio::task::spawn_blocking(|| Guest::boot(spec).expect("boots")).await;
    let guest = guest.expect("booted");
    let (guest, ()) = within(guest, move |guest| {
        by_the_kernel(guest, port, &of_kernel);
        view_is_read_only(guest, port, "web/1@latest");
        run(guest, "mkfs.ext4 -q $(disk branch) && mount $(disk branch) /mnt");
        // It writes while the server goes away and comes back.
        let written = fio("/mnt", "--fdatasync=16 --time_based --runtime=8");
        run(guest, &format!("({written}; echo $? >/tmp/status) >/tmp/said &"));
        run(guest, "until [ -s /mnt/verify.0.0 ]; do usleep 10000; done");
    })
    .await;
    drop(endpoint);
    site.restart().await;
    let (guest, said) = within(guest, |guest| {
        run(guest, "until [ -s /tmp/status ]; do usleep 100000; done");
        let said = run(guest, "cat /tmp/status /tmp/said");
        run(guest, "umount /mnt && e2fsck -fn $(disk branch)");
        said
    })
    .await;
    assert!(said.starts_with('0'), "what was answered is there: {said}");
    drop(guest);

    let disk = Client::connect_unix(&site.socket(), &of_qemu).await.expect("served");
    let superblock = disk.read(1024, 1024).await.expect("read");
    assert_eq!(superblock[56..58], [0x53, 0xef], "an ext4 on the branch");
    disk.disconnect().await;
    let report = site.report(machine.replica).await;
    let now = report.branches.iter().find(|one| one.authority).expect("it has authority");
    assert!(now.head.get() > branch.head.get() + 100, "its log has what was written: {now:?}");
}
