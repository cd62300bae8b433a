//! Small secret files: written whole or not at all, readable by their owner only.

use crate::PkiError;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Most bytes of a key, certificate or passphrase file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { operation, path, source }
}

/// Writes a file of mode 0600 durably and all at once: after a crash either the old or the new
/// content is there.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_mode(path, content, 0o600)
}

/// As [`write_secret`], for what anybody may read.
pub(crate) fn write_public(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_mode(path, content, 0o644)
}

fn write_mode(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let partial = path.with_extension("partial");
    // A leftover of an interrupted write could have other permissions: the mode counts only at
    // creation.
    match fs::remove_file(&partial) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("remove", &partial)(error)),
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial);
    let mut file = file.map_err(failed("create", &partial))?;
    file.write_all(content).map_err(failed("write", &partial))?;
    file.sync_all().map_err(failed("sync", &partial))?;
    fs::rename(&partial, path).map_err(failed("rename to", path))?;
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(failed("sync", folder))
}

/// Reads a secret file.
///
/// # Errors
/// [`PkiError::Exposed`] if others may read it, [`PkiError::File`] and [`PkiError::Damaged`].
pub fn read_secret(path: &Path) -> Result<String, PkiError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mode = file.metadata().map_err(failed("look at", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PkiError::Exposed { path: path.to_owned(), mode });
    }
    read(file, path)
}

pub(crate) fn read_public(path: &Path) -> Result<String, PkiError> {
    read(File::open(path).map_err(failed("open", path))?, path)
}

fn read(file: File, path: &Path) -> Result<String, PkiError> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed("read", path))?;
    Ok(text)
}

/// Makes a directory that only its owner may enter; one that exists is narrowed to that.
pub(crate) fn private_dir(path: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("narrow", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_their_owner_only_also_over_leftovers() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("key.pem");
        fs::write(dir.path().join("key.partial"), "left by a crash").expect("write");
        write_secret(&path, b"secret").expect("write");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        assert_eq!(read_secret(&path).expect("read"), "secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(read_secret(&path), Err(PkiError::Exposed { mode: 0o640, .. })));
    }
}
