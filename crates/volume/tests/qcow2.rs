//! Disks in qcow2 files: as an image of a replica, and judged by a program that was not written
//! here.

mod common;

use landfall_blockdev::{BlockDevice, DeviceError, FileDevice, OpenMode};
use landfall_testkit::{Rng, require, seed};
use landfall_types::DiskGeometry;
use landfall_volume::{FsImages, ImageOwner, Images, Qcow2Device, Qcow2Space};
use std::path::Path;
use std::process::Command;

const SIZE: u64 = 5 << 20;

/// What an image must do, whatever its kind: it is a disk, is held by one writer, and keeps holes.
fn image_suite(path: &Path, name: &str) -> Vec<u8> {
    let path = path.to_str().expect("a plain name");
    let geometry = DiskGeometry { size_bytes: SIZE, sector_bytes: 512 };
    FsImages.create(path, geometry).expect("made");
    let device = FsImages.open(path, ImageOwner::Foreign).expect("opened");
    assert_eq!(device.size(), SIZE);
    let mut expected = vec![0; SIZE as usize];
    let mut rng = Rng::new(seed(name));
    for _ in 0..120 {
        let start = rng.below(SIZE / 512);
        let sectors = 1 + rng.below((SIZE / 512 - start).min(300));
        let (offset, length) = (start * 512, sectors * 512);
        let range = offset as usize..(offset + length) as usize;
        match rng.below(4) {
            0 => {
                device.zero(offset, length).expect("zeroed");
                expected[range].fill(0);
            }
            1 => device.flush().expect("flushed"),
            _ => {
                let data = common::world::bytes(&mut rng, length);
                device.write_at(offset, &data).expect("written");
                expected[range].copy_from_slice(&data);
            }
        }
    }
    device.flush().expect("flushed");
    let second = FsImages.open(path, ImageOwner::Foreign);
    assert!(matches!(second, Err(DeviceError::Busy { .. })), "one writer: {second:?}");
    let beyond = device.write_at(SIZE - 1, &[1, 2]);
    assert!(matches!(beyond, Err(DeviceError::OutOfRange { .. })), "{beyond:?}");
    drop(device);
    let again = FsImages.open(path, ImageOwner::Foreign).expect("free again");
    let mut found = vec![0; SIZE as usize];
    again.read_at(0, &mut found).expect("read");
    assert!(found == expected, "{name}: what was written is there after reopening");
    expected
}

#[test]
fn every_kind_of_image_conforms() {
    let temp = tempfile::tempdir().expect("a directory");
    image_suite(&temp.path().join("a.raw"), "raw");
    image_suite(&temp.path().join("a.qcow2"), "qcow2");
    assert!(Qcow2Device::open(&temp.path().join("a.raw"), OpenMode::ReadOnly).is_err());
}

/// A write into a mapped file changes none of the file's own tables: a power cut between two writes
/// can't leave them torn. Shown by comparing all that lies outside the disk's own clusters.
#[test]
fn writes_into_a_mapped_file_touch_no_table() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("image.qcow2");
    Qcow2Device::create(&path, SIZE, Qcow2Space::Mapped).expect("made");
    let before = std::fs::read(&path).expect("read");
    let device = Qcow2Device::open(&path, OpenMode::ReadWrite).expect("opened");
    device.write_at(0, &vec![0xee; SIZE as usize]).expect("written");
    device.flush().expect("flushed");
    drop(device);
    let after = std::fs::read(&path).expect("read");
    assert_eq!(before.len(), after.len(), "nothing was allocated");
    let changed = before.iter().zip(&after).filter(|(old, new)| old != new);
    let (mut count, mut other) = (0, 0);
    for (old, new) in changed {
        count += 1;
        other += u64::from((*old, *new) != (0, 0xee));
    }
    assert_eq!((count, other), (SIZE, 0), "only the disk's own bytes were written");
}

#[test]
fn another_program_finds_the_file_sound_and_equal() {
    if !require(&["qemu-img"]) {
        return;
    }
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("image.qcow2");
    let expected = image_suite(&path, "qcow2-peer");
    let raw = temp.path().join("expected.raw");
    let device = FileDevice::create(&raw, SIZE).expect("made");
    device.write_at(0, &expected).expect("written");
    device.flush().expect("flushed");
    let thin = temp.path().join("thin.qcow2");
    Qcow2Device::create(&thin, SIZE, Qcow2Space::Thin).expect("made");
    let device = Qcow2Device::open(&thin, OpenMode::ReadWrite).expect("opened");
    device.write_at(0, &expected).expect("written");
    device.flush().expect("flushed");
    drop(device);
    for image in [&path, &thin] {
        qemu_img(&["check", "-f", "qcow2"], &[image]);
        qemu_img(&["compare", "-f", "qcow2", "-F", "raw"], &[image, &raw]);
    }
}

fn qemu_img(words: &[&str], files: &[&Path]) {
    let out = Command::new("qemu-img").args(words).args(files).output().expect("runs");
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stdout));
}
