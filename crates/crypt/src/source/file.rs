use crate::KeyError;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// More than any key has.
const BYTES_MAX: u64 = 1 << 10;

/// Reads a key's file, and refuses one that others can read: what group or world may read has to be
/// taken for known.
pub(crate) fn read(name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let fail = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => {
            KeyError::Missing { name: name.to_owned(), what: "there is no such file".into() }
        }
        _ => KeyError::Io { name: name.to_owned(), source },
    };
    let file = std::fs::File::open(path).map_err(fail)?;
    // Of the file that was opened, not of what the path leads to by now.
    let meta = file.metadata().map_err(fail)?;
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { name: name.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(BYTES_MAX).unwrap_or(0)));
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}
