//! The text files of the checkout, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// All text files by their path from the root, with `/`.
#[derive(Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    /// Files of all kinds and the directories above them.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the checkout; build output, version control and other files than text are left out.
    ///
    /// # Errors
    /// When a file or directory can't be read.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.load_directory(root, "")?;
        Ok(tree)
    }

    fn load_directory(&mut self, root: &Path, prefix: &str) -> Result<()> {
        let directory = root.join(prefix);
        for entry in fs::read_dir(&directory).with_context(|| format!("list {directory:?}"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == ".git" || (prefix.is_empty() && name.starts_with("target")) {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.load_directory(root, &format!("{path}/"))?;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).with_context(|| format!("read {path}"))?;
                self.add_path(&path);
                // Not text: golden vectors, pictures.
                if let Ok(text) = String::from_utf8(bytes) {
                    self.files.insert(path, text);
                }
            }
        }
        Ok(())
    }

    /// All files in order of their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files whose path ends with `suffix`.
    pub(super) fn with_suffix(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.ends_with(suffix))
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn text(&self, path: &str) -> Result<&str> {
        self.files.get(path).map(String::as_str).with_context(|| format!("{path} is missing"))
    }

    /// True when `path` is a file, or a directory that has one.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }

    fn add_path(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.paths.insert(path[..at].into());
        }
        self.paths.insert(path.into());
    }

    /// A tree for the rules' tests.
    #[cfg(test)]
    pub(super) fn sample(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add_path(path);
            tree.files.insert((*path).into(), (*text).into());
        }
        tree
    }
}
