use super::{Record, Runs};
use crate::host::{self, Loop};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rounds of looking and removing: one mount or loop device stands on another, a process makes one
/// more before it dies.
const ROUNDS_MAX: u32 = 100;
/// How long the kernel is given to let go of something before the next round.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the roles of a run may take to end by themselves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What was removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Swept {
    /// Processes ended.
    pub(crate) processes: usize,
    /// File systems unmounted.
    pub(crate) mounts: usize,
    /// Loop devices detached.
    pub(crate) loops: BTreeSet<PathBuf>,
}

/// Removes everything of a run and its record; can be repeated, and killed at any moment.
///
/// The order: processes first, since they hold the rest; then mounts and loop devices by turns,
/// since one stands on the other; the directory when nothing but plain files is in it.
///
/// # Errors
/// Names what can't be removed; the record then stays.
pub(crate) fn sweep(runs: &Runs, record: &Record, patience: Duration) -> Result<Swept> {
    let mut sweeper = Sweeper {
        record,
        swept: Swept::default(),
        // Before any process ends: nbdfuse takes its mount out of the tree when it is told to end,
        // and a loop device on a file in it can't be recognized any more then.
        known: known_loops(record)?,
        gave_way: false,
    };
    for process in host::processes_of(&record.id)? {
        host::terminate(process, patience)?;
        sweeper.swept.processes += 1;
    }
    for _ in 0..ROUNDS_MAX {
        let before = sweeper.swept.clone();
        if sweeper.round()? {
            remove_dir(&record.dir)?;
            runs.forget(record)?;
            return Ok(sweeper.swept);
        }
        if sweeper.swept == before {
            sweeper.give_way()?;
        }
    }
    bail!("{} is still in use; `fuser --mount` tells by what", record.dir.display())
}

struct Sweeper<'a> {
    record: &'a Record,
    swept: Swept,
    known: BTreeSet<Loop>,
    gave_way: bool,
}

impl Sweeper<'_> {
    /// Removes what can be removed now; true when nothing was there.
    fn round(&mut self) -> Result<bool> {
        let mut nothing = true;
        for process in host::processes_of(&self.record.id)? {
            host::kill(process)?;
            self.swept.processes += 1;
            nothing = false;
        }
        for mount in host::mounts_under(&self.record.dir)? {
            // Busy while a loop device stands on a file in it.
            self.swept.mounts += usize::from(host::unmount(&mount.point).is_ok());
            nothing = false;
        }
        for found in self.loops()? {
            if host::detach(&found.device).is_ok() {
                self.swept.loops.insert(found.device);
            }
            nothing = false;
        }
        Ok(nothing)
    }

    /// The loop devices that are still to go. One that the kernel will detach with its last user
    /// counts until mounts were taken out of the tree: after that its user is a stranger.
    fn loops(&mut self) -> Result<Vec<Loop>> {
        self.known.append(&mut known_loops(self.record)?);
        let mut loops = host::loops()?;
        let same =
            |one: &Loop, known: &Loop| one.device == known.device && one.diskseq == known.diskseq;
        loops.retain(|one| self.known.iter().any(|known| same(one, known)));
        loops.retain(|one| !(self.gave_way && self.swept.loops.contains(&one.device)));
        Ok(loops)
    }

    /// When a round removed nothing: the kernel is slow to let go, or a stranger uses a mount.
    /// After some patience the mount leaves the tree and ends with its last user; never before its
    /// loop devices are told to go.
    fn give_way(&mut self) -> Result<()> {
        std::thread::sleep(PAUSE);
        let told = self.loops()?.iter().all(|one| self.swept.loops.contains(&one.device));
        if told {
            for mount in host::mounts_under(&self.record.dir)? {
                host::unmount_lazily(&mount.point)?;
                self.swept.mounts += 1;
            }
            self.gave_way = true;
        }
        Ok(())
    }
}

/// Loop devices of the run: by their files, and by what is mounted from them.
fn known_loops(record: &Record) -> Result<BTreeSet<Loop>> {
    let mounts = host::mounts_under(&record.dir)?;
    let mut loops = host::loops()?;
    loops.retain(|one| {
        let mounted = mounts.iter().any(|mount| mount.source == one.device);
        mounted || one.backing.starts_with(&record.dir)
    });
    Ok(loops.into_iter().collect())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
