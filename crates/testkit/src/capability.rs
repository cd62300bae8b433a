use std::path::Path;
use std::process::{Command, Stdio};

/// Something of the machine that a test needs.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// As it stands in `LANDFALL_REQUIRE`.
    pub name: &'static str,
    /// What to do where it is missing.
    pub cure: &'static str,
    probe: fn() -> bool,
}

const ALL: &[Capability] = &[
    Capability { name: "root", cure: "run as root or with sudo", probe: is_root },
    Capability {
        name: "loop",
        cure: "needs root and /dev/loop-control (kernel module loop; in a container: --privileged)",
        probe: has_loop,
    },
    Capability {
        name: "bpf",
        cure: "needs root, kernel 5.17 or newer with /sys/kernel/btf/vmlinux",
        probe: has_bpf,
    },
    Capability {
        name: "fuse",
        cure: "needs root, /dev/fuse and nbdfuse (package libnbd-bin)",
        probe: has_fuse,
    },
    Capability { name: "nbdkit", cure: "install the package nbdkit", probe: || runs("nbdkit") },
    Capability {
        name: "libnbd",
        cure: "install the package libnbd-bin",
        probe: || runs("nbdinfo"),
    },
    Capability {
        name: "qemu-img",
        cure: "install the package qemu-utils",
        probe: || runs("qemu-img"),
    },
    Capability { name: "fio", cure: "install the package fio", probe: || runs("fio") },
    Capability {
        name: "e2fsprogs",
        cure: "install the package e2fsprogs",
        probe: || Command::new("mkfs.ext4").arg("-V").stderr(Stdio::null()).status().is_ok(),
    },
];

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| {
            line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
        })
    })
}

fn has_loop() -> bool {
    is_root() && Path::new("/dev/loop-control").exists()
}

fn has_bpf() -> bool {
    is_root() && Path::new("/sys/kernel/btf/vmlinux").exists()
}

fn has_fuse() -> bool {
    is_root() && Path::new("/dev/fuse").exists() && runs("nbdfuse")
}

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The first of `names` that this machine lacks.
///
/// # Panics
/// On a name that is no capability.
#[must_use]
pub fn missing(names: &[&str]) -> Option<Capability> {
    names
        .iter()
        .map(|name| {
            *ALL.iter().find(|capability| capability.name == *name).unwrap_or_else(|| {
                panic!("{name:?} is not a capability: see testkit/src/capability.rs")
            })
        })
        .find(|capability| !(capability.probe)())
}

/// True when the machine has all of `names`; otherwise says what is missing on standard error.
///
/// # Panics
/// When one is missing that `LANDFALL_REQUIRE` (comma separated, or `all`) lists: a test that should have run did not.
#[must_use]
pub fn require(names: &[&str]) -> bool {
    let Some(capability) = missing(names) else { return true };
    let required = std::env::var("LANDFALL_REQUIRE").unwrap_or_default();
    let must = required.split(',').any(|name| name == capability.name || name == "all");
    assert!(!must, "required capability {} is missing: {}", capability.name, capability.cure);
    eprintln!("SKIPPED: {}: {}", capability.name, capability.cure);
    false
}
