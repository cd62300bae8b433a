//! Which disk is meant, how large it is, and whether its writes can be captured.

use crate::{CaptureError, Unfit};
use landfall_types::{ByteRange, DiskGeometry};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A whole disk of this machine, by its identity: the number alone can name another disk later
/// (trap T-8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// As it was given.
    pub path: PathBuf,
    /// The kernel's name, for example `vda`.
    pub name: String,
    /// Major device number.
    pub major: u32,
    /// Minor device number of the whole disk.
    pub minor: u32,
    /// Counts every disk that has appeared since boot.
    pub diskseq: u64,
    /// Size and logical sector size.
    pub geometry: DiskGeometry,
}

impl Disk {
    /// Looks at the disk behind `path`; a mounted disk is fine.
    ///
    /// # Errors
    /// [`CaptureError::Disk`] with the reason for what can't be captured ([`Unfit`]).
    pub fn inspect(path: &Path) -> Result<Self, CaptureError> {
        let refuse = |reason: Unfit| Err(CaptureError::Disk { path: path.to_owned(), reason });
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return refuse(Unfit::Missing);
            }
            Err(source) => return Err(CaptureError::Inspect { path: path.to_owned(), source }),
        };
        if !metadata.file_type().is_block_device() {
            return refuse(Unfit::NotBlockDevice);
        }
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let sysfs = sysfs(major, minor);
        if sysfs.join("partition").exists() {
            return refuse(Unfit::Partition);
        }
        let name = match fs::canonicalize(&sysfs) {
            Ok(full) => full.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Err(_) => return refuse(Unfit::Missing),
        };
        let sectors: u64 = number(&sysfs.join("size"))?;
        let sector_bytes: u32 = number(&sysfs.join("queue/logical_block_size"))?;
        let size_bytes = sectors * 512;
        if size_bytes == 0 {
            return refuse(Unfit::Empty);
        }
        if let Some(reason) = unfit(&sysfs, &name)? {
            return refuse(reason);
        }
        // Linux 5.15 and newer; the program then finds 0 too.
        let diskseq = number(&sysfs.join("diskseq")).unwrap_or(0);
        let geometry = DiskGeometry { size_bytes, sector_bytes };
        Ok(Self { path: path.to_owned(), name, major, minor, diskseq, geometry })
    }

    /// True while the number still names this disk.
    #[must_use]
    pub fn is_present(&self) -> bool {
        match number::<u64>(&self.sysfs().join("diskseq")) {
            Ok(now) => now == self.diskseq,
            Err(_) => self.diskseq == 0 && self.size_bytes_now().is_ok(),
        }
    }

    /// The size that the kernel gives now: a disk can grow (trap T-9).
    ///
    /// # Errors
    /// [`CaptureError::Inspect`] when the disk is gone.
    pub fn size_bytes_now(&self) -> Result<u64, CaptureError> {
        number::<u64>(&self.sysfs().join("size")).map(|sectors| sectors * 512)
    }

    /// True when this kernel has counted no write to the disk since the disk appeared, and counts
    /// at all.
    pub(crate) fn is_unwritten(&self) -> bool {
        let sysfs = self.sysfs();
        let counts = read(&sysfs.join("queue/iostats")).is_ok_and(|on| on == "1");
        let waiting = read(&sysfs.join("inflight"));
        let waiting = waiting.ok().and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
        let stat = read(&sysfs.join("stat")).unwrap_or_default();
        counts && waiting == Some(0_u64) && ended_writes(&stat) == Some(0)
    }

    /// Requests that the kernel counts as in flight: reads and writes where it can't tell them
    /// apart.
    pub(crate) fn in_flight(&self) -> Result<u64, CaptureError> {
        let inflight = read(&self.sysfs().join("inflight"))?;
        let writes = inflight.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        // The first counts what the driver has; the second, on newer kernels, also what still waits
        // for it.
        let stat = read(&self.sysfs().join("stat"))?;
        let all = stat.split_whitespace().nth(8).and_then(|n| n.parse::<u64>().ok());
        Ok(writes.unwrap_or(1).max(all.unwrap_or(1)))
    }

    fn sysfs(&self) -> PathBuf {
        sysfs(self.major, self.minor)
    }
}

/// Writes and discards that have ended, by a line of the kernel's statistics of a disk
/// (Documentation/block/stat.rst); kernels before 4.18 count no discards.
fn ended_writes(stat: &str) -> Option<u64> {
    let words: Vec<u64> = stat.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some(words.get(4)? + words.get(11).unwrap_or(&0))
}

fn sysfs(major: u32, minor: u32) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// Why the disk's writes can't be captured.
fn unfit(sysfs: &Path, name: &str) -> Result<Option<Unfit>, CaptureError> {
    if number::<u64>(&sysfs.join("ro"))? != 0 {
        return Ok(Some(Unfit::ReadOnly));
    }
    let zoned = read(&sysfs.join("queue/zoned")).unwrap_or_else(|_| "none".to_owned());
    if zoned != "none" {
        return Ok(Some(Unfit::Zoned));
    }
    if read(&sysfs.join("queue/dax")).is_ok_and(|dax| dax == "1") {
        return Ok(Some(Unfit::Dax));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if is_shared(&mounts, name) {
        return Ok(Some(Unfit::Shared));
    }
    Ok(holders(sysfs).iter().find_map(|holder| stack(holder)))
}

/// Devices on top of the disk and of its partitions.
fn holders(sysfs: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| {
        let found = fs::read_dir(path).into_iter().flatten().flatten();
        found.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let partitions = entries(sysfs).into_iter().filter(|path| path.join("partition").exists());
    let all = std::iter::once(sysfs.to_owned()).chain(partitions);
    all.flat_map(|device| entries(&device.join("holders"))).collect()
}

/// Whether a device on top makes this one unfit (trap T-7): a member of an array, whose writes may
/// pass beside the hook and whose content alone is worth nothing, or one path of several to a disk.
/// Other stacks (LVM, dm-crypt) send each write through the hook of the disk below.
fn stack(holder: &Path) -> Option<Unfit> {
    let on_top = holder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Ok(level) = read(&holder.join("md/level")) {
        return Some(Unfit::ArrayMember { on_top, level });
    }
    let uuid = read(&holder.join("dm/uuid")).unwrap_or_default();
    uuid.starts_with("mpath-").then_some(Unfit::Path { on_top })
}

/// True when a file system is mounted from this disk that other machines write at the same time.
fn is_shared(mounts: &str, name: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ');
        let (device, kind) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let device = device.strip_prefix("/dev/").unwrap_or_default();
        (kind == "gfs2" || kind == "ocfs2") && is_part(device, name)
    })
}

/// True for a disk and its partitions: `vda`, `vda1`; `nvme0n1`, `nvme0n1p1`.
fn is_part(device: &str, name: &str) -> bool {
    let Some(rest) = device.strip_prefix(name) else { return false };
    let ends_in_digit = name.ends_with(|c: char| c.is_ascii_digit());
    let number = match (ends_in_digit, rest.strip_prefix('p')) {
        (true, Some(number)) => number,
        (true, None) | (false, _) => rest,
    };
    rest.is_empty()
        || (!ends_in_digit || rest.starts_with('p'))
            && number.chars().all(|c| c.is_ascii_digit())
            && !number.is_empty()
}

/// Swap on a disk, in whole partitions: bytes of the disk. What is written there need not be
/// captured ([`crate::Options::excluded`]).
///
/// # Errors
/// [`CaptureError::Inspect`].
pub fn swap_ranges(disk: &Disk) -> Result<Vec<ByteRange>, CaptureError> {
    let swaps = read(Path::new("/proc/swaps"))?;
    let mut ranges = Vec::new();
    for line in swaps.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(device), Some("partition")) = (words.next(), words.next()) else { continue };
        let Some(name) = device.strip_prefix("/dev/") else { continue };
        if name == disk.name || !is_part(name, &disk.name) {
            continue;
        }
        let partition = disk.sysfs().join(name);
        let start = number::<u64>(&partition.join("start"))? * 512;
        let length = number::<u64>(&partition.join("size"))? * 512;
        ranges.extend(ByteRange::at(start, length));
    }
    Ok(ranges)
}

fn read(path: &Path) -> Result<String, CaptureError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(CaptureError::Inspect { path: path.to_owned(), source }),
    }
}

fn number<T: std::str::FromStr>(path: &Path) -> Result<T, CaptureError> {
    read(path)?.parse().map_err(|_| CaptureError::Inspect {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "not a number"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_belong_to_their_disk() {
        for (device, name) in [("vda", "vda"), ("vda1", "vda"), ("nvme0n1p12", "nvme0n1")] {
            assert!(is_part(device, name), "{device} {name}");
        }
        for (device, name) in [("vdaa", "vda"), ("loop10", "loop1"), ("loop1p", "loop1")] {
            assert!(!is_part(device, name), "{device} {name}");
        }
    }

    #[test]
    fn writes_and_discards_are_counted() {
        let stat = "  100 0 800 10  7 0 56 3  0 20 13  2 0 16 1  9 4";
        assert_eq!(ended_writes(stat), Some(9));
        assert_eq!(ended_writes("1 0 8 1 0 0 0 0 0 1 1"), Some(0));
        assert_eq!(ended_writes("1 2"), None, "nothing is known");
    }

    #[test]
    fn file_systems_of_several_machines_are_recognized() {
        let mounts = "/dev/vda1 / ext4 rw 0 0\n/dev/vdb1 /data gfs2 rw 0 0\n";
        assert!(!is_shared(mounts, "vda"));
        assert!(is_shared(mounts, "vdb"));
    }
}
