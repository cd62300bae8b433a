//! Everything that a run can leave is made for real, and removed by a sweep that knows only the
//! record.

use super::{Record, Runs};
use crate::filesystem;
use crate::host::{self, RUN_VARIABLE};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

fn sweep(runs: &Runs, record: &Record) -> anyhow::Result<super::sweep::Swept> {
    super::sweep(runs, record, Duration::from_millis(200))
}

struct Leftover {
    dir: tempfile::TempDir,
    runs: Runs,
    record: Record,
}

impl Leftover {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::at(dir.path().join("records"));
        let record = runs.begin(&dir.path().join("work")).unwrap();
        Self { dir, runs, record }
    }

    /// A process of the run that ends only by SIGKILL.
    fn stubborn(&self) -> Child {
        let child = Command::new("sh")
            .args(["-c", "trap '' TERM; while :; do sleep 1; done"])
            .env(RUN_VARIABLE, &self.record.id)
            .spawn()
            .unwrap();
        self.is_listed();
        child
    }

    /// The kernel shows the environment of a new process a moment after its start.
    fn is_listed(&self) {
        let listed = || Ok((!host::processes_of(&self.record.id)?.is_empty()).then_some(()));
        crate::wait::until_blocking("it is listed", Duration::from_secs(5), listed).unwrap();
    }

    /// A file system on a loop device, and in it a file that is a loop device with a file system
    /// again.
    fn nested_mounts(&self) {
        let mut dir = self.record.dir.clone();
        for bytes in [64 << 20, 16 << 20] {
            let image = dir.join("image");
            File::create(&image).unwrap().set_len(bytes).unwrap();
            filesystem::make(&image).unwrap();
            let attached = host::attach(&image).unwrap();
            dir = filesystem::mount(&attached.device, &dir.join("mount")).unwrap().point;
        }
    }

    fn nothing_is_left(&self) {
        assert!(host::processes_of(&self.record.id).unwrap().is_empty());
        assert!(host::mounts_under(&self.record.dir).unwrap().is_empty());
        assert!(host::loops_under(&self.record.dir).unwrap().is_empty());
        assert!(!self.record.dir.exists());
        assert!(self.runs.list().unwrap().is_empty());
        assert!(!self.dir.path().join("records").exists());
    }
}

#[test]
fn records_come_back_and_are_forgotten() {
    let leftover = Leftover::begin();
    assert!(leftover.record.dir.is_dir() && leftover.record.owner.is_alive());
    assert_eq!(leftover.runs.list().unwrap(), std::slice::from_ref(&leftover.record));
    let kept = Record { kept: true, ..leftover.record.clone() };
    leftover.runs.write(&kept).unwrap();
    assert_eq!(leftover.runs.list().unwrap(), [kept]);
    assert_eq!(sweep(&leftover.runs, &leftover.record).unwrap(), Default::default());
    leftover.nothing_is_left();
    // Killed just before the record was forgotten: once more.
    leftover.runs.write(&leftover.record).unwrap();
    sweep(&leftover.runs, &leftover.record).unwrap();
    leftover.nothing_is_left();
}

#[test]
fn a_run_killed_before_its_directory_was_made_is_removed() {
    let leftover = Leftover::begin();
    fs::remove_dir(&leftover.record.dir).unwrap();
    sweep(&leftover.runs, &leftover.record).unwrap();
    leftover.nothing_is_left();
}

#[test]
fn processes_mounts_and_loop_devices_are_removed_whatever_they_hold() {
    if !landfall_testkit::require(&["root", "loop", "e2fsprogs"]) {
        return;
    }
    let leftover = Leftover::begin();
    leftover.nested_mounts();
    let user = |run: &str| {
        let inner = leftover.record.dir.join("mount/mount");
        Command::new("sleep").arg("1000").current_dir(inner).env(RUN_VARIABLE, run).spawn().unwrap()
    };
    let mut ours = user(&leftover.record.id);
    leftover.is_listed();
    // Somebody who looks around in a kept run: not killed, and no reason to leave anything in the
    // tree.
    let mut foreign = user("a stranger of this test");
    let swept = sweep(&leftover.runs, &leftover.record).unwrap();
    ours.wait().unwrap();
    assert!(foreign.try_wait().unwrap().is_none());
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    assert_eq!((swept.mounts, swept.loops.len()), (2, 2));
    leftover.nothing_is_left();
}

#[test]
fn a_process_that_does_not_listen_is_killed() {
    let leftover = Leftover::begin();
    let mut child = leftover.stubborn();
    sweep(&leftover.runs, &leftover.record).unwrap();
    child.wait().unwrap();
    leftover.nothing_is_left();
}

#[test]
fn what_nbdfuse_mounted_is_removed_with_the_loop_device_on_it() {
    if !landfall_testkit::require(&["root", "loop", "fuse", "nbdkit"]) {
        return;
    }
    let leftover = Leftover::begin();
    let mut server = serve_memory(&leftover.record.dir.join("socket"));
    let uri = format!("nbd+unix:///?socket={}/socket", leftover.record.dir.display());
    let disk = crate::served::ServedDisk::attach(
        &leftover.record.id,
        &uri,
        &leftover.record.dir.join("nbd"),
    )
    .unwrap();
    filesystem::make(disk.device()).unwrap();
    filesystem::mount(disk.device(), &leftover.record.dir.join("mount")).unwrap();
    // The server of the disk goes first, as when everything of a run is killed.
    server.kill().unwrap();
    server.wait().unwrap();
    let swept = sweep(&leftover.runs, &leftover.record).unwrap();
    assert!(swept.loops.contains(disk.device()), "{swept:?}");
    leftover.nothing_is_left();
    let gone = || Ok(host::loops()?.iter().all(|one| one.device != disk.device()).then_some(()));
    crate::wait::until_blocking("it is detached", Duration::from_secs(5), gone).unwrap();
}

#[test]
fn a_served_disk_is_attached_and_detached_again() {
    if !landfall_testkit::require(&["root", "loop", "fuse", "nbdkit", "e2fsprogs"]) {
        return;
    }
    let leftover = Leftover::begin();
    let mut server = serve_memory(&leftover.record.dir.join("socket"));
    let uri = format!("nbd+unix:///?socket={}/socket", leftover.record.dir.display());
    let point = leftover.record.dir.join("nbd");
    for text in ["first", "second"] {
        let disk = crate::served::ServedDisk::attach(&leftover.record.id, &uri, &point).unwrap();
        if text == "first" {
            filesystem::make(disk.device()).unwrap();
        }
        let mounted = filesystem::mount(disk.device(), &leftover.record.dir.join("mount")).unwrap();
        fs::write(mounted.point.join(text), text).unwrap();
        assert!(mounted.point.join("first").exists());
        mounted.unmount().unwrap();
        disk.detach().unwrap();
        assert!(host::processes_of(&leftover.record.id).unwrap().is_empty());
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let swept = sweep(&leftover.runs, &leftover.record).unwrap();
    assert_eq!(swept, Default::default());
    leftover.nothing_is_left();
}

fn serve_memory(socket: &Path) -> Child {
    let mut server = Command::new("nbdkit");
    server.args(["--foreground", "--exit-with-parent", "--unix"]).arg(socket);
    let server = server.args(["memory", "size=64M"]).spawn().unwrap();
    let patience = Duration::from_secs(10);
    crate::wait::until_blocking("nbdkit listens", patience, || Ok(socket.exists().then_some(())))
        .unwrap();
    server
}
