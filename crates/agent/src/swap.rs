//! Swap partitions of the protected disks: what is written there is worth nothing after a reboot,
//! here or elsewhere, so it is neither captured nor sent (RQ-RP-7).

use landfall_types::ByteRange;
use std::fs;
use std::path::{Path, PathBuf};

/// The first page holds what makes it a swap partition, and is kept.
const HEADER_BYTES: u64 = 4096;
const SECTOR_BYTES: u64 = 512;

/// A range of a disk, by the kernel's name of the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SwapRange {
    pub(crate) disk: String,
    pub(crate) range: ByteRange,
}

/// The partitions that are swapped to now.
pub(crate) fn ranges() -> Vec<SwapRange> {
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let full = |path: &str| fs::canonicalize(path).ok();
    devices(&table).filter_map(|path| range(Path::new("/sys/class/block"), &full(path)?)).collect()
}

/// The devices of the kernel's table; files are part of a file system, and left in.
fn devices(table: &str) -> impl Iterator<Item = &str> {
    let lines = table.lines().skip(1).map(str::split_whitespace);
    lines.filter_map(|mut words| {
        let path = words.next()?;
        (words.next() == Some("partition")).then_some(path)
    })
}

/// Where a partition lies; `None` for what is no partition: a whole disk, a volume.
fn range(blocks: &Path, device: &Path) -> Option<SwapRange> {
    let dir: PathBuf = fs::canonicalize(blocks.join(device.file_name()?)).ok()?;
    if !dir.join("partition").exists() {
        return None;
    }
    let number = |name| {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        text.trim().parse::<u64>().ok()?.checked_mul(SECTOR_BYTES)
    };
    let (start, size) = (number("start")?, number("size")?);
    let range = ByteRange { start: start + HEADER_BYTES, end: start + size };
    let disk = dir.parent()?.file_name()?.to_string_lossy().into_owned();
    (range.start < range.end).then_some(SwapRange { disk, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_partition_is_left_out_but_for_its_header() {
        let table = "Filename Type Size Used Priority\n\
                     /dev/sda5 partition 1000 0 -2\n/swapfile file 1000 0 -3\n";
        assert_eq!(devices(table).collect::<Vec<_>>(), ["/dev/sda5"]);
        let dir = tempfile::tempdir().expect("a directory");
        let partition = dir.path().join("sda/sda5");
        fs::create_dir_all(&partition).expect("a directory");
        std::os::unix::fs::symlink(&partition, dir.path().join("sda5")).expect("a link");
        for (name, text) in [("partition", "5\n"), ("start", "2048\n"), ("size", "800\n")] {
            fs::write(partition.join(name), text).expect("writes");
        }
        let range = range(dir.path(), Path::new("/dev/sda5")).expect("is a partition");
        let expected = ByteRange { start: (1 << 20) + 4096, end: (1 << 20) + 800 * 512 };
        assert_eq!(range, SwapRange { disk: "sda".to_owned(), range: expected });
        assert_eq!(super::range(dir.path(), Path::new("/dev/sda")), None, "a whole disk");
    }
}
