use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The last entries that were acknowledged as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Acknowledged {
    /// On disk 1.
    pub(crate) disk1: u64,
    /// On disk 2.
    pub(crate) disk2: u64,
    /// Time of the last entry on disk 1, nanoseconds since 1970.
    pub(crate) time_ns: u64,
}

impl Acknowledged {
    /// What a workload has acknowledged, whether it lives or not; none before its first entry.
    ///
    /// # Errors
    /// Of the file system, or when the file is not one of a workload.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read what was acknowledged"),
        };
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[disk1, disk2, time_ns]) => Ok(Some(Self { disk1, disk2, time_ns })),
            _ => anyhow::bail!("{}: not what a workload writes: {text:?}", path.display()),
        }
    }
}

/// The file that [`Acknowledged::read`] reads. It outlives the process, not the computer: what was
/// written to it is there after SIGKILL, and that is all that is asked of it.
#[derive(Debug)]
pub(crate) struct AcknowledgedFile {
    file: File,
}

impl AcknowledgedFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).context("create the file of what was acknowledged")?;
        Ok(Self { file })
    }

    /// One write of a fixed length: a reader sees the old numbers or the new ones.
    pub(crate) fn write(&self, now: Acknowledged) -> Result<()> {
        let line = format!("{:020} {:020} {:020}\n", now.disk1, now.disk2, now.time_ns);
        self.file.write_all_at(line.as_bytes(), 0).context("tell what was acknowledged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acknowledged");
        assert_eq!(Acknowledged::read(&path).unwrap(), None);
        let file = AcknowledgedFile::create(&path).unwrap();
        assert_eq!(Acknowledged::read(&path).unwrap(), None);
        for (disk1, time_ns) in [(1_000_000, u64::MAX), (3, 4)] {
            let now = Acknowledged { disk1, disk2: disk1 - 1, time_ns };
            file.write(now).unwrap();
            assert_eq!(Acknowledged::read(&path).unwrap(), Some(now));
        }
        std::fs::write(&path, "what?").unwrap();
        assert!(Acknowledged::read(&path).is_err());
    }
}
