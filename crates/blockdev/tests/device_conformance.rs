//! One suite for every [`BlockDevice`].

use landfall_blockdev::sim::SimMedium;
use landfall_blockdev::{BlockDevice, DeviceError, DiskFile, FileDevice, FsDir, OpenMode};
use landfall_testkit::{Rng, require, seed};
use std::path::Path;
use std::process::Command;

const SIZE: u64 = 1 << 20;

/// A byte array is the oracle; discarded bytes are not compared (trap T-23).
fn suite(device: &dyn BlockDevice, name: &str) {
    assert_eq!(device.size(), SIZE);
    assert!([512, 4096].contains(&device.sector_bytes()));
    let mut rng = Rng::new(seed(name));
    let mut expected: Vec<Option<u8>> = vec![Some(0); usize::try_from(SIZE).expect("small")];
    device.zero(0, SIZE).expect("zero all");
    for _ in 0..300 {
        let offset = rng.below(SIZE);
        let length = rng.below((SIZE - offset).min(40_000) + 1);
        let range = usize::try_from(offset).expect("small")
            ..usize::try_from(offset + length).expect("small");
        match rng.below(6) {
            0 => {
                device.zero(offset, length).expect("zero");
                expected[range].fill(Some(0));
            }
            1 => {
                device.discard(offset, length).expect("discard");
                expected[range].fill(None);
            }
            2 => device.flush().expect("flush"),
            _ => {
                let mut data = vec![0; range.len()];
                rng.fill(&mut data);
                device.write_at(offset, &data).expect("write");
                expected[range].iter_mut().zip(&data).for_each(|(slot, byte)| *slot = Some(*byte));
            }
        }
        let offset = rng.below(SIZE);
        let length = rng.below((SIZE - offset).min(10_000) + 1);
        let mut found = vec![0; usize::try_from(length).expect("small")];
        device.read_at(offset, &mut found).expect("read");
        for (index, byte) in found.iter().enumerate() {
            let at = usize::try_from(offset).expect("small") + index;
            assert!(expected[at].is_none_or(|e| e == *byte), "{name}: byte {at} is wrong");
        }
    }
    for (offset, length) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (0, SIZE + 1)] {
        let mut buf = vec![0; usize::try_from(length).expect("small")];
        let refused = |result| matches!(result, Err(DeviceError::OutOfRange { .. }));
        assert!(refused(device.read_at(offset, &mut buf)));
        assert!(refused(device.write_at(offset, &buf)));
        assert!(refused(device.zero(offset, length)));
        assert!(refused(device.discard(offset, length)));
    }
    device.read_at(SIZE, &mut []).expect("nothing at the end is no error");
    device.flush().expect("flush");
}

#[test]
fn raw_file_conforms() {
    let temp = tempfile::tempdir().expect("tempdir");
    let path = temp.path().join("disk.raw");
    suite(&FileDevice::create(&path, SIZE).expect("create"), "raw_file");
    let read_only = FileDevice::open(&path, OpenMode::ReadOnly).expect("open");
    assert!(matches!(read_only.write_at(0, b"x"), Err(DeviceError::ReadOnly { .. })));
    assert!(matches!(read_only.zero(0, 1), Err(DeviceError::ReadOnly { .. })));
    assert!(matches!(FileDevice::create(&path, SIZE), Err(DeviceError::Exists { .. })));
    assert!(matches!(
        FileDevice::open(temp.path(), OpenMode::ReadOnly),
        Err(DeviceError::NotADisk { .. })
    ));
}

/// Two writers of one image: the second is refused (promise P6 at the resource).
#[test]
fn exclusive_raw_file_is_claimed() {
    let temp = tempfile::tempdir().expect("tempdir");
    let path = temp.path().join("disk.raw");
    let first = FileDevice::create(&path, SIZE).expect("create");
    let second = FileDevice::open(&path, OpenMode::Exclusive);
    assert!(matches!(second, Err(DeviceError::Busy { .. })), "{second:?}");
    FileDevice::open(&path, OpenMode::ReadOnly).expect("readers may");
    drop(first);
    FileDevice::open(&path, OpenMode::Exclusive).expect("free again");
}

#[test]
fn disk_file_conforms_on_simulated_and_real_directories() {
    let medium = SimMedium::new(512);
    suite(&DiskFile::create(&*medium.root(), "disk", SIZE, 512).expect("create"), "sim");
    let temp = tempfile::tempdir().expect("tempdir");
    let dir = FsDir::open(temp.path()).expect("open");
    suite(&DiskFile::create(&dir, "disk", SIZE, 4096).expect("create"), "fs");
    assert_eq!(DiskFile::open(&dir, "disk", 4096).expect("open").size(), SIZE);
}

/// Detaches the loop device when the test ends, however it ends.
struct Loop(String);
impl Loop {
    fn attach(path: &Path) -> Self {
        let out = Command::new("losetup").args(["--find", "--show"]).arg(path).output();
        let out = out.expect("losetup runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Self(String::from_utf8(out.stdout).expect("a path").trim().to_owned())
    }
}
impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn block_device_conforms_and_is_claimed() {
    if !require(&["root", "loop"]) {
        return;
    }
    let temp = tempfile::tempdir().expect("tempdir");
    let path = temp.path().join("backing");
    std::fs::write(&path, vec![0; usize::try_from(SIZE).expect("small")]).expect("write");
    let device = Loop::attach(&path);
    let first = FileDevice::open(&device.0, OpenMode::Exclusive).expect("open");
    suite(&first, "loop");
    let second = FileDevice::open(&device.0, OpenMode::Exclusive);
    assert!(matches!(second, Err(DeviceError::Busy { .. })), "{second:?}");
    drop(first);
    FileDevice::open(&device.0, OpenMode::Exclusive).expect("free again");
}
