//! Promise: a point of several machines is one moment of all of them (trap T-19): no machine's
//! disk has at that point what follows from something that another's lacks.
//!
//! Three real agents on this machine, each with a disk of its own; a program writes a number to the
//! first machine's disk, then to the second's, then to the third's.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use landfall_testkit::require;
use serde_json::Value;

use crate::member::{Member, json};
use crate::site::{Site, run, until};

const NAMES: [&str; 3] = ["first", "second", "third"];

fn number(member: &Member) -> PathBuf {
    member.mounted().join("number")
}

/// Cause before effect: a number is durable on one machine before the next one gets it.
struct Chain {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Chain {
    fn start(numbers: Vec<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let files: Vec<File> = numbers.iter().map(|path| File::create(path).unwrap()).collect();
            for number in 1_u64.. {
                for file in &files {
                    file.write_all_at(format!("{number:020}").as_bytes(), 0).unwrap();
                    file.sync_data().unwrap();
                }
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The number on a machine's disk at a position.
fn number_at(site: &Site, machine: &str, lsn: u64) -> u64 {
    let copy = site.path("copy.raw");
    let socket = site.path("master-target/nbd.sock");
    let socket = socket.display();
    let uri = format!("nbd+unix:///{machine}%2F0%40{lsn}?socket={socket}");
    run(Command::new("nbdcopy").arg(uri).arg(&copy));
    let out = site.path("number");
    let dump = format!("dump /number {}", out.display());
    run(Command::new("debugfs").args(["-R", &dump]).arg(&copy));
    read(&out)
}

fn read(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

#[test]
fn t19_machine_points_of_several_machines_are_one_moment() {
    if !require(&["root", "loop", "bpf", "e2fsprogs", "libnbd"]) {
        return;
    }
    let site = Site::new();
    let members = NAMES.map(|name| Member::new(&site, name, 32, &[]));
    members.iter().for_each(|member| member.protect(&site));
    let chain = Chain::start(members.iter().map(number).collect());
    let mark = |name: &str| {
        let mut group = site.landfall(&["group", "mark", name]);
        group.args(NAMES).output().unwrap()
    };
    // First copies come to their end.
    until("a point of all three", || mark("first").status.success());
    for n in 0..4 {
        let made = mark(&format!("point-{n}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    drop(chain);
    let list: Vec<&str> = [&["group", "points"][..], &NAMES[..]].concat();
    let mut points = Value::Null;
    until("all points are at the target", || {
        points = json(&site, &list);
        points.as_array().unwrap().len() == 5
    });
    let mut before = 0;
    for point in points.as_array().unwrap() {
        let numbers: Vec<u64> = point["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                number_at(&site, one["machine"].as_str().unwrap(), one["lsn"].as_u64().unwrap())
            })
            .collect();
        let in_order = numbers.windows(2).all(|two| two[0] == two[1] || two[0] == two[1] + 1);
        assert!(in_order && numbers[0] <= numbers[2] + 1, "an effect without cause: {numbers:?}");
        assert!(numbers[2] >= before, "{numbers:?} is behind {before}");
        before = numbers[0].saturating_sub(1);
    }

    // A member that says nothing: no point, and the others go on.
    let [_, _, third] = &members;
    run(Command::new("kill").args(["-STOP", &third.agent.id().to_string()]));
    let chain = Chain::start(members[..2].iter().map(number).collect());
    let failed = mark("never");
    assert!(!failed.status.success(), "a member was silent");
    let so_far = read(&number(&members[1]));
    until("the others write on", || read(&number(&members[1])) > so_far);
    drop(chain);
    run(Command::new("kill").args(["-CONT", &third.agent.id().to_string()]));
    until("a point again", || mark("again").status.success());
    until("it is listed", || json(&site, &list).as_array().unwrap().len() == 6);
}
