//! The guard: a process of its own that freezes, and thaws whatever becomes of the agent.
//!
//! It thaws when it is told to, when the agent's end of the channel closes (the agent is dead), and
//! when its time is over. While something is frozen it neither logs nor writes a file.
//!
//! ```text
//!   agent                                   guard (standard input is the channel)
//!     ── {"limit-ms":…,"mounts":[…]} ─────►   syncs, then freezes each in order
//!     ◄───────────────── frozen ───────────   or: failed REASON, expired
//!     ── still ───────────────────────────►
//!     ◄───────────────── yes ──────────────   or: expired
//!     ── thaw (or the end of the channel) ►   thaws in reverse order
//!     ◄───────────────── thawed ───────────
//! ```

use super::ioctl;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the guard is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct GuardOrder {
    /// Longest time that anything stays frozen, milliseconds.
    pub(super) limit_ms: u64,
    /// Where it is noted what may be frozen, for [`super::thaw_left_behind`].
    pub(super) record: PathBuf,
    /// In the order of freezing.
    pub(super) mounts: Vec<PathBuf>,
}

/// What of the mounts is frozen, and whether the time is over.
#[derive(Default)]
struct Progress {
    frozen: Vec<usize>,
    over: bool,
}

/// The file systems, held open: a path could lead elsewhere by the time of the thaw.
struct Files {
    files: Vec<File>,
    progress: Mutex<Progress>,
}

impl Files {
    fn freeze_all(&self) -> Result<(), (usize, io::Error)> {
        for (n, file) in self.files.iter().enumerate() {
            match ioctl::freeze(file) {
                Ok(()) => {}
                // It can't be frozen (FAT, for instance): it was synced, and that is all there is.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
                Err(error) => return Err((n, error)),
            }
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if progress.over {
                // The time ran out while the kernel was at work: nobody else knows of this one.
                let _thawed = ioctl::thaw(file);
                return Ok(());
            }
            progress.frozen.push(n);
        }
        Ok(())
    }

    fn thaw_all(&self) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.over = true;
        while let Some(n) = progress.frozen.pop() {
            // Not frozen any more: somebody else has thawed it.
            let _thawed = ioctl::thaw(&self.files[n]);
        }
    }
}

/// Does one order that comes over `channel`; returns when nothing is frozen.
///
/// # Errors
/// The channel or the order is of no use; nothing was frozen then.
pub fn guard(channel: UnixStream) -> io::Result<()> {
    // Of all processes this one must not be chosen when memory is short. Needs a right that a
    // hardened unit may not give: then its chances are those of everybody.
    let _unprotected = fs::write("/proc/self/oom_score_adj", "-1000");
    let mut lines = BufReader::new(channel.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let order: GuardOrder = serde_json::from_str(&line)?;
    let files = order.mounts.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
    for file in &files {
        // What is dirty now is written before, not during the freeze.
        rustix::fs::syncfs(file)?;
    }
    note(&order)?;
    let files = Arc::new(Files { files, progress: Mutex::default() });
    let result = watch(&channel, &mut lines, &order, &files);
    files.thaw_all();
    let _gone = fs::remove_file(&order.record);
    result
}

/// Before the first freeze: a guard that is killed leaves word of what may be frozen.
fn note(order: &GuardOrder) -> io::Result<()> {
    if let Some(dir) = order.record.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&order.record, serde_json::to_vec(&order.mounts)?)
}

fn watch(
    channel: &UnixStream,
    lines: &mut BufReader<UnixStream>,
    order: &GuardOrder,
    files: &Arc<Files>,
) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(order.limit_ms);
    let (done, result) = mpsc::channel();
    let worker = {
        let files = Arc::clone(files);
        std::thread::spawn(move || {
            let _nobody = done.send(files.freeze_all());
        })
    };
    let frozen = result.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let mut channel = channel;
    match frozen {
        Ok(Ok(())) => {
            writeln!(channel, "frozen")?;
            let answer = until_over(channel, lines, deadline);
            files.thaw_all();
            writeln!(channel, "{}", answer?)
        }
        Ok(Err((n, error))) => {
            files.thaw_all();
            writeln!(channel, "failed {}: {error}", order.mounts[n].display())
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            files.thaw_all();
            // What the kernel is still freezing is thawed by the worker: this process must not end
            // before.
            let _panicked = worker.join();
            writeln!(channel, "expired")
        }
    }
}

/// Answers until it is told to thaw or the time is over.
fn until_over(
    mut channel: &UnixStream,
    lines: &mut BufReader<UnixStream>,
    deadline: Instant,
) -> io::Result<&'static str> {
    let mut line = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok("expired");
        }
        channel.set_read_timeout(Some(left))?;
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) => return Ok("thawed"),
            Ok(_) if line.trim() == "still" => writeln!(channel, "yes")?,
            Ok(_) => return Ok("thawed"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok("expired"),
            Err(error) => return Err(error),
        }
    }
}

/// Thaws what a guard that was killed has left frozen, by its record; gives the mount points.
///
/// # Errors
/// The record can't be read or removed.
pub fn thaw_left_behind(record: &Path) -> io::Result<Vec<PathBuf>> {
    let text = match fs::read(record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mounts: Vec<PathBuf> = serde_json::from_slice(&text)?;
    let thawed = |mount: &PathBuf| File::open(mount).and_then(|file| ioctl::thaw(&file)).is_ok();
    let thawed = mounts.into_iter().rev().filter(thawed).collect();
    fs::remove_file(record)?;
    Ok(thawed)
}
