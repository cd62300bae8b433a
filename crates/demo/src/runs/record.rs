use crate::host::{Process, start_time};
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where records lie, whatever directory a run works in.
const RECORDS: &str = "/var/lib/landfall-demo";
/// Another place for them, for tests.
const RECORDS_VARIABLE: &str = "LANDFALL_DEMO_RECORDS";

/// What must be known of a run to remove it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    /// Unique on this machine.
    pub(crate) id: String,
    /// Everything of it is in here.
    pub(crate) dir: PathBuf,
    /// The demo itself.
    pub(crate) owner: Process,
    /// It ended well and was asked to leave the roles running.
    pub(crate) kept: bool,
}

/// The records of all runs.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    dir: PathBuf,
}

impl Runs {
    /// Those of this machine.
    pub(crate) fn of_this_machine() -> Self {
        Self { dir: std::env::var_os(RECORDS_VARIABLE).unwrap_or_else(|| RECORDS.into()).into() }
    }

    #[cfg(test)]
    pub(crate) const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Begins a run of this process: the record first, so that a kill in between leaves a record
    /// without a directory and never a directory without a record.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn begin(&self, parent: &Path) -> Result<Record> {
        let pid = std::process::id();
        let start = start_time(pid).context("find this process in /proc")?;
        let id = format!("{pid}-{start}");
        let dir = std::path::absolute(parent)?.join(format!("landfall-demo-{id}"));
        let record = Record { id, dir, owner: Process { pid, start }, kept: false };
        self.write(&record)?;
        fs::create_dir_all(&record.dir)
            .with_context(|| format!("make the directory {}", record.dir.display()))?;
        Ok(record)
    }

    /// Writes a record durably.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("make {}", self.dir.display()))?;
        let path = self.path(&record.id);
        let temporary = path.with_extension("new");
        let write = || -> Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            // Renamed into place: a reader never sees half a record.
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Every run that has a record.
    ///
    /// # Errors
    /// Of the file system; a file that is no record is named.
    pub(crate) fn list(&self) -> Result<Vec<Record>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("read the records of earlier runs"),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.context("read the records of earlier runs")?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let record = serde_json::from_slice(&text);
                records.push(record.with_context(|| format!("{} is no record", path.display()))?);
            }
        }
        Ok(records)
    }

    /// Forgets a run of which nothing is left.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn forget(&self, record: &Record) -> Result<()> {
        fs::remove_file(self.path(&record.id)).context("remove the record of a run")?;
        // Leaves nothing behind, unless another run has its record there.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}
