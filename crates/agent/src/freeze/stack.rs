//! What lies under a block device, as the kernel tells it.

use std::fs;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A device number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Device {
    fn from_number(number: u64) -> Self {
        Self { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
    }
}

impl FromStr for Device {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.trim().split_once(':').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// How devices lie on each other.
pub(crate) trait Stack {
    /// The devices directly below: the disk of a partition, the members of an array or volume.
    fn below(&self, device: Device) -> Vec<Device>;
    /// The number of the file system that the device's file lies on, for a loop device.
    fn file_system_below(&self, device: Device) -> Option<Device>;
    /// The device behind a path.
    fn device_of(&self, path: &Path) -> Option<Device>;
}

/// This machine.
pub(crate) struct Sysfs;

impl Stack for Sysfs {
    fn below(&self, device: Device) -> Vec<Device> {
        let dir = dir(device);
        let number = |dir: PathBuf| fs::read_to_string(dir.join("dev")).ok()?.parse().ok();
        if dir.join("partition").exists() {
            // The folder of a partition lies in that of its disk.
            let disk = fs::canonicalize(&dir).ok().and_then(|full| number(full.join("..")));
            return disk.into_iter().collect();
        }
        let Ok(slaves) = fs::read_dir(dir.join("slaves")) else { return Vec::new() };
        slaves.flatten().filter_map(|slave| number(slave.path())).collect()
    }

    fn file_system_below(&self, device: Device) -> Option<Device> {
        let file = fs::read_to_string(dir(device).join("loop/backing_file")).ok()?;
        let metadata = fs::metadata(file.trim_end_matches('\n')).ok()?;
        Some(Device::from_number(metadata.st_dev()))
    }

    fn device_of(&self, path: &Path) -> Option<Device> {
        let metadata = fs::metadata(path).ok()?;
        (metadata.st_rdev() != 0).then(|| Device::from_number(metadata.st_rdev()))
    }
}

fn dir(device: Device) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", device.major, device.minor))
}
