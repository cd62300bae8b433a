//! Installs a small Debian for guests: what tests of the package and of the initramfs need, and
//! what `landfall-guest`'s own initramfs can't be.
//!
//! It becomes `target/guest-system/`: `root.img` (ext4), `vmlinuz`, `initrd.img`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{metadata, process};

const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod,iproute2,initramfs-tools,zstd,\
                        linux-image-cloud-amd64,libelf1,zlib1g";
/// Room for the system, an agent, and a little more.
const IMAGE_BYTES: u64 = 768 << 20;
/// Nobody reads these in a guest.
const SURPLUS: [&str; 5] =
    ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists"];

/// Installs it where it is missing.
///
/// # Errors
/// Without root, or when packages can't be had.
pub(crate) fn run() -> Result<()> {
    let directory = directory()?;
    if directory.is_dir() {
        println!("{}", directory.display());
        return Ok(());
    }
    if !process::exists("debootstrap") {
        bail!("debootstrap is missing: install the package");
    }
    let work = directory.with_extension("partial");
    if work.exists() {
        fs::remove_dir_all(&work).context("remove what an interrupted run has left")?;
    }
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    let mirror = crate::guest_kernels::mirror()?;
    let include = format!("--include={PACKAGES}");
    let mut install = Command::new("debootstrap");
    install.args(["--variant=minbase", &include, &release()?]).arg(&root).arg(mirror);
    process::run(&mut install)?;
    furnish(&root)?;
    for (name, prefix) in [("vmlinuz", "vmlinuz-"), ("initrd.img", "initrd.img-")] {
        fs::copy(in_boot(&root, prefix)?, work.join(name))?;
    }
    let image = work.join("root.img");
    fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
    let mut format = Command::new("mkfs.ext4");
    process::run(format.args(["-q", "-m", "0", "-d"]).arg(&root).arg(&image))?;
    fs::remove_dir_all(&root)?;
    // Last, so that an interrupted run leaves none that looks complete.
    fs::rename(&work, &directory)?;
    println!("{}", directory.display());
    Ok(())
}

fn directory() -> Result<PathBuf> {
    match std::env::var_os("LANDFALL_GUEST_SYSTEM") {
        Some(path) => Ok(path.into()),
        None => Ok(metadata::load()?.target_directory.join("guest-system")),
    }
}

/// The release of Debian that this machine runs.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("which release of Debian this is")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("this is no release of Debian")?.to_owned())
}

fn in_boot(root: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(root.join("boot"))?.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    entries.into_iter().find(named).with_context(|| format!("no {prefix}* in /boot"))
}

/// The control channel, and what a system must say of itself to start.
fn furnish(root: &Path) -> Result<()> {
    let from = process::root().join("crates/guest");
    let programs = [("system/control", "control"), ("system/leave", "leave")];
    for (source, name) in programs {
        let to = root.join("usr/local/bin").join(name);
        fs::copy(from.join(source), &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    fs::copy(from.join("system/control.service"), root.join("etc/systemd/system/control.service"))?;
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../control.service", wants.join("control.service"))?;
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 errors=remount-ro 0 1\n")?;
    fs::write(root.join("etc/hostname"), "guest\n")?;
    for path in SURPLUS {
        let path = root.join(path);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}
