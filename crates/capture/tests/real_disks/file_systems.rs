//! Promise: the same for each file system, with a database and with everything that a file system
//! sends to a disk.

use crate::rig::{MIB, Mount, Rig, filled, on_file, run};
use landfall_capture::Options;
use landfall_testkit::require;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

struct Kind {
    name: &'static str,
    bytes: u64,
    make: &'static [&'static str],
}

fn is_equal_on(kind: &Kind) {
    let rig = Rig::over(vec![on_file(kind.bytes)], Options::default());
    let path = rig.path(0).to_str().unwrap().to_owned();
    let images = rig.replay_while(|| {
        make(kind, &path);
        let mount = Mount::new(&path, &["-t", kind.name]);
        mixed_load(mount.path());
        drop(mount);
        // A second mount replays what the first has left, and writes its own.
        let mount = Mount::new(&path, &["-t", kind.name]);
        fs::write(mount.path().join("again"), "again").unwrap();
        drop(mount);
    });
    rig.assert_equal(&images);
    let counters = rig.capture.counters(rig.capture.disks()[0].0);
    assert!(counters.bytes > 8 * MIB, "the load reached the disk: {counters:?}");
}

/// The makers of XFS refuse small disks unless they are told that this is a test.
fn make(kind: &Kind, path: &str) {
    let output = Command::new(format!("mkfs.{}", kind.name))
        .args(kind.make)
        .arg(path)
        .envs([("TEST_DIR", "x"), ("TEST_DEV", "x"), ("QA_CHECK_FS", "x")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn mixed_load(at: &Path) {
    databases(at);
    direct_unaligned(&at.join("direct"));
    let load = at.join("load");
    run(
        "fio",
        &[
            "--name=mixed",
            &format!("--filename={}", load.display()),
            "--size=6m",
            "--bsrange=1k-48k",
            "--rw=randwrite",
            "--fsync=40",
            "--randrepeat=0",
            "--minimal",
        ],
    );
    for n in 0..60_u64 {
        let file = File::create(at.join(format!("small-{n}"))).unwrap();
        file.write_all_at(&vec![n as u8; 100 + n as usize * 300], 0).unwrap();
        if n % 5 == 0 {
            file.sync_all().unwrap();
        }
    }
    for n in (0..60).step_by(2) {
        fs::rename(at.join(format!("small-{n}")), at.join(format!("moved-{n}"))).unwrap();
    }
    for n in (0..60).step_by(4) {
        fs::remove_file(at.join(format!("moved-{n}"))).unwrap();
    }
    let big = at.join("big");
    let big = big.to_str().unwrap();
    run("fallocate", &["-l", "6M", big]);
    run("fallocate", &["-p", "-o", "1M", "-l", "2M", big]);
    run("fallocate", &["-z", "-o", "4M", "-l", "1M", big]);
    run("sync", &["-f", big]);
    run("fstrim", &[at.to_str().unwrap()]);
}

fn databases(at: &Path) {
    for journal in ["wal", "delete"] {
        let file = at.join(format!("{journal}.db"));
        let script = format!(
            "pragma journal_mode={journal}; create table t(a, b); \
             with recursive n(i) as (select 1 union all select i+1 from n where i < 400) \
             insert into t select i, randomblob(i) from n; \
             begin; update t set b = randomblob(200) where a % 3 = 0; commit; \
             delete from t where a % 7 = 0; pragma integrity_check;"
        );
        let output = Command::new("sqlite3").arg(file).arg(script).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("ok"), "{output:?}");
    }
}

/// From buffers that don't begin at a page.
fn direct_unaligned(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path).unwrap();
    let buffer = filled(64 << 10, 0x3c);
    for (n, begin) in [0_usize, 512, 1536].into_iter().enumerate() {
        let part = &buffer[begin..begin + (8 << 10)];
        file.write_all_at(part, n as u64 * (8 << 10)).unwrap();
    }
}

#[test]
fn ext4() {
    if require(&["loop", "bpf", "fio", "e2fsprogs", "sqlite3"]) {
        is_equal_on(&Kind { name: "ext4", bytes: 96 * MIB, make: &["-q", "-F"] });
    }
}

#[test]
fn xfs() {
    if require(&["loop", "bpf", "fio", "xfs", "sqlite3"]) {
        is_equal_on(&Kind { name: "xfs", bytes: 96 * MIB, make: &["-q", "-f"] });
    }
}

#[test]
fn btrfs() {
    if require(&["loop", "bpf", "fio", "btrfs", "sqlite3"]) {
        is_equal_on(&Kind { name: "btrfs", bytes: 128 * MIB, make: &["-q", "-f"] });
    }
}
