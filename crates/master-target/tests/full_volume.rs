//! A retention volume that is full, on a real small file system: records are refused with an alert,
//! nothing that was acknowledged is lost, and they are taken again by themselves when there is
//! room. A volume that fails is opened anew and recovered. Guards P2; T-21.

mod common;

use common::{Machine, Site};
use landfall_nbd::Client;
use landfall_pki::Role;
use landfall_repl::Refusal;
use landfall_testkit::require;
use landfall_transport::testing::Fleet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own on a loop device; gone when the test ends, however it ends.
struct Volume {
    at: PathBuf,
}

impl Volume {
    fn mount(dir: &Path, bytes: u64) -> Self {
        let backing = dir.join("backing");
        let file = std::fs::File::create(&backing).expect("made");
        file.set_len(bytes).expect("sized");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&backing));
        let at = dir.join("retention");
        std::fs::create_dir(&at).expect("made");
        run(Command::new("mount").args(["-o", "loop"]).arg(&backing).arg(&at));
        Self { at }
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("lost+found/ballast")
    }

    /// Takes all room but so many bytes.
    fn leave(&self, bytes: u64) {
        let stat = rustix::fs::statvfs(&self.at).expect("statvfs");
        let take = (stat.f_bavail * stat.f_frsize).saturating_sub(bytes);
        let length = take.to_string();
        run(Command::new("fallocate").args(["--length", &length]).arg(self.ballast()));
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("removed");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    let out = command.output().expect("starts");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

async fn alerts(site: &Site) -> Vec<String> {
    let report = site.target.report(&site.address).await;
    report.problems.into_iter().map(|problem| problem.code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_stops_ingest_and_resumes_by_itself() {
    if !require(&["root", "loop", "e2fsprogs"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let volume = Volume::mount(dir.path(), 64 << 20);
    let fleet = Fleet::new();
    let site = Site::open_in(dir, fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    assert!(alerts(&site).await.is_empty());
    // The reserve of four segments of 1 MiB, and two more.
    volume.leave(6 << 20);
    for number in 0..100_u8 {
        machine.write(0, u64::from(number % 16) << 17, number, 128 << 10);
    }
    machine.marker();
    let refusal = loop {
        match machine.try_send(&site, 4).await {
            Some(Ok(())) => {}
            Some(Err(refusal)) => break refusal,
            None => panic!("12 MiB fit into 2"),
        }
    };
    assert!(matches!(refusal, Refusal::Unavailable { .. }), "{refusal}: the sender comes again");
    assert_eq!(alerts(&site).await, ["retention-full"]);
    machine.hang_up();
    assert!(matches!(machine.try_send(&site, 8).await, Some(Err(_)) | Some(Ok(()))));

    volume.free();
    machine.hang_up();
    while let Some(sent) = machine.try_send(&site, 4).await {
        sent.expect("there is room again");
    }
    assert!(alerts(&site).await.is_empty(), "the alert is over");
    let view = Client::connect_unix(&site.socket(), "web/0@latest").await.expect("a view");
    for at in (0..common::DISK_BYTES).step_by(1 << 20) {
        let found = view.read(at, 1 << 20).await.expect("read");
        assert!(found == machine.disks[0][at as usize..][..1 << 20], "at {at}");
    }
}

/// The file system shuts down as it does when its disk has gone, and comes back: after a restart of
/// the target what was acknowledged is there, and the same sender goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_vanishes_is_recovered_when_it_is_back() {
    if !require(&["root", "loop", "e2fsprogs"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let volume = Volume::mount(dir.path(), 64 << 20);
    let fleet = Fleet::new();
    let backing = dir.path().join("backing");
    let mut site = Site::open_in(dir, fleet.member(Role::MasterTarget)).await;
    let mut machine = Machine::new();
    site.order(machine.create()).await;
    machine.first_copy(&site).await;
    machine.write(0, 0, 1, 4096);
    machine.marker();
    machine.send(&site).await;
    let acknowledged = machine.lsn();

    shut_down(&volume.at);
    machine.write(0, 4096, 2, 4096);
    machine.marker();
    let refused = machine.try_send(&site, 10).await.expect("something to send");
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })), "{refused:?}");
    site.target.reopen_failed().await;
    assert_eq!(alerts(&site).await.len(), 1, "an alert");
    machine.hang_up();
    let refused = machine.try_send(&site, 10).await.expect("something to send");
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })), "{refused:?}");

    // The target holds the file system that is gone: it ends before the volume is back.
    machine.hang_up();
    let dir = site.stop().await;
    run(Command::new("umount").arg(&volume.at));
    run(Command::new("mount").args(["-o", "loop"]).arg(&backing).arg(&volume.at));
    let site = Site::open_in(dir, fleet.member(Role::MasterTarget)).await;
    assert!(alerts(&site).await.is_empty(), "{:?}", alerts(&site).await);
    while let Some(sent) = machine.try_send(&site, 10).await {
        sent.expect("taken again");
    }
    assert!(machine.lsn() > acknowledged);
    let view = Client::connect_unix(&site.socket(), "web/0@latest").await.expect("a view");
    assert_eq!(view.read(0, 8192).await.expect("read"), machine.disks[0][..8192]);
}

/// `EXT4_IOC_SHUTDOWN` (Linux `fs/ext4/ext4.h`) without flushing its journal: from here on every
/// operation fails with EIO, as on a disk that was pulled out.
fn shut_down(at: &Path) {
    let script = "import fcntl,os,struct,sys\n\
                  fd=os.open(sys.argv[1],os.O_RDONLY)\n\
                  fcntl.ioctl(fd,0x8004587d,struct.pack('I',2))\n";
    run(Command::new("python3").args(["-c", script]).arg(at));
}
