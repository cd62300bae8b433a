//! What a medium holds: directories, names and bytes. Cheap to copy; contents are shared until
//! changed.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A file, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub(crate) u64);
/// A directory, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DirId(pub(crate) u64);

/// The root directory.
pub(crate) const ROOT: DirId = DirId(0);

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Child {
    /// A file.
    File(FileId),
    /// A directory.
    Dir(DirId),
}

/// One change that a power cut can leave done or undone, on its own.
#[derive(Clone, Debug)]
pub(crate) enum Atom {
    /// Bytes within one sector.
    Sector { file: FileId, offset: u64, data: Arc<[u8]> },
    /// The length.
    SetLen { file: FileId, length: u64 },
    /// A range given back.
    Punch { file: FileId, offset: u64, length: u64 },
    /// A name given.
    Link { dir: DirId, name: String, child: Child },
    /// A name taken away.
    Unlink { dir: DirId, name: String },
    /// A name changed.
    Rename { dir: DirId, from: String, to: String, child: Child },
}

impl Atom {
    pub(crate) const fn file(&self) -> Option<FileId> {
        match self {
            Self::Sector { file, .. } | Self::SetLen { file, .. } | Self::Punch { file, .. } => {
                Some(*file)
            }
            Self::Link { .. } | Self::Unlink { .. } | Self::Rename { .. } => None,
        }
    }

    pub(crate) const fn dir(&self) -> Option<DirId> {
        match self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } | Self::Rename { dir, .. } => {
                Some(*dir)
            }
            Self::Sector { .. } | Self::SetLen { .. } | Self::Punch { .. } => None,
        }
    }
}

/// All of a medium at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) files: BTreeMap<FileId, Arc<Vec<u8>>>,
    pub(crate) dirs: BTreeMap<DirId, BTreeMap<String, Child>>,
}

impl Image {
    pub(crate) fn new() -> Self {
        Self { files: BTreeMap::new(), dirs: BTreeMap::from([(ROOT, BTreeMap::new())]) }
    }

    pub(crate) fn bytes(&mut self, file: FileId) -> &mut Vec<u8> {
        Arc::make_mut(self.files.entry(file).or_default())
    }

    pub(crate) fn names(&mut self, dir: DirId) -> &mut BTreeMap<String, Child> {
        self.dirs.entry(dir).or_default()
    }

    pub(crate) fn apply(&mut self, atom: &Atom) {
        match atom {
            Atom::Sector { file, offset, data } => put(self.bytes(*file), *offset, data),
            Atom::SetLen { file, length } => self.bytes(*file).resize(to_usize(*length), 0),
            Atom::Punch { file, offset, length } => {
                let bytes = self.bytes(*file);
                let end = to_usize(offset + length).min(bytes.len());
                let start = to_usize(*offset).min(end);
                bytes[start..end].fill(0);
            }
            Atom::Link { dir, name, child } => {
                self.ensure(*child);
                self.names(*dir).insert(name.clone(), *child);
            }
            Atom::Unlink { dir, name } => {
                self.names(*dir).remove(name);
            }
            Atom::Rename { dir, from, to, child } => {
                self.ensure(*child);
                let names = self.names(*dir);
                names.remove(from);
                names.insert(to.clone(), *child);
            }
        }
    }

    /// A sector that was being written when the power went may hold anything, its neighbors' bytes
    /// included.
    pub(crate) fn apply_garbage(&mut self, atom: &Atom, sector_bytes: u64, garbage: &[u8]) {
        let Atom::Sector { file, offset, .. } = atom else { return self.apply(atom) };
        let start = offset / sector_bytes * sector_bytes;
        put(self.bytes(*file), start, garbage);
    }

    fn ensure(&mut self, child: Child) {
        match child {
            Child::File(file) => drop(self.bytes(file)),
            Child::Dir(dir) => drop(self.names(dir)),
        }
    }

    /// All files with their paths, sorted.
    pub(crate) fn paths(&self) -> Vec<(String, FileId)> {
        let mut out = Vec::new();
        self.walk(ROOT, "", &mut out);
        out
    }

    fn walk(&self, dir: DirId, prefix: &str, out: &mut Vec<(String, FileId)>) {
        for (name, child) in self.dirs.get(&dir).into_iter().flatten() {
            match child {
                Child::File(file) => out.push((format!("{prefix}{name}"), *file)),
                Child::Dir(sub) => self.walk(*sub, &format!("{prefix}{name}/"), out),
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = to_usize(offset);
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("a simulated medium fits into memory")
}
