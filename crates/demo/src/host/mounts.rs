use crate::shell;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    /// Where.
    pub(crate) point: PathBuf,
    /// Its device, or what its file system says instead.
    pub(crate) source: PathBuf,
}

/// Every mount under `dir`, the innermost first: the order in which they can be unmounted.
///
/// # Errors
/// When the kernel's list can't be read.
pub(crate) fn mounts_under(dir: &Path) -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut mounts = parse(&text);
    mounts.retain(|mount| mount.point.starts_with(dir));
    mounts.reverse();
    Ok(mounts)
}

/// Unmounts: nothing of it is in memory only when this returns.
///
/// # Errors
/// When something still uses it.
pub(crate) fn unmount(point: &Path) -> Result<()> {
    shell::run("umount", &[point]).map(drop)
}

/// Takes a mount out of the tree; the kernel ends it with its last user.
///
/// # Errors
/// When there is none.
pub(crate) fn unmount_lazily(point: &Path) -> Result<()> {
    shell::run("umount", &[Path::new("--lazy"), point]).map(drop)
}

/// A `mountinfo`, in the order of mounting (proc(5)): the fifth field is the mount point; after the
/// field `-` come the file system's type and the source.
fn parse(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let point = unescape(line.split(' ').nth(4)?);
        let source = unescape(line.split(" - ").nth(1)?.split(' ').nth(1)?);
        Some(Mount { point, source })
    };
    text.lines().filter_map(mount).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(field: &str) -> PathBuf {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text.push_str(rest);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let text = "43 27 7:0 / /a/m rw,relatime - ext4 /dev/loop0 rw\n\
                    44 43 0:5 / /a/m/in\\040ner\\134x rw - fuse nbdfuse rw\n";
        let mount =
            |point: &str, source: &str| Mount { point: point.into(), source: source.into() };
        assert_eq!(parse(text), [mount("/a/m", "/dev/loop0"), mount("/a/m/in ner\\x", "nbdfuse")]);
        assert_eq!(unescape("a\\9"), PathBuf::from("a\\9"));
        assert!(mounts_under(Path::new("/no/such/place")).unwrap().is_empty());
        let all = mounts_under(Path::new("/")).unwrap();
        assert!(all.iter().any(|mount| mount.point == Path::new("/proc")));
    }
}
