//! What the demo needs, told before anything is changed.

use anyhow::{Context as _, Result};
use std::fmt;
use std::path::Path;

/// Something that this machine lacks.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Missing {
    /// What.
    pub what: String,
    /// How to get it.
    pub cure: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {} ({})", self.what, self.cure)
    }
}

/// A program that the demo calls, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("losetup", "util-linux"),
    ("blockdev", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("nbdfuse", "libnbd-bin"),
];

/// A file of the kernel that the demo needs, and how to get it.
const FILES: &[(&str, &str)] = &[
    ("/dev/loop-control", "modprobe loop; in a container: --privileged"),
    ("/dev/fuse", "modprobe fuse; in a container: --device /dev/fuse, or --privileged"),
    ("/sys/kernel/btf/vmlinux", "a kernel of 5.17 or newer with CONFIG_DEBUG_INFO_BTF"),
];

/// Everything that is missing; empty when the demo can run. Changes nothing.
///
/// # Errors
/// When the kernel's own files can't be read.
pub(crate) fn missing(parent: &Path, space_bytes: u64) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let mut lacks =
        |what: String, cure: &str| missing.push(Missing { what, cure: cure.to_owned() });
    if !rustix::process::geteuid().is_root() {
        lacks("root".to_owned(), "run it as root or with sudo");
    }
    for (path, cure) in FILES {
        if !Path::new(path).exists() {
            lacks((*path).to_owned(), cure);
        }
    }
    for (program, package) in PROGRAMS {
        if !is_on_path(program) {
            lacks(format!("the program {program}"), &format!("apt-get install {package}"));
        }
    }
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        let cure =
            "boot without lockdown=confidentiality: it forbids programs to read what is written";
        lacks("kernel lockdown below confidentiality".to_owned(), cure);
    }
    let free = free_bytes(parent)?;
    if free < space_bytes {
        let cure = "make room, name another directory with --dir, or give a smaller --size";
        let what = format!("{} in {} (free: {})", mib(space_bytes), parent.display(), mib(free));
        lacks(what, cure);
    }
    Ok(missing)
}

/// Bytes that a file system has left, at the nearest parent of `dir` that exists.
///
/// # Errors
/// When the file system does not say.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let dir = std::path::absolute(dir)?;
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there)
        .with_context(|| format!("ask for the free space of {}", there.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Root's programs are not on everybody's path, but Debian has them there.
    let more = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(more).any(|dir| dir.join(program).is_file())
}

/// As people read it.
pub(crate) fn mib(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_told_with_its_cure() {
        let missing = missing(Path::new("/tmp/not/there/yet"), u64::MAX).unwrap();
        let space = missing.last().unwrap();
        assert!(space.what.contains("/tmp/not/there/yet"), "{space}");
        assert!(space.cure.contains("--dir"), "{space}");
    }

    #[test]
    fn programs_are_looked_for() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("no-such-program-anywhere"));
    }
}
