use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
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

/// All capabilities that a test can ask for.
pub const ALL: &[Capability] = &[
    Capability { name: "root", cure: "run as root or with sudo", probe: is_root },
    Capability {
        name: "loop",
        cure: "needs root, /dev/loop-control (module loop; in a container: --privileged)",
        probe: has_loop,
    },
    Capability {
        name: "bpf",
        cure: "needs root, kernel 5.17 or newer with /sys/kernel/btf/vmlinux and without lockdown \
               (in a container: --privileged)",
        probe: has_bpf,
    },
    Capability {
        name: "fuse",
        cure: "needs root, /dev/fuse, nbdfuse (package libnbd-bin; in a container: --privileged)",
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
    Capability {
        name: "xfs",
        cure: "install the package xfsprogs; a kernel with XFS",
        probe: || knows_file_system("xfs") && runs_with("mkfs.xfs", "-V"),
    },
    Capability {
        name: "btrfs",
        cure: "install the package btrfs-progs; a kernel with btrfs",
        probe: || knows_file_system("btrfs") && runs("mkfs.btrfs"),
    },
    Capability {
        name: "keyring",
        cure: "a kernel with key rings, and a container that may use them",
        probe: || Path::new("/proc/keys").exists(),
    },
    Capability { name: "sqlite3", cure: "install the package sqlite3", probe: || runs("sqlite3") },
    Capability {
        name: "qemu",
        cure: "install the packages qemu-system-x86 and busybox-static",
        probe: || runs("qemu-system-x86_64") && runs_with("busybox", "true"),
    },
    Capability {
        name: "nbdsh",
        cure: "install the package python3-libnbd",
        // The one of Debian: `python3` on the path may be another, without the module.
        probe: || runs_with("/usr/bin/python3", "-cimport nbd"),
    },
    Capability {
        name: "nbd-client",
        cure: "install the package nbd-client",
        probe: || runs_with("nbd-client", "-V"),
    },
    Capability {
        name: "guest-kernels",
        cure: "run `cargo xtask guest-kernels`",
        probe: has_guest_kernels,
    },
    Capability {
        name: "postgresql",
        cure: "install the package postgresql",
        probe: || postgresql().is_some() && runs("psql"),
    },
    Capability {
        name: "guest-system",
        cure: "run `cargo xtask guest-system`",
        probe: || guest_system().is_some(),
    },
];

/// The kernels in whose guests CI runs its tests: the newest two series.
pub const GUEST_KERNELS: [&str; 2] = ["6.12-cloud", "6.1-cloud"];

/// Where `cargo xtask guest-kernels` has put the kernels for guests: `LANDFALL_GUEST_KERNELS`, else
/// the folder `guest-kernels` of the target directory that this program lies in.
#[must_use]
pub fn guest_kernels() -> Option<PathBuf> {
    fetched("LANDFALL_GUEST_KERNELS", "guest-kernels")
}

/// The folder of PostgreSQL's programs: Debian keeps those of a server off the path.
#[must_use]
pub fn postgresql() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let bin = versions.map(|version| version.path().join("bin"));
    bin.filter(|bin| bin.join("initdb").exists()).max()
}

/// Where `cargo xtask guest-system` has put the system for guests: `LANDFALL_GUEST_SYSTEM`, else
/// the folder `guest-system` of the target directory that this program lies in.
#[must_use]
pub fn guest_system() -> Option<PathBuf> {
    fetched("LANDFALL_GUEST_SYSTEM", "guest-system")
}

fn fetched(variable: &str, folder: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|above| above.join(folder)).find(|path| path.is_dir())
}

fn has_guest_kernels() -> bool {
    guest_kernels().is_some_and(|all| GUEST_KERNELS.iter().all(|name| all.join(name).is_dir()))
}

impl Capability {
    /// True when the machine has it for this process.
    #[must_use]
    pub fn is_available(&self) -> bool {
        (self.probe)()
    }
}

/// The field `name` of this process's status, as the kernel tells it.
fn status_field(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}

fn is_root() -> bool {
    status_field("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// Root inside a container may lack what root has elsewhere. Numbers: linux/capability.h.
fn has_kernel_capability(number: u32) -> bool {
    let set = status_field("CapEff:").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    set.is_some_and(|set| set >> number & 1 == 1)
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// In a container a device can be listed and yet be forbidden: only opening it tells.
fn opens(device: &str) -> bool {
    File::options().read(true).write(true).open(device).is_ok()
}

fn has_loop() -> bool {
    is_root() && has_kernel_capability(CAP_SYS_ADMIN) && opens("/dev/loop-control")
}

fn has_bpf() -> bool {
    let may_load = has_kernel_capability(CAP_SYS_ADMIN)
        || has_kernel_capability(CAP_BPF) && has_kernel_capability(CAP_PERFMON);
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    is_root()
        && may_load
        && !lockdown.contains("[confidentiality]")
        && Path::new("/sys/kernel/btf/vmlinux").exists()
}

fn has_fuse() -> bool {
    is_root() && has_kernel_capability(CAP_SYS_ADMIN) && opens("/dev/fuse") && runs("nbdfuse")
}

/// Built in, or a module that can be loaded.
fn knows_file_system(name: &str) -> bool {
    let known = || {
        let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        all.lines().any(|line| line.trim() == name)
    };
    known() || Command::new("modprobe").arg(name).status().is_ok() && known()
}

fn runs(program: &str) -> bool {
    runs_with(program, "--version")
}

fn runs_with(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
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
        .find(|capability| !capability.is_available())
}

/// True when the machine has all of `names`; otherwise says what is missing, on standard error and
/// in the file that `LANDFALL_SKIP_LOG` names (test runners hide what a passing test prints).
///
/// # Panics
/// When one is missing that `LANDFALL_REQUIRE` (comma separated, or `all`) lists: a test that
/// should have run did not.
#[must_use]
pub fn require(names: &[&str]) -> bool {
    let Some(capability) = missing(names) else { return true };
    let required = std::env::var("LANDFALL_REQUIRE").unwrap_or_default();
    assert!(
        !is_listed(&required, capability.name),
        "required capability {} is missing: {}",
        capability.name,
        capability.cure
    );
    let reason = format!("{}: {}", capability.name, capability.cure);
    eprintln!("SKIPPED: {reason}");
    if let Some(path) = std::env::var_os("LANDFALL_SKIP_LOG") {
        log_skip(Path::new(&path), &reason).expect("LANDFALL_SKIP_LOG names a file to append to");
    }
    false
}

fn is_listed(required: &str, name: &str) -> bool {
    required.split(',').map(str::trim).any(|one| one == name || one == "all")
}

/// One line, written at once: tests of several processes append to the same file.
fn log_skip(path: &Path, reason: &str) -> std::io::Result<()> {
    let thread = std::thread::current();
    let line = format!("{reason}\t{}\n", thread.name().unwrap_or("?"));
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_capabilities_are_required() {
        assert!(is_listed("root, loop", "loop") && is_listed("all", "bpf"));
        assert!(!is_listed("root,loop", "bpf") && !is_listed("", "root"));
    }

    #[test]
    fn a_skip_is_logged_with_reason_and_test() {
        let path = std::env::temp_dir().join(format!("landfall-skips-{}", std::process::id()));
        log_skip(&path, "loop: none").expect("the directory is writable");
        log_skip(&path, "bpf: none").expect("the directory is writable");
        let text = std::fs::read_to_string(&path).expect("was just written");
        std::fs::remove_file(&path).expect("was just written");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("loop: none\t") && lines[0].contains("a_skip_is_logged"));
    }

    #[test]
    #[should_panic(expected = "is not a capability")]
    fn an_unknown_name_is_a_mistake_in_the_test() {
        let _ = missing(&["no-such-thing"]);
    }
}
