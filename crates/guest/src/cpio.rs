//! Writes the archive format that the kernel unpacks an initramfs from: cpio "newc".
//!
//! Source: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive under construction, in memory. Parents of an entry are made with it; an entry that is
/// there already stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    seen: BTreeSet<PathBuf>,
}

impl Archive {
    /// A directory.
    pub(crate) fn directory(&mut self, path: &Path) {
        self.entry(path, DIRECTORY, &[]);
    }

    /// A file; `mode` is its permissions.
    pub(crate) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.entry(path, FILE | mode, content);
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &str) {
        self.entry(path, LINK, target.as_bytes());
    }

    /// True when an entry of this name has been added.
    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.seen.contains(&normal(path))
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        let path = normal(path);
        if path.as_os_str().is_empty() || !self.seen.insert(path.clone()) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.entry(parent, DIRECTORY, &[]);
        }
        self.record(&path.to_string_lossy(), mode, content);
    }

    fn record(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.seen.len();
        let links = 1;
        // The kernel gives up on what is larger; so would a test's guest, long before.
        let size = u32::try_from(content.len()).expect("a file of less than 4 GiB");
        let name_size = name.len() + 1;
        self.bytes.extend_from_slice(b"070701");
        let fields: [u32; 13] =
            [inode as u32, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size as u32, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Relative to the root, and below `usr` where Debian has only links: programs and libraries are
/// named by both ways.
fn normal(path: &Path) -> PathBuf {
    let mut parts: Vec<_> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    let merged = ["bin", "sbin", "lib", "lib64"];
    if parts.len() > 1 && parts.first().is_some_and(|first| merged.iter().any(|m| first == m)) {
        parts.insert(0, "usr".into());
    }
    parts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_contents_are_aligned() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b"), 0o755, b"hello");
        archive.link(Path::new("c"), "a/b");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        let text = String::from_utf8_lossy(&bytes);
        let at = |what: &str| text.find(what).expect("is in the archive");
        assert!(at("a\0") < at("a/b\0"), "the directory comes before what is in it");
        let file = at("a/b\0") - 110;
        assert_eq!(file % 4, 0);
        assert_eq!(&text[file + 14..file + 22], "000081ed", "a regular file, 0755");
        assert_eq!(&text[file + 54..file + 62], "00000005", "five bytes");
        assert!(text.contains("TRAILER!!!"));
    }

    #[test]
    fn an_entry_is_added_once_and_below_usr() {
        let mut archive = Archive::default();
        archive.file(Path::new("/lib64/x.so"), 0o644, b"1");
        archive.file(Path::new("/usr/lib64/x.so"), 0o644, b"2");
        assert!(archive.contains(Path::new("lib64/x.so")));
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("x.so").count(), 1);
        archive = Archive::default();
        archive.link(Path::new("/lib64"), "usr/lib64");
        assert!(String::from_utf8_lossy(&archive.finish()).contains("lib64\0"), "the link itself");
    }
}
