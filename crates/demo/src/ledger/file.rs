use super::entry::{LINE_BYTES, Line};
use anyhow::{Context as _, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// The file on disk 2, open for appending.
#[derive(Debug)]
pub(crate) struct LineFile {
    file: File,
}

impl LineFile {
    /// Opens or creates it; what a power cut left of an unacknowledged line is cut off.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file =
            options.create(true).append(true).open(path).context("open the file on disk 2")?;
        let len = file.metadata().context("look at the file on disk 2")?.len();
        let torn = len % LINE_BYTES as u64;
        if torn != 0 {
            file.set_len(len - torn).context("cut a torn line off")?;
        }
        // The name of a new file is durable only with its directory.
        let parent = path.parent().context("the file has a directory")?;
        File::open(parent)?.sync_all().context("sync the directory on disk 2")?;
        Ok(Self { file })
    }

    /// Appends a line; it is durable when this returns.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn append(&mut self, line: &Line) -> Result<()> {
        self.file.write_all(&line.encode()).context("append on disk 2")?;
        self.file.sync_data().context("sync disk 2")
    }
}

/// All lines of the file on disk 2, in order. A last line that is shorter than a line was never
/// acknowledged and is left out.
///
/// # Errors
/// On a line that was never written, or one out of order.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<Line>> {
    let bytes = std::fs::read(path).context("read the file on disk 2")?;
    let mut lines = Vec::with_capacity(bytes.len() / LINE_BYTES);
    for (expected, chunk) in (1..).zip(bytes.chunks_exact(LINE_BYTES)) {
        let line = Line::decode(chunk).with_context(|| format!("disk 2, entry {expected}"))?;
        ensure!(line.number == expected, "disk 2 has entry {} at {expected}", line.number);
        lines.push(line);
    }
    Ok(lines)
}
