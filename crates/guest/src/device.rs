//! Disks of a guest.

use std::path::{Path, PathBuf};

/// How a disk is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bus {
    /// virtio-blk: `/dev/vdX`.
    #[default]
    Virtio,
    /// A disk of a virtio-scsi controller: `/dev/sdX`.
    Scsi,
    /// An NVMe controller with one namespace: `/dev/nvmeXn1`.
    Nvme,
}

/// A disk of a guest, backed by a raw file or an NBD server of this machine.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(crate) name: String,
    pub(crate) backing: Backing,
    pub(crate) bus: Bus,
    pub(crate) sector_bytes: u32,
    pub(crate) read_only: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Backing {
    /// A sparse file that belongs to the guest.
    Blank(u64),
    /// A file of the test.
    File(PathBuf),
    /// An export of an NBD server of this machine.
    Nbd {
        /// Its Unix socket.
        socket: PathBuf,
        /// The export's name.
        export: String,
    },
}

/// How long QEMU keeps what the guest asks for while the server is away, in seconds: longer than a
/// master target takes to start, shorter than the guest's own patience.
const RECONNECT_S: u32 = 25;

/// A serial number that virtio takes has no more characters.
const NAME_LENGTH_MAX: usize = 20;

impl Disk {
    /// An empty disk of `bytes`, which lives as long as the guest. `name` is its serial number: the
    /// guest finds it by `$(disk NAME)`.
    ///
    /// # Panics
    /// On a name that is no serial number: longer than 20, or other than letters, digits and `-`.
    #[must_use]
    pub fn blank(name: &str, bytes: u64) -> Self {
        Self::new(name, Backing::Blank(bytes))
    }

    /// A disk over the raw file `path`, which stays after the guest.
    ///
    /// # Panics
    /// As [`Disk::blank`].
    #[must_use]
    pub fn file(name: &str, path: &Path) -> Self {
        Self::new(name, Backing::File(path.to_owned()))
    }

    /// A disk over an export of an NBD server of this machine. While the server is away the guest
    /// waits.
    ///
    /// # Panics
    /// As [`Disk::blank`].
    #[must_use]
    pub fn nbd(name: &str, socket: &Path, export: &str) -> Self {
        let (socket, export) = (socket.to_owned(), export.to_owned());
        Self::new(name, Backing::Nbd { socket, export })
    }

    fn new(name: &str, backing: Backing) -> Self {
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        assert!(
            is_plain && (1..=NAME_LENGTH_MAX).contains(&name.len()),
            "{name:?} can't be a serial number"
        );
        Self {
            name: name.to_owned(),
            backing,
            bus: Bus::default(),
            sector_bytes: 512,
            read_only: false,
        }
    }

    /// Attached in this way; virtio-blk unless told otherwise.
    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// With logical and physical sectors of this size, 512 or 4096 bytes.
    #[must_use]
    pub fn sector_bytes(mut self, bytes: u32) -> Self {
        self.sector_bytes = bytes;
        self
    }

    /// The guest can't write it.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The file or socket behind the disk, for a guest that keeps its files in `directory`.
    pub(crate) fn path(&self, directory: &Path) -> PathBuf {
        match &self.backing {
            Backing::Blank(_) => directory.join(format!("{}.raw", self.name)),
            Backing::File(path) | Backing::Nbd { socket: path, .. } => path.clone(),
        }
    }

    /// The block node of QEMU.
    pub(crate) fn node(&self) -> String {
        format!("node-{}", self.name)
    }

    /// QEMU's name of the device, and its driver with the properties that a hot-plug needs too.
    pub(crate) fn device(&self) -> serde_json::Value {
        let driver = match self.bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Scsi => "scsi-hd",
            Bus::Nvme => "nvme",
        };
        let mut device = serde_json::json!({
            "driver": driver,
            "id": format!("disk-{}", self.name),
            "drive": self.node(),
            "serial": self.name,
            "logical_block_size": self.sector_bytes,
            "physical_block_size": self.sector_bytes,
        });
        if self.bus == Bus::Scsi {
            device["bus"] = "scsi0.0".into();
        }
        device
    }

    /// The block node as QMP and `-blockdev` take it.
    pub(crate) fn blockdev(&self, directory: &Path) -> serde_json::Value {
        let path = self.path(directory);
        let file = match &self.backing {
            Backing::Blank(_) | Backing::File(_) => {
                serde_json::json!({ "driver": "file", "filename": path })
            }
            Backing::Nbd { export, .. } => serde_json::json!({
                "driver": "nbd",
                "server": { "type": "unix", "path": path },
                "export": export,
                "reconnect-delay": RECONNECT_S,
            }),
        };
        serde_json::json!({
            "driver": "raw",
            "node-name": self.node(),
            "read-only": self.read_only,
            "discard": "unmap",
            "file": file,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_4_kib_sectors_on_scsi() {
        let disk = Disk::blank("data", 1 << 20).bus(Bus::Scsi).sector_bytes(4096);
        let device = disk.device();
        assert_eq!(device["driver"], "scsi-hd");
        assert_eq!(device["bus"], "scsi0.0");
        assert_eq!(device["logical_block_size"], 4096);
        let node = disk.blockdev(Path::new("/x"));
        assert_eq!(node["file"]["filename"], "/x/data.raw");
    }

    #[test]
    #[should_panic(expected = "can't be a serial number")]
    fn a_name_that_a_script_could_not_use_is_refused() {
        let _disk = Disk::blank("a b", 1);
    }
}
