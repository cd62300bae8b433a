//! Kernels that `cargo xtask guest-kernels` has fetched and unpacked.

use std::fs;
use std::path::{Path, PathBuf};

/// An unpacked kernel of Debian.
#[derive(Clone, Debug)]
pub struct Kernel {
    name: String,
    release: String,
    root: PathBuf,
}

impl Kernel {
    /// The kernel called `name` (series and flavor, for example `6.12-cloud`), if it was fetched.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::open(&landfall_testkit::guest_kernels()?.join(name))
    }

    /// All that were fetched, in the order of their names.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let Some(entries) = landfall_testkit::guest_kernels().and_then(|d| fs::read_dir(d).ok())
        else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().filter_map(|path| Self::open(path)).collect()
    }

    fn open(root: &Path) -> Option<Self> {
        let name = root.file_name()?.to_str()?.to_owned();
        let image = fs::read_dir(root.join("boot")).ok()?.flatten().find_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            file.strip_prefix("vmlinuz-").map(str::to_owned)
        })?;
        Some(Self { name, release: image, root: root.to_owned() })
    }

    /// Series and flavor, for example `6.12-cloud`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `uname -r` says in the guest.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// What QEMU starts.
    pub(crate) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// Modules and their lists.
    pub(crate) fn modules(&self) -> PathBuf {
        let below = format!("lib/modules/{}", self.release);
        let merged = self.root.join("usr").join(&below);
        if merged.is_dir() { merged } else { self.root.join(below) }
    }
}
