//! Promise: replaying the records of the ring gives, byte for byte, what the disk holds.
//!
//! A page that is changed while it is being written may reach the disk newer than it was at
//! submission, and only if its file is deleted is it never written again; no load here deletes
//! files that are mapped.

use crate::rig::{MIB, Mount, Rig, filled, on_file, run, small_ring};
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{CapturedKind, Options};
use landfall_testkit::require;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

fn fio(path: &str, name: &str, arguments: &[&str]) {
    let common = ["--name", name, "--filename", path, "--size=24m", "--randrepeat=0", "--minimal"];
    run("fio", &[&common, arguments].concat());
}

#[test]
fn fio_mixes() {
    if !require(&["loop", "bpf", "fio"]) {
        return;
    }
    let rig = Rig::new(&[24 * MIB], Options::default());
    let path = rig.path(0).to_str().unwrap().to_owned();
    let images = rig.replay_while(|| {
        fio(
            &path,
            "direct",
            &[
                "--direct=1",
                "--rw=randwrite",
                "--bsrange=512-256k",
                "--bs_unaligned=0",
                "--blockalign=512",
            ],
        );
        fio(
            &path,
            "cached",
            &["--rw=randwrite", "--bsrange=1k-64k", "--bs_unaligned=1", "--fsync=64"],
        );
        fio(
            &path,
            "mapped",
            &["--ioengine=mmap", "--rw=randwrite", "--bs=4k", "--io_size=8m", "--fsync=100"],
        );
        fio(
            &path,
            "queued",
            &["--direct=1", "--ioengine=libaio", "--iodepth=16", "--rw=write", "--bs=1m"],
        );
        fio(&path, "trim", &["--direct=1", "--rw=randtrim", "--bs=64k", "--io_size=2m"]);
        fs::File::open(&path).unwrap().sync_all().unwrap();
    });
    rig.assert_equal(&images);
}

#[test]
fn a_file_system() {
    if !require(&["loop", "bpf", "e2fsprogs"]) {
        return;
    }
    let rig = Rig::over(vec![on_file(64 * MIB)], Options::default());
    let path = rig.path(0).to_str().unwrap().to_owned();
    let images = rig.replay_while(|| {
        run("mkfs.ext4", &["-q", "-F", &path]);
        let mount = Mount::new(&path, &["-t", "ext4"]);
        for n in 0..40_u64 {
            let file = File::create(mount.path().join(format!("file-{n}"))).unwrap();
            file.write_all_at(&vec![n as u8; (n as usize + 1) * 5000], n * 3000).unwrap();
            if n % 4 == 0 {
                file.sync_all().unwrap();
            }
        }
        for n in (0..40).step_by(3) {
            fs::remove_file(mount.path().join(format!("file-{n}"))).unwrap();
        }
        let big = mount.path().join("big");
        run("fallocate", &["-l", "8M", big.to_str().unwrap()]);
        run("fallocate", &["-p", "-o", "1M", "-l", "2M", big.to_str().unwrap()]);
        run("fstrim", &[mount.path().to_str().unwrap()]);
        drop(mount);
    });
    rig.assert_equal(&images);
    let total: u64 = rig.capture.counters(rig.capture.disks()[0].0).bytes;
    assert!(total > 2 * MIB, "the load reached the disk: {total} bytes");
}

/// Bios of more than one record, and discards of more than one request.
#[test]
fn large_writes_and_discards() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let rig = Rig::over(vec![on_file(48 * MIB)], small_ring(32));
    let path = rig.path(0).to_str().unwrap().to_owned();
    let images = rig.replay_while(|| {
        let file = crate::rig::direct(rig.path(0));
        let mut buffer = filled(16 << 20, 0);
        for (n, byte) in buffer.iter_mut().enumerate() {
            *byte = ((n * 31) >> 7) as u8;
        }
        file.write_all_at(&buffer, 3 * 512).unwrap();
        file.write_all_at(&buffer, 20 * MIB).unwrap();
        run("blkdiscard", &["-o", "4194304", "-l", "6291456", &path]);
        run("blkdiscard", &["-z", "-o", "22020096", "-l", "1048576", &path]);
    });
    rig.assert_equal(&images);
}

#[test]
fn discards_and_zeroes_have_their_own_kinds() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let rig = Rig::over(vec![on_file(4 * MIB)], small_ring(4));
    let path = rig.path(0).to_str().unwrap().to_owned();
    run("blkdiscard", &["-o", "8192", "-l", "65536", &path]);
    run("blkdiscard", &["-z", "-o", "131072", "-l", "4096", &path]);
    let records = rig.take();
    let seen: Vec<_> = records.iter().map(|r| (r.kind.clone(), r.offset, r.length)).collect();
    assert_eq!(
        seen,
        [(CapturedKind::Discard, 8192, 65536), (CapturedKind::Zero, 131_072, 4096)],
        "as they were asked for"
    );
}

/// A write to a partition is captured at its place on the whole disk.
#[test]
fn partitions() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let backing = tempfile::tempfile().unwrap();
    backing.set_len(8 * MIB).unwrap();
    let options = LoopOptions { scan_partitions: true, ..LoopOptions::default() };
    let disk = LoopDevice::attach(&backing, options).unwrap();
    // Told, not scanned: a kernel may lack the parser for every partition table.
    run("addpart", &[disk.path().to_str().unwrap(), "1", "2048", "4096"]);
    let part = disk.partition(1).unwrap();
    let rig = Rig::over(vec![disk], small_ring(4));
    crate::rig::direct(&part).write_all_at(&filled(4096, 0x5a), 8192).unwrap();
    let records = rig.take();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].offset, records[0].length), (2048 * 512 + 8192, 4096));
    assert_eq!(records[0].kind, CapturedKind::Write(vec![0x5a; 4096].into()));
}
