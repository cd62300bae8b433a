use crate::dice::Dice;
use anyhow::{Context as _, Result};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Names of files beside the ledger, per disk; so what they hold stays below this times
/// [`FILE_BYTES_MAX`].
const FILES_MAX: u64 = 24;
/// Longest of these files.
const FILE_BYTES_MAX: u64 = 128 * 1024;

/// Other files beside the ledger, so that the disks see more than two files growing: creations,
/// renames, overwrites in place, deletions; some synced, most not.
#[derive(Debug)]
pub(super) struct Churn {
    roots: [PathBuf; 2],
    dice: Dice,
}

impl Churn {
    pub(super) const fn new(roots: [PathBuf; 2], dice: Dice) -> Self {
        Self { roots, dice }
    }

    /// One change on one of the disks.
    pub(super) fn step(&mut self) -> Result<()> {
        let root = usize::from(self.dice.one_in(2));
        let dir = self.roots[root].join("files");
        fs::create_dir_all(&dir).context("create a directory")?;
        let path = self.any(&dir);
        match self.dice.between(0, 9) {
            0..=3 => self.create(&path),
            4..=5 => self.overwrite(&path),
            6..=7 => self.rename(&dir, &path),
            _ => gone_is_fine(fs::remove_file(&path)).context("delete a file"),
        }
    }

    fn any(&mut self, dir: &Path) -> PathBuf {
        dir.join(format!("file-{:02}", self.dice.between(1, FILES_MAX)))
    }

    fn create(&mut self, path: &Path) -> Result<()> {
        let bytes = self.bytes(FILE_BYTES_MAX);
        fs::write(path, bytes).context("write a file")?;
        if self.dice.one_in(3) {
            File::open(path).and_then(|file| file.sync_all()).context("sync a file")?;
        }
        Ok(())
    }

    fn overwrite(&mut self, path: &Path) -> Result<()> {
        let Ok(file) = OpenOptions::new().write(true).open(path) else { return Ok(()) };
        let at = self.dice.between(0, FILE_BYTES_MAX / 2);
        let bytes = self.bytes(FILE_BYTES_MAX / 4);
        file.write_all_at(&bytes, at).context("overwrite in a file")
    }

    /// The way in which programs replace a file: the new one is synced before it takes the name.
    fn rename(&mut self, dir: &Path, path: &Path) -> Result<()> {
        let temporary = dir.join("new");
        fs::write(&temporary, self.bytes(FILE_BYTES_MAX)).context("write a file")?;
        File::open(&temporary).and_then(|file| file.sync_all()).context("sync a file")?;
        fs::rename(&temporary, path).context("rename a file")
    }

    fn bytes(&mut self, max: u64) -> Vec<u8> {
        let len = usize::try_from(self.dice.between(1, max)).expect("lengths are small");
        let mut bytes = vec![0; len];
        self.dice.fill(&mut bytes);
        bytes
    }
}

fn gone_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
