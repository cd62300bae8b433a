//! Frozen file systems: what is frozen is thawed, whoever dies; what a point promises is so.

use crate::cycle::{Machine, carry_out};
use landfall_agent::freeze::{FreezeError, Frozen, GuardCommand, freeze, guard, thaw_left_behind};
use landfall_api_types::order::Order;
use landfall_api_types::request::Consistency;
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_testkit::{Rng, require, seed};
use landfall_types::{Control, Lsn, MarkerKind};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// Where the helper process finds the mount.
const MOUNT: &str = "LANDFALL_TEST_MOUNT";

/// Calls the helper of this name in a process of its own: this program again.
fn helper(name: &str) -> Vec<String> {
    ["--ignored", "--exact", name].map(str::to_owned).to_vec()
}

pub(crate) fn guard_command(dir: &Path) -> GuardCommand {
    GuardCommand {
        program: std::env::current_exe().unwrap(),
        arguments: helper("freezing::helper_guard"),
        record: dir.join("frozen"),
    }
}

#[test]
#[ignore = "a helper process of the tests here: the guard"]
fn helper_guard() {
    let channel = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    guard(channel).unwrap();
}

#[test]
#[ignore = "a helper process of the tests here: freezes, says so, and waits to be killed"]
fn helper_agent() {
    let mount = PathBuf::from(std::env::var_os(MOUNT).unwrap());
    let dir = mount.parent().unwrap();
    let frozen = freeze(&guard_command(dir), vec![mount.clone()], LIMIT).unwrap();
    fs::write(dir.join("is-frozen"), "").unwrap();
    loop {
        std::thread::park();
        assert!(dir.exists(), "{:p}", &frozen);
    }
}

/// An ext4 on a loop device.
struct Mounted {
    dir: tempfile::TempDir,
    _disk: LoopDevice,
}

impl Mounted {
    fn new() -> Self {
        let disk = LoopDevice::scratch(32 << 20, LoopOptions::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(disk.path(), &dir.path().join("mount"));
        Self { dir, _disk: disk }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// A write that does not end before the file system is thawed.
    fn write(&self) -> std::thread::JoinHandle<()> {
        let file = self.path().join("written");
        std::thread::spawn(move || fs::write(file, "x").unwrap())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.path().to_str().unwrap()]);
    }
}

fn mount(disk: &Path, at: &Path) {
    let disk = disk.to_str().unwrap();
    fs::create_dir(at).unwrap();
    run("mkfs.ext4", &["-q", "-F", disk]);
    run("mount", &[disk, at.to_str().unwrap()]);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
}

/// Waits for something that another process does.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}: not in time");
        std::thread::yield_now();
    }
}

fn frozen(mounted: &Mounted, limit: Duration) -> Result<Frozen, FreezeError> {
    freeze(&guard_command(mounted.dir.path()), vec![mounted.path()], limit)
}

#[test]
fn machine_writes_wait_until_the_thaw_and_not_longer() {
    if !require(&["loop", "e2fsprogs"]) {
        return;
    }
    let mounted = Mounted::new();
    let mut first = frozen(&mounted, LIMIT).unwrap();
    assert!(first.still());
    let write = mounted.write();
    assert!(first.still() && !write.is_finished());
    let error = frozen(&mounted, LIMIT).err().unwrap();
    assert!(matches!(error, FreezeError::Refused(_)), "frozen by somebody else: {error}");
    assert!(first.still(), "the second has not thawed it");
    assert!(first.thaw().is_some());
    write.join().unwrap();
    assert!(!mounted.dir.path().join("frozen").exists(), "nothing is noted any more");
}

/// Guards P1: production is never blocked beyond the limit, whatever the agent does.
#[test]
fn machine_the_limit_holds() {
    if !require(&["loop", "e2fsprogs"]) {
        return;
    }
    let mounted = Mounted::new();
    let mut frozen = frozen(&mounted, Duration::from_millis(300)).unwrap();
    mounted.write().join().unwrap();
    assert!(!frozen.still(), "and it is known");
    assert!(frozen.thaw().is_none());
}

/// Starts a process that freezes the file system.
fn freezing_process(mounted: &Mounted) -> Child {
    let process = Command::new(std::env::current_exe().unwrap())
        .args(helper("freezing::helper_agent"))
        .env(MOUNT, mounted.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the freeze", || mounted.dir.path().join("is-frozen").exists());
    process
}

/// The guards of a process.
fn children(process: &Child) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let children =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children
        .flat_map(|text| text.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Guards P1: the agent is killed while something is frozen.
#[test]
fn machine_a_killed_agent_leaves_nothing_frozen() {
    if !require(&["loop", "e2fsprogs"]) {
        return;
    }
    let mounted = Mounted::new();
    let mut agent = freezing_process(&mounted);
    let guards = children(&agent);
    let write = mounted.write();
    agent.kill().unwrap();
    agent.wait().unwrap();
    write.join().unwrap();
    until("what was frozen is forgotten", || !mounted.dir.path().join("frozen").exists());
    // It has this test's output open: a test that ends before it is one that has left something.
    until("the end of the guard", || !guards.iter().any(|id| is_running(*id)));
}

/// A process that has ended may wait for somebody to ask how.
fn is_running(id: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Guards P1: the agent and its guard are killed at once; the next start thaws.
#[test]
fn machine_what_two_killed_processes_left_is_thawed_by_the_next() {
    if !require(&["loop", "e2fsprogs"]) {
        return;
    }
    let mounted = Mounted::new();
    let mut agent = freezing_process(&mounted);
    let guards = children(&agent);
    assert_eq!(guards.len(), 1);
    let kill = |id: i32| run("kill", &["-9", &id.to_string()]);
    // Stopped first: it must not see that its guard is gone.
    run("kill", &["-STOP", &agent.id().to_string()]);
    guards.into_iter().for_each(kill);
    agent.kill().unwrap();
    agent.wait().unwrap();
    let write = mounted.write();
    let record = mounted.dir.path().join("frozen");
    assert_eq!(thaw_left_behind(&record).unwrap(), [mounted.path()]);
    write.join().unwrap();
    assert!(thaw_left_behind(&record).unwrap().is_empty(), "once");
}

/// Files come and go until told to stop.
struct Churn {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Churn {
    fn start(dir: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for n in 0_u32.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let path = dir.join((n % 40).to_string());
                fs::write(&path, vec![n as u8; 3000 * (n as usize % 7)]).unwrap();
                fs::File::open(&path).unwrap().sync_all().unwrap();
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// Of an ext4: its journal has to be replayed.
fn needs_recovery(image: &[u8]) -> bool {
    const FEATURE_INCOMPAT: usize = 1024 + 96;
    const RECOVER: u8 = 4;
    image[FEATURE_INCOMPAT] & RECOVER != 0
}

/// A point of frozen file systems, under load: the file system of that position is one that was
/// unmounted, as far as its superblock says, and it is whole. So is one around which hooks ran.
#[tokio::test(flavor = "multi_thread")]
async fn machine_a_frozen_point_is_a_clean_file_system() {
    if !require(&["loop", "bpf", "e2fsprogs"]) {
        return;
    }
    let machine = Machine::new(&mut Rng::new(seed("frozen points")));
    let mounted = machine.state.path().join("mounted");
    mount(&machine.disk_path(0), &mounted);
    let agent = machine.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    machine.until_point(Lsn::ZERO).await;
    let churn = Churn::start(mounted.clone());
    let hooks = machine.settings().points.hooks_dir;
    fs::create_dir(&hooks).unwrap();
    let hook = hooks.join("10-note");
    fs::write(&hook, format!("#!/bin/sh\necho $1 > {}/$1\n", mounted.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    for (n, consistency) in
        [(0, Consistency::FileSystem), (1, Consistency::Application), (2, Consistency::FileSystem)]
    {
        let order = Order::AgentMark { name: format!("point {n}"), consistency };
        carry_out(&agent, order).await.unwrap();
    }
    fs::write(&hook, "#!/bin/sh\ntest $1 = post\n").unwrap();
    let order = Order::AgentMark { name: "never".into(), consistency: Consistency::Application };
    let refused = carry_out(&agent, order).await.unwrap_err();
    assert_eq!(refused.code, "point-failed", "the hook said no");
    churn.end();
    run("umount", &[mounted.to_str().unwrap()]);
    machine.demote(&agent).await;
    machine.assert_equal();
    let markers =
        machine.target.controls().into_iter().filter_map(|(lsn, control)| match control {
            Control::Marker(marker) if marker.name.is_some() => Some((lsn, marker.kind)),
            _ => None,
        });
    let markers: Vec<_> = markers.collect();
    let kinds: Vec<MarkerKind> = markers.iter().map(|(_, kind)| *kind).collect();
    let (frozen, application) =
        (MarkerKind::FileSystemConsistent, MarkerKind::ApplicationConsistent);
    assert_eq!(kinds, [frozen, application, frozen]);
    let snapshots = machine.target.with(|state| std::mem::take(&mut state.snapshots));
    assert_eq!(snapshots.len(), 3);
    for (lsn, image) in snapshots {
        assert!(markers.iter().any(|(marker, _)| *marker == lsn));
        assert!(!needs_recovery(&image), "at {lsn}");
        let path = machine.state.path().join("image");
        fs::write(&path, image).unwrap();
        run("e2fsck", &["-f", "-n", path.to_str().unwrap()]);
    }
}
