//! Which file systems lie on the protected disks, and in which order they are frozen.

use super::stack::{Device, Stack};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Layers of file systems in files of file systems that are followed at most.
const DEPTH_MAX: usize = 8;

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    /// Of its file system.
    pub(super) device: Device,
    pub(super) path: PathBuf,
    /// What was mounted: a device where the file system is on one.
    pub(super) source: PathBuf,
    pub(super) read_only: bool,
}

/// Reads the kernel's table; lines that are not understood are left out.
pub(super) fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(parse_line).collect()
}

// 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let device = left.nth(2)?.parse().ok()?;
    let path = unescape(left.nth(1)?);
    let mut right = right.split(' ');
    let source = unescape(right.nth(1)?);
    let read_only = right.next()?.split(',').any(|option| option == "ro");
    Some(Mount { device, path, source, read_only })
}

/// Space, tab, newline and backslash stand as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

/// The mount points to freeze, in that order: each file system once, dependents first. A file
/// system in a file of another one comes before it, because to freeze it means to write to it.
pub(super) fn to_freeze(
    mounts: &[Mount],
    stack: &dyn Stack,
    protected: &BTreeSet<Device>,
) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<(usize, &Path)> = Vec::new();
    // The newest mount on a path hides the older ones.
    for mount in mounts.iter().rev() {
        let device = block_device(mount, stack);
        if mount.read_only || !seen.insert(device) {
            continue;
        }
        if let Some(depth) = depth_above(device, mounts, stack, protected, DEPTH_MAX) {
            found.push((depth, &mount.path));
        }
    }
    found.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    found.into_iter().map(|(_, path)| path.to_owned()).collect()
}

/// File systems of several devices (btrfs) have a number of their own; their source names one of
/// the devices.
fn block_device(mount: &Mount, stack: &dyn Stack) -> Device {
    if mount.device.major != 0 {
        return mount.device;
    }
    stack.device_of(&mount.source).unwrap_or(mount.device)
}

/// How many file systems lie between this device and a protected disk; `None` when it lies on
/// none.
fn depth_above(
    device: Device,
    mounts: &[Mount],
    stack: &dyn Stack,
    protected: &BTreeSet<Device>,
    levels: usize,
) -> Option<usize> {
    if protected.contains(&device) {
        return Some(0);
    }
    let levels = levels.checked_sub(1)?;
    let below = |device| depth_above(device, mounts, stack, protected, levels);
    let direct = stack.below(device).into_iter().filter_map(below).max();
    let through_file = stack.file_system_below(device).and_then(|number| {
        let mount = mounts.iter().find(|mount| mount.device == number)?;
        below(block_device(mount, stack)).map(|depth| depth + 1)
    });
    direct.max(through_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Fake {
        below: BTreeMap<Device, Vec<Device>>,
        files: BTreeMap<Device, Device>,
        names: BTreeMap<&'static str, Device>,
    }

    impl Stack for Fake {
        fn below(&self, device: Device) -> Vec<Device> {
            self.below.get(&device).cloned().unwrap_or_default()
        }
        fn file_system_below(&self, device: Device) -> Option<Device> {
            self.files.get(&device).copied()
        }
        fn device_of(&self, path: &Path) -> Option<Device> {
            self.names.get(path.to_str()?).copied()
        }
    }

    const TABLE: &str = "\
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
22 21 0:5 / /dev rw - devtmpfs udev rw
23 21 253:0 / /srv/with\\040space rw - xfs /dev/mapper/vg-srv rw
24 21 7:3 / /mnt/in-a-file rw - ext4 /dev/loop3 rw
25 21 254:17 / /other rw - ext4 /dev/vdb1 rw
26 21 0:44 /sub /data rw - btrfs /dev/vda2 rw,subvol=/sub
27 21 0:44 /more /more rw - btrfs /dev/vda2 rw,subvol=/more
28 21 254:3 / /cd ro - iso9660 /dev/vda3 ro
29 21 254:1 /var /bind rw - ext4 /dev/vda1 rw
";

    fn device(major: u32, minor: u32) -> Device {
        Device { major, minor }
    }

    /// A volume in a volume group, a file system in a file of it, btrfs, a bind mount: each once,
    /// what lies in a file before what the file lies on.
    #[test]
    fn file_systems_of_the_disks_are_found_once_and_dependents_come_first() {
        let disk = device(254, 0);
        let mut fake = Fake::default();
        for partition in 1..=3 {
            fake.below.insert(device(254, partition), vec![disk]);
        }
        fake.below.insert(device(253, 0), vec![device(254, 2)]);
        fake.below.insert(device(254, 17), vec![device(254, 16)]);
        fake.files.insert(device(7, 3), device(253, 0));
        fake.names.insert("/dev/vda2", device(254, 2));
        let mounts = parse(TABLE);
        let order = to_freeze(&mounts, &fake, &BTreeSet::from([disk]));
        let at = |path: &str| order.iter().position(|one| one == Path::new(path));
        assert_eq!(order.len(), 4, "{order:?}");
        assert!(at("/mnt/in-a-file") < at("/srv/with space"), "{order:?}");
        assert!(at("/bind").or(at("/")).is_some() && at("/other").is_none(), "{order:?}");
        assert!(at("/more").or(at("/data")).is_some() && at("/cd").is_none(), "{order:?}");
    }

    #[test]
    fn a_stack_that_contains_itself_ends() {
        let mut fake = Fake::default();
        fake.below.insert(device(7, 3), vec![device(7, 3)]);
        let none = to_freeze(&parse(TABLE), &fake, &BTreeSet::from([device(1, 1)]));
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn lines_that_are_not_understood_are_left_out() {
        assert_eq!(parse("x\n1 2 3 - \n1 2 a:b / / rw - ext4 /dev/x rw\n"), []);
        assert_eq!(unescape("a\\0b\\134"), PathBuf::from("a\\0b\\"));
    }
}
