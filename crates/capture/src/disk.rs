//! Which disk is meant, how large it is, and whether its writes can be captured.

use crate::CaptureError;
use landfall_types::DiskGeometry;
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
    /// [`CaptureError::Disk`] with reason and cure for what can't be captured: no block device, a
    /// partition, read-only, empty, zoned, direct access (DAX), or a member of an array whose
    /// writes pass beside the hook (trap T-7).
    pub fn inspect(path: &Path) -> Result<Self, CaptureError> {
        let refuse = |reason: String| Err(CaptureError::Disk { path: path.to_owned(), reason });
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return refuse("there is no such device".to_owned());
            }
            Err(source) => return Err(CaptureError::Inspect { path: path.to_owned(), source }),
        };
        if !metadata.file_type().is_block_device() {
            return refuse("it is not a block device".to_owned());
        }
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let sysfs = sysfs(major, minor);
        if sysfs.join("partition").exists() {
            return refuse("it is a partition: protect the whole disk".to_owned());
        }
        let name = match fs::canonicalize(&sysfs) {
            Ok(full) => full.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Err(_) => return refuse("the kernel does not know this device number".to_owned()),
        };
        let sectors: u64 = number(&sysfs.join("size"))?;
        let sector_bytes: u32 = number(&sysfs.join("queue/logical_block_size"))?;
        let size_bytes = sectors * 512;
        if size_bytes == 0 {
            return refuse("its size is 0".to_owned());
        }
        if let Some(reason) = unfit(&sysfs)? {
            return refuse(reason);
        }
        let diskseq = number(&sysfs.join("diskseq"))?;
        let geometry = DiskGeometry { size_bytes, sector_bytes };
        Ok(Self { path: path.to_owned(), name, major, minor, diskseq, geometry })
    }

    /// True while the number still names this disk.
    #[must_use]
    pub fn is_present(&self) -> bool {
        number::<u64>(&self.sysfs().join("diskseq")).is_ok_and(|now| now == self.diskseq)
    }

    /// The size that the kernel gives now: a disk can grow (trap T-9).
    ///
    /// # Errors
    /// [`CaptureError::Inspect`] when the disk is gone.
    pub fn size_bytes_now(&self) -> Result<u64, CaptureError> {
        number::<u64>(&self.sysfs().join("size")).map(|sectors| sectors * 512)
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

fn sysfs(major: u32, minor: u32) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// Why the disk's writes can't be captured.
fn unfit(sysfs: &Path) -> Result<Option<String>, CaptureError> {
    if number::<u64>(&sysfs.join("ro"))? != 0 {
        return Ok(Some("it is read-only".to_owned()));
    }
    let zoned = read(&sysfs.join("queue/zoned")).unwrap_or_else(|_| "none".to_owned());
    if zoned != "none" {
        return Ok(Some(format!("it is zoned ({zoned}): its writes choose their own place")));
    }
    if read(&sysfs.join("queue/dax")).is_ok_and(|dax| dax == "1") {
        return Ok(Some("it is written by direct access (DAX), past the block layer".to_owned()));
    }
    let holders = match fs::read_dir(sysfs.join("holders")) {
        Ok(holders) => holders,
        Err(_) => return Ok(None),
    };
    for holder in holders.flatten() {
        let level = read(&holder.path().join("md/level")).unwrap_or_default();
        if level == "linear" || level == "raid0" {
            let array = holder.file_name().to_string_lossy().into_owned();
            return Ok(Some(format!(
                "it is a member of the array {array} ({level}), whose writes pass beside the hook: protect /dev/{array}"
            )));
        }
    }
    Ok(None)
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
