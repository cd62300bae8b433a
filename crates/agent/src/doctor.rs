//! What a machine offers an agent, and what would improve it: without installing anything, without
//! protecting anything.

use crate::freeze::mounts_of;
use landfall_capture::{Disk, Options, self_test};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnosis {
    /// The machine's name.
    pub host: String,
    /// Its kernel's release.
    pub kernel: String,
    /// What capture needs of the machine.
    pub checks: Vec<Check>,
    /// What can be had of each disk.
    pub disks: Vec<DiskDiagnosis>,
}

/// One thing that capture needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// It is there.
    pub good: bool,
    /// What there is.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub cure: String,
}

/// One disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DiskDiagnosis {
    /// Its device.
    pub path: String,
    /// `data`, or `refused`.
    pub mode: String,
    /// Why not better; empty where there is nothing better.
    pub reason: String,
    /// The mounted file systems that a frozen point of this disk freezes, in that order.
    pub mounts: Vec<String>,
}

/// Looks at this machine; all whole disks where `disks` names none. Blocks for some seconds: bytes
/// are captured from a scratch disk, and compared.
#[must_use]
pub fn diagnose(disks: &[PathBuf]) -> Diagnosis {
    let text = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let bytes = self_test(&Options::default());
    let mut checks = vec![kernel_types(), lockdown(), bpffs(), privileges()];
    let captured = bytes.is_ok();
    checks.push(Check {
        name: "capture of bytes".to_owned(),
        good: captured,
        found: match &bytes {
            Ok(report) => format!("{} bytes captured and compared", report.bytes),
            Err(error) => crate::run::with_causes(error),
        },
        cure: cure(captured, "see what is lacking above; until then disks can't be protected"),
    });
    let every = if disks.is_empty() { whole_disks() } else { disks.to_vec() };
    Diagnosis {
        host: text("/proc/sys/kernel/hostname"),
        kernel: text("/proc/sys/kernel/osrelease"),
        checks,
        disks: every.iter().map(|path| disk(path, captured)).collect(),
    }
}

fn cure(good: bool, cure: &str) -> String {
    if good { String::new() } else { cure.to_owned() }
}

fn kernel_types() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    let good = Path::new(path).exists();
    Check {
        name: "types of the kernel (BTF)".to_owned(),
        good,
        found: if good { path.to_owned() } else { format!("no {path}") },
        cure: cure(
            good,
            "use a kernel with CONFIG_DEBUG_INFO_BTF: those of Debian since 11 have it",
        ),
    }
}

fn lockdown() -> Check {
    let found = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let good = !found.contains("[confidentiality]");
    Check {
        name: "lockdown".to_owned(),
        good,
        found: if found.is_empty() { "none".to_owned() } else { found.trim().to_owned() },
        cure: cure(
            good,
            "start the kernel with lockdown=integrity: confidentiality hides what is written",
        ),
    }
}

fn bpffs() -> Check {
    let good = crate::settings::bpffs();
    Check {
        name: "file system for pinned programs".to_owned(),
        good,
        found: if good { "/sys/fs/bpf".to_owned() } else { "/sys/fs/bpf is no bpffs".to_owned() },
        cure: cure(good, "mount -t bpf bpf /sys/fs/bpf; without it each start compares the disks"),
    }
}

/// Numbers: linux/capability.h.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

fn privileges() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let lacking = CAPABILITIES.iter().filter(|(_, number)| set >> number & 1 == 0);
    let lacking: Vec<&str> = lacking.map(|(name, _)| *name).collect();
    let good = lacking.is_empty();
    Check {
        name: "rights of this process".to_owned(),
        good,
        found: if good { "all".to_owned() } else { format!("without {}", lacking.join(", ")) },
        cure: cure(good, "run as root, or with these capabilities"),
    }
}

/// The disks that the kernel has, without those that only exist in memory or in files.
pub(crate) fn whole_disks() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let real = names.filter(|name| {
        !["loop", "ram", "zram", "nbd", "sr", "fd"].iter().any(|kind| name.starts_with(kind))
    });
    let mut paths: Vec<PathBuf> =
        real.map(|name| Path::new("/dev").join(name.replace('!', "/"))).collect();
    paths.sort();
    paths
}

fn disk(path: &Path, captured: bool) -> DiskDiagnosis {
    let shown = path.display().to_string();
    match Disk::inspect(path) {
        Err(error) => DiskDiagnosis {
            path: shown,
            mode: "refused".to_owned(),
            reason: crate::run::with_causes(&error),
            mounts: Vec::new(),
        },
        Ok(disk) => DiskDiagnosis {
            path: shown,
            mode: if captured { "data" } else { "refused" }.to_owned(),
            reason: cure(captured, "bytes can't be captured on this machine"),
            mounts: mounts_of(std::slice::from_ref(&disk)).map_or_else(
                |_| Vec::new(),
                |mounts| mounts.iter().map(|path| path.display().to_string()).collect(),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_refused_with_its_reason() {
        let found = disk(Path::new("/dev/null"), true);
        assert_eq!((found.mode.as_str(), found.mounts.len()), ("refused", 0));
        assert!(found.reason.contains("not a block device"), "{found:?}");
    }

    #[test]
    fn what_is_lacking_has_a_cure_and_what_is_not_has_none() {
        for check in [kernel_types(), lockdown(), bpffs(), privileges()] {
            assert_eq!(check.good, check.cure.is_empty(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }
}
