use crate::shell;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A loop device that is attached to a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Loop {
    /// `/dev/loopN`.
    pub(crate) device: PathBuf,
    /// The file below it, as the kernel knows it; without its place when that was in a mount that
    /// has left the tree.
    pub(crate) backing: PathBuf,
    /// Differs at each attachment of the same device.
    pub(crate) diskseq: String,
}

/// Attaches a free loop device to `file`.
///
/// # Errors
/// When losetup refuses.
pub(crate) fn attach(file: &Path) -> Result<Loop> {
    let device = shell::run("losetup", &[Path::new("--show"), Path::new("--find"), file])?;
    let name = Path::new(&device).file_name().context("losetup names a device")?;
    look(Path::new(name)).with_context(|| format!("{device} is gone again"))
}

/// Detaches a loop device; the kernel does so when its last user is gone.
///
/// # Errors
/// When losetup refuses.
pub(crate) fn detach(device: &Path) -> Result<()> {
    shell::run("losetup", &[Path::new("--detach"), device]).map(drop)
}

/// Writes and forgets what the kernel caches of a device: what is read next is read from it.
///
/// # Errors
/// Of blockdev.
pub(crate) fn flush_buffers(device: &Path) -> Result<()> {
    shell::run("blockdev", &[Path::new("--flushbufs"), device]).map(drop)
}

/// Every loop device that is attached.
///
/// # Errors
/// When `/sys/block` can't be read.
pub(crate) fn loops() -> Result<Vec<Loop>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").context("read /sys/block")? {
        let entry = entry.context("read /sys/block")?;
        found.extend(look(Path::new(&entry.file_name())));
    }
    Ok(found)
}

/// Every loop device whose file lies under `dir`, deleted files included.
///
/// # Errors
/// As [`loops`].
pub(crate) fn loops_under(dir: &Path) -> Result<Vec<Loop>> {
    let mut found = loops()?;
    found.retain(|one| one.backing.starts_with(dir));
    Ok(found)
}

/// What `/sys/block/loopN` says; none for another kind of device, one without a file, or one that
/// is just being detached.
fn look(name: &Path) -> Option<Loop> {
    let dir = Path::new("/sys/block").join(name);
    let text = fs::read_to_string(dir.join("loop/backing_file")).ok()?;
    let backing = text.trim_end_matches('\n');
    let backing = backing.strip_suffix(" (deleted)").unwrap_or(backing).into();
    let diskseq = fs::read_to_string(dir.join("diskseq")).ok()?;
    Some(Loop { device: Path::new("/dev").join(name), backing, diskseq })
}
