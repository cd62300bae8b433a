//! The Debian packages that building, testing and the demo need, and how to see that one is there.

use std::path::Path;

/// What a package is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// To build the capture (eBPF) and what contains it.
    Build,
    /// By the demo and by tests against programs that we did not write.
    Run,
}

/// How to see that a package's content is there, whoever installed it.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Program(&'static str),
    File(&'static str),
}

/// A Debian package.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    /// Its name in Debian 12 and 13.
    pub(crate) name: &'static str,
    /// What it is needed for.
    pub(crate) need: Need,
    /// One line for a person.
    pub(crate) why: &'static str,
    signs: &'static [Sign],
}

// tidy: table
pub(crate) const ALL: &[Package] = &[
    Package {
        name: "clang",
        need: Need::Build,
        why: "compiles the eBPF programs",
        signs: &[Sign::Program("clang")],
    },
    Package {
        name: "pkg-config",
        need: Need::Build,
        why: "finds libelf and zlib",
        signs: &[Sign::Program("pkg-config")],
    },
    Package {
        name: "libelf-dev",
        need: Need::Build,
        why: "libbpf reads object files with it",
        signs: &[Sign::File("/usr/include/libelf.h")],
    },
    Package {
        name: "zlib1g-dev",
        need: Need::Build,
        why: "libbpf needs it",
        signs: &[Sign::File("/usr/include/zlib.h")],
    },
    Package {
        name: "libc6-dev",
        need: Need::Build,
        why: "headers of the C library",
        signs: &[Sign::File("/usr/include/stdio.h")],
    },
    Package {
        name: "linux-libc-dev",
        need: Need::Build,
        why: "headers of the kernel",
        signs: &[Sign::File("/usr/include/linux/types.h")],
    },
    Package {
        name: "libnbd-bin",
        need: Need::Run,
        why: "nbdfuse mounts a branch, nbdinfo looks at it",
        signs: &[Sign::Program("nbdfuse"), Sign::Program("nbdinfo")],
    },
    Package {
        name: "python3-libnbd",
        need: Need::Run,
        why: "nbdsh: every call of libnbd by script",
        signs: &[Sign::Program("nbdsh")],
    },
    Package {
        name: "fuse3",
        need: Need::Run,
        why: "unmounts what nbdfuse mounted",
        signs: &[Sign::Program("fusermount3")],
    },
    Package {
        name: "e2fsprogs",
        need: Need::Run,
        why: "mkfs.ext4 and e2fsck",
        signs: &[Sign::Program("mkfs.ext4"), Sign::Program("e2fsck")],
    },
    Package {
        name: "util-linux",
        need: Need::Run,
        why: "losetup and findmnt",
        signs: &[Sign::Program("losetup"), Sign::Program("findmnt")],
    },
    Package {
        name: "mount",
        need: Need::Run,
        why: "mount and umount",
        signs: &[Sign::Program("mount"), Sign::Program("umount")],
    },
    Package {
        name: "nbdkit",
        need: Need::Run,
        why: "an NBD server and faults that we did not write",
        signs: &[Sign::Program("nbdkit")],
    },
    Package {
        name: "qemu-utils",
        need: Need::Run,
        why: "qemu-img and qemu-nbd: NBD that we did not write",
        signs: &[Sign::Program("qemu-img"), Sign::Program("qemu-nbd")],
    },
    Package { name: "fio", need: Need::Run, why: "disk load", signs: &[Sign::Program("fio")] },
    Package {
        name: "qemu-system-x86",
        need: Need::Run,
        why: "guests for tests that need another kernel, a reboot or a power cut",
        signs: &[Sign::Program("qemu-system-x86_64")],
    },
    Package {
        name: "busybox-static",
        need: Need::Run,
        why: "the system in a guest",
        signs: &[Sign::Program("busybox")],
    },
    Package {
        name: "postgresql",
        need: Need::Run,
        why: "a database around which points are made",
        signs: &[Sign::Program("psql"), Sign::File("/usr/lib/postgresql")],
    },
    Package {
        name: "debootstrap",
        need: Need::Run,
        why: "a small system for guests: the package and the initramfs are tried on it",
        signs: &[Sign::Program("debootstrap")],
    },
    Package {
        name: "kmod",
        need: Need::Run,
        why: "depmod: which modules a guest's kernel needs",
        signs: &[Sign::Program("depmod")],
    },
    Package {
        name: "xz-utils",
        need: Need::Run,
        why: "modules of newer kernels are compressed",
        signs: &[Sign::Program("xz")],
    },
    Package {
        name: "nbd-client",
        need: Need::Run,
        why: "the kernel's NBD driver, in guests",
        signs: &[Sign::Program("nbd-client")],
    },
    Package {
        name: "lvm2",
        need: Need::Run,
        why: "stacks of disks in guests",
        signs: &[Sign::Program("lvm"), Sign::Program("dmsetup")],
    },
    Package {
        name: "mdadm",
        need: Need::Run,
        why: "arrays of disks in guests",
        signs: &[Sign::Program("mdadm")],
    },
    Package {
        name: "cryptsetup-bin",
        need: Need::Run,
        why: "encrypted disks in guests",
        signs: &[Sign::Program("cryptsetup")],
    },
    Package {
        name: "sqlite3",
        need: Need::Run,
        why: "a database on captured disks",
        signs: &[Sign::Program("sqlite3")],
    },
    Package {
        name: "xfsprogs",
        need: Need::Run,
        why: "XFS in guests",
        signs: &[Sign::Program("mkfs.xfs")],
    },
    Package {
        name: "btrfs-progs",
        need: Need::Run,
        why: "btrfs in guests",
        signs: &[Sign::Program("mkfs.btrfs")],
    },
];

impl Package {
    /// True when what the package brings is there.
    pub(crate) fn is_there(&self) -> bool {
        self.signs.iter().all(|sign| match sign {
            Sign::Program(program) => crate::process::exists(program),
            Sign::File(path) => Path::new(path).exists(),
        })
    }
}

/// The packages that are missing.
pub(crate) fn missing() -> Vec<Package> {
    ALL.iter().copied().filter(|package| !package.is_there()).collect()
}

/// True when the crates that contain the eBPF programs can be built.
pub(crate) fn can_build_capture() -> bool {
    ALL.iter().all(|package| package.need != Need::Build || package.is_there())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_or_file_makes_a_package_missing() {
        let missing = |signs| !Package { name: "x", need: Need::Run, why: "", signs }.is_there();
        assert!(missing(&[Sign::Program("sh"), Sign::Program("no-such-program-anywhere")]));
        assert!(missing(&[Sign::File("/no/such/header.h")]));
        assert!(!missing(&[Sign::Program("sh")]));
    }
}
