use std::fmt;

/// Index of a disk within its machine, 0 …; the log's records name disks by it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct DiskIndex(pub u16);

impl fmt::Display for DiskIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Size and sector size of a disk: part of every recovery point (trap T-9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct DiskGeometry {
    /// Size in bytes, a multiple of `sector_bytes`.
    pub size_bytes: u64,
    /// Logical sector size in bytes: 512 or 4096.
    pub sector_bytes: u32,
}
