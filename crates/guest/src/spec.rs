//! What a guest is made of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Bus, Disk, Kernel};

/// Modules that every guest loads: its disks' drivers, its control channel, its network.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_console", "virtio_blk", "virtio_net"];

/// What a guest is made of: see [`crate::Guest::boot`].
#[derive(Clone, Debug)]
pub struct Spec {
    pub(crate) boots: Boots,
    pub(crate) memory_mib: u32,
    pub(crate) processors: u32,
    pub(crate) programs: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) this_test: bool,
    pub(crate) patience: Duration,
}

/// What is started.
#[derive(Clone, Debug)]
pub(crate) enum Boots {
    /// An initramfs of ours.
    Ours(Kernel),
    /// A system that is installed on the first disk.
    Installed {
        /// Its kernel.
        kernel: PathBuf,
        /// Its initramfs.
        initramfs: PathBuf,
    },
}

impl Spec {
    /// A system that is installed on the first disk, started by its own kernel and initramfs, which
    /// lie in these files each time the guest is started. It has to have our control channel: see
    /// `init`.
    #[must_use]
    pub fn of_system(kernel: &Path, initramfs: &Path) -> Self {
        let (kernel, initramfs) = (kernel.to_owned(), initramfs.to_owned());
        Self::of(Boots::Installed { kernel, initramfs })
    }

    /// A guest of 2 processors and 512 MiB with nothing but busybox.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self::of(Boots::Ours(kernel))
    }

    fn of(boots: Boots) -> Self {
        Self {
            boots,
            memory_mib: 512,
            processors: 2,
            programs: Vec::new(),
            modules: MODULES.map(str::to_owned).to_vec(),
            files: Vec::new(),
            disks: Vec::new(),
            this_test: false,
            patience: Duration::from_secs(60),
        }
    }

    /// Its memory; the initramfs lies in it.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// The number of its processors.
    #[must_use]
    pub fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// A program of this machine, by name or path, with its libraries; it is in the guest's `PATH`.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Self {
        self.programs.push(program.into());
        self
    }

    /// Several programs.
    #[must_use]
    pub fn programs<'a>(mut self, programs: impl IntoIterator<Item = &'a str>) -> Self {
        self.programs.extend(programs.into_iter().map(str::to_owned));
        self
    }

    /// A kernel module that is loaded at boot, with what it needs; one that is built in is fine.
    #[must_use]
    pub fn module(mut self, module: &str) -> Self {
        self.modules.push(module.to_owned());
        self
    }

    /// Several modules.
    #[must_use]
    pub fn modules<'a>(mut self, modules: impl IntoIterator<Item = &'a str>) -> Self {
        self.modules.extend(modules.into_iter().map(str::to_owned));
        self
    }

    /// A file of this machine at a path of the guest, with the same permissions.
    #[must_use]
    pub fn file(mut self, from: &Path, to: &str) -> Self {
        self.files.push((from.to_owned(), PathBuf::from(to)));
        self
    }

    /// A disk. Scripts find it by `$(disk NAME)`.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        if disk.bus == Bus::Scsi {
            self.modules.extend(["virtio_scsi".to_owned(), "sd_mod".to_owned()]);
        }
        if disk.bus == Bus::Nvme {
            self.modules.push("nvme".to_owned());
        }
        self.disks.push(disk);
        self
    }

    /// How long any single call waits: 60 s unless told otherwise.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}
