//! ext4 on a device, by the programs that everybody uses.

use crate::shell;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// A file system that is mounted.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
}

/// Makes an ext4 on a device or file.
///
/// # Errors
/// Of mkfs.ext4.
pub(crate) fn make(device: &Path) -> Result<()> {
    let args = [Path::new("-q"), Path::new("-F"), device];
    shell::run("mkfs.ext4", &args).map(drop)
}

/// Replays the file system's journal, as the kernel does after a power cut, and repairs nothing.
///
/// Not with `-f`: e2fsck would then go on to repair whatever it finds, and [`check_clean`] after it
/// could not fail.
///
/// # Errors
/// When the journal can't be replayed.
pub(crate) fn replay_journal(device: &Path) -> Result<()> {
    let args = [Path::new("-E"), Path::new("journal_only"), Path::new("-y"), device];
    let output = shell::output("e2fsck", &args)?;
    // 1: "file system errors corrected", which a replayed journal may count as.
    let replayed = matches!(output.status.code(), Some(0 | 1));
    ensure!(
        replayed,
        "{}: the journal can't be replayed: {}",
        device.display(),
        shell::said(&output)
    );
    Ok(())
}

/// The whole file system is consistent, by e2fsck without writing.
///
/// # Errors
/// What e2fsck found.
pub(crate) fn check_clean(device: &Path) -> Result<()> {
    let output = shell::output("e2fsck", &[Path::new("-f"), Path::new("-n"), device])?;
    ensure!(output.status.success(), "{} is not clean: {}", device.display(), shell::said(&output));
    Ok(())
}

/// Mounts.
///
/// # Errors
/// Of mount(8).
pub(crate) fn mount(device: &Path, point: &Path) -> Result<Mounted> {
    fs::create_dir_all(point).with_context(|| format!("make {}", point.display()))?;
    shell::run("mount", &[Path::new("-t"), Path::new("ext4"), device, point])?;
    Ok(Mounted { point: point.to_owned() })
}

impl Mounted {
    /// Unmounts as at a shutdown: everything is written when this returns.
    ///
    /// # Errors
    /// When something still uses it.
    pub(crate) fn unmount(&self) -> Result<()> {
        shell::run("umount", &[&self.point]).map(drop)
    }

    /// Stops it dead: from now on the kernel writes nothing of it, whatever it still had in memory.
    ///
    /// # Errors
    /// When the kernel can't (`abort` is an option of ext4).
    pub(crate) fn abort(&self) -> Result<()> {
        let args = [Path::new("-o"), Path::new("remount,abort"), &self.point];
        let output = shell::output("mount", &args)?;
        if !output.status.success() {
            bail!("stop the file system at {}: {}", self.point.display(), shell::said(&output));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;

    /// A file system with a journal to replay: the kernel was stopped with files that are only in
    /// the journal.
    fn stopped(dir: &Path) -> PathBuf {
        let image = dir.join("disk.img");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        make(&image).unwrap();
        let attached = host::attach(&image).unwrap();
        let mounted = mount(&attached.device, &dir.join("mount")).unwrap();
        for n in 0..8 {
            fs::write(mounted.point.join(format!("file-{n}")), "text").unwrap();
        }
        fs::File::open(mounted.point.join("file-7")).unwrap().sync_all().unwrap();
        mounted.abort().unwrap();
        mounted.unmount().unwrap();
        assert!(host::mounts_under(dir).unwrap().is_empty());
        host::detach(&attached.device).unwrap();
        image
    }

    #[test]
    fn a_stopped_file_system_is_replayed_and_then_clean() {
        if !landfall_testkit::require(&["root", "loop", "e2fsprogs"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = stopped(dir.path());
        replay_journal(&image).unwrap();
        check_clean(&image).unwrap();
    }

    #[test]
    fn a_damaged_file_system_is_seen_although_its_journal_was_replayed() {
        if !landfall_testkit::require(&["root", "loop", "e2fsprogs"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = stopped(dir.path());
        replay_journal(&image).unwrap();
        let file = "/file-3";
        shell::run("debugfs", &["-w", "-R", &format!("clri {file}"), &image.to_string_lossy()])
            .unwrap();
        let error = check_clean(&image).unwrap_err().to_string();
        assert!(error.contains("not clean"), "{error}");
    }
}
