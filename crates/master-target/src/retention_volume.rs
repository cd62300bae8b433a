//! Whether a directory can be the retention volume (RQ-RV-1).

use landfall_api_types::{ApiError, codes};
use landfall_types::Class;
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// `f_type` of FAT (linux/magic.h `MSDOS_SUPER_MAGIC`): no sparse files, no files above 4 GiB, and
/// a power cut can lose directory entries that were synced.
const FAT_MAGIC: u64 = 0x4d44;
/// Least free bytes: one segment of a journal and room for its superblocks.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// What may stand in an otherwise empty volume.
const HARMLESS: [&str; 2] = ["lost+found", ".Trash-0"];

/// Why a directory can't be the retention volume.
#[derive(Debug, thiserror::Error)]
pub enum RetentionUnfit {
    /// It can't be looked at.
    #[error("{} can't be used", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// FAT or FAT32.
    #[error("{} is on a FAT file system", .0.display())]
    Fat(PathBuf),
    /// Mounted read-only ("in lock mode").
    #[error("{} is mounted read-only", .0.display())]
    ReadOnly(PathBuf),
    /// No capacity.
    #[error("{} has only {free} bytes free, {FREE_BYTES_MIN} are needed", path.display())]
    Full {
        /// Which.
        path: PathBuf,
        /// Bytes.
        free: u64,
    },
    /// It holds the master target's own state.
    #[error("{} holds the master target's own state directory {}", path.display(), state.display())]
    HoldsState {
        /// Which.
        path: PathBuf,
        /// The state directory.
        state: PathBuf,
    },
    /// Another master target runs on it.
    #[error("another master target runs on {}", .0.display())]
    InUse(PathBuf),
    /// It holds something else.
    #[error("{} serves another purpose: it holds {name:?}", path.display())]
    OtherPurpose {
        /// Which.
        path: PathBuf,
        /// The first thing found.
        name: String,
    },
}

impl RetentionUnfit {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Permanent
    }

    /// For reports.
    #[must_use]
    pub fn api_error(&self) -> ApiError {
        ApiError::new(&codes::RETENTION_UNFIT, crate::errors::chain(self))
    }
}

/// Checks a directory; makes it when it is missing.
///
/// # Errors
/// [`RetentionUnfit`] with the reason.
pub fn check_retention_volume(retention: &Path, state: &Path) -> Result<(), RetentionUnfit> {
    let path = || retention.to_owned();
    let unreadable = |source: io::Error| RetentionUnfit::Unreadable { path: path(), source };
    std::fs::create_dir_all(retention).map_err(unreadable)?;
    let real = retention.canonicalize().map_err(unreadable)?;
    let state = state.canonicalize().map_err(unreadable)?;
    if state.starts_with(&real) {
        return Err(RetentionUnfit::HoldsState { path: path(), state });
    }
    let fs = statfs(&real).map_err(|error| unreadable(error.into()))?;
    if u64::try_from(fs.f_type).is_ok_and(|found| found == FAT_MAGIC) {
        return Err(RetentionUnfit::Fat(path()));
    }
    let volume = statvfs(&real).map_err(|error| unreadable(error.into()))?;
    if volume.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(RetentionUnfit::ReadOnly(path()));
    }
    let free = volume.f_bavail.saturating_mul(volume.f_frsize);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&real).map_err(unreadable)? {
        names.push(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    // A vault that has filled up must still be served; a new one must have room.
    if names.iter().any(|name| name.starts_with("landfall-vault")) {
        return Ok(());
    }
    if free < FREE_BYTES_MIN {
        return Err(RetentionUnfit::Full { path: path(), free });
    }
    match names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
        Some(name) => Err(RetentionUnfit::OtherPurpose { path: path(), name }),
        None => Ok(()),
    }
}

/// Claims a directory for the life of this process: two master targets on one would both take a
/// replica's role for theirs, and two branches of one epoch would be writable (promise P6). Ends
/// with the process, however that ends.
///
/// # Errors
/// [`RetentionUnfit::InUse`], [`RetentionUnfit::Unreadable`].
pub fn claim_retention_volume(retention: &Path) -> Result<File, RetentionUnfit> {
    let unreadable =
        |source: io::Error| RetentionUnfit::Unreadable { path: retention.to_owned(), source };
    let claim = File::open(retention).map_err(unreadable)?;
    match claim.try_lock() {
        Ok(()) => Ok(claim),
        Err(TryLockError::WouldBlock) => Err(RetentionUnfit::InUse(retention.to_owned())),
        Err(TryLockError::Error(error)) => Err(unreadable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_master_target_on_one_volume_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let claim = claim_retention_volume(dir.path()).expect("nobody runs on it");
        let refused = claim_retention_volume(dir.path());
        assert!(matches!(refused, Err(RetentionUnfit::InUse(_))), "{refused:?}");
        drop(claim);
        claim_retention_volume(dir.path()).expect("the first has ended");
    }

    /// RQ-RV-1: the reason is named.
    #[test]
    fn unfit_volumes_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().expect("temp dir");
        let state = dir.path().join("retention/state");
        std::fs::create_dir_all(&state).expect("made");
        let retention = dir.path().join("retention");
        let refused = check_retention_volume(&retention, &state);
        assert!(matches!(refused, Err(RetentionUnfit::HoldsState { .. })), "{refused:?}");
        let same = check_retention_volume(&state, &state);
        assert!(matches!(same, Err(RetentionUnfit::HoldsState { .. })), "{same:?}");
        let other = dir.path().join("other");
        check_retention_volume(&other, &state).expect("empty and made");
        std::fs::write(other.join("photos.zip"), b"x").expect("written");
        let refused = check_retention_volume(&other, &state).expect_err("serves another purpose");
        assert_eq!(refused.api_error().code, "retention-unfit");
        assert!(refused.to_string().contains("photos.zip"));
        std::fs::write(other.join("landfall-vault"), b"x").expect("written");
        check_retention_volume(&other, &state).expect("a vault with its files");
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").expect("written");
        assert!(matches!(
            check_retention_volume(&file, &state),
            Err(RetentionUnfit::Unreadable { .. })
        ));
    }
}
