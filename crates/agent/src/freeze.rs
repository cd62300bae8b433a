//! Freezes the file systems of the protected disks for a moment, and never for longer.
//!
//! The freeze is done by a process of its own, the [`guard`]: it thaws when the agent is killed,
//! and after a hard limit. If the guard is killed instead, the agent thaws; if both are, the next
//! start of the agent does, or `landfall agent thaw`, which the unit runs whenever the agent ends.

mod guard;
mod ioctl;
mod mounts;
mod stack;

pub use guard::{guard, thaw_left_behind};

use guard::GuardOrder;
use landfall_capture::Disk;
use landfall_types::Class;
use stack::{Device, Sysfs};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the guard may take beyond its limit, on a machine that is very busy, before it is given up.
const GRACE: Duration = Duration::from_secs(5);
/// Before anything is frozen, everything is synced; that may take longer.
const SYNC_MAX: Duration = Duration::from_secs(120);

/// How to start the guard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuardCommand {
    /// A program that calls [`guard`] with its standard input as the channel.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it is noted what may be frozen: in memory, not on a protected disk.
    pub record: PathBuf,
}

/// Why there was no freeze.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The guard could not be started or asked.
    #[error("{step} the guard")]
    Guard {
        /// Which step.
        step: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What is mounted is not known.
    #[error("read the table of mounts")]
    Mounts(#[source] io::Error),
    /// A file system can't be frozen; all others were thawed.
    #[error("freeze {0}")]
    Refused(String),
    /// It took longer than the limit.
    #[error("the file systems were not frozen within {limit_ms} ms")]
    Expired {
        /// The limit.
        limit_ms: u64,
    },
}

impl FreezeError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Guard { .. } | Self::Mounts(_) | Self::Expired { .. } => Class::Transient,
            Self::Refused(_) => Class::Permanent,
        }
    }
}

/// The mounted file systems of these disks, in the order in which they are frozen.
///
/// # Errors
/// [`FreezeError::Mounts`].
pub fn mounts_of(disks: &[Disk]) -> Result<Vec<PathBuf>, FreezeError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(FreezeError::Mounts)?;
    let device = |disk: &Disk| Device { major: disk.major, minor: disk.minor };
    let protected: BTreeSet<Device> = disks.iter().map(device).collect();
    Ok(mounts::to_freeze(&mounts::parse(&table), &Sysfs, &protected))
}

/// Frozen file systems. Dropping it thaws them.
pub struct Frozen {
    channel: BufReader<UnixStream>,
    guard: Child,
    /// For the case that the guard is killed.
    files: Vec<File>,
    since: Instant,
    thawed: bool,
}

/// Freezes `mounts` in this order, for `limit` at most. Blocks.
///
/// # Errors
/// [`FreezeError`]; nothing is frozen then.
pub fn freeze(
    command: &GuardCommand,
    mounts: Vec<PathBuf>,
    limit: Duration,
) -> Result<Frozen, FreezeError> {
    let failed = |step| move |source| FreezeError::Guard { step, source };
    let files = mounts.iter().map(File::open).collect::<io::Result<Vec<_>>>();
    let files = files.map_err(failed("open the file systems for"))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a channel to"))?;
    let guard = Command::new(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        // Of its own group: a signal for the agent's is none for the guard.
        .process_group(0)
        .spawn()
        .map_err(failed("start"))?;
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let order = GuardOrder { limit_ms, record: command.record.clone(), mounts };
    let order = serde_json::to_string(&order).expect("paths and a number");
    let timeout = Some(SYNC_MAX + limit + GRACE);
    ours.set_read_timeout(timeout).map_err(failed("ask"))?;
    let since = Instant::now();
    let channel = BufReader::new(ours);
    let mut frozen = Frozen { channel, guard, files, since, thawed: false };
    let answer = frozen.ask(&order).map_err(failed("ask"))?;
    match answer.as_str() {
        "frozen" => Ok(frozen),
        "expired" => Err(FreezeError::Expired { limit_ms }),
        "" => Err(failed("ask")(io::ErrorKind::UnexpectedEof.into())),
        other => Err(FreezeError::Refused(other.trim_start_matches("failed ").to_owned())),
    }
}

impl Frozen {
    /// True when everything is still frozen, so that what was done before this call was done while
    /// it was (trap T-19).
    pub fn still(&mut self) -> bool {
        self.ask("still").is_ok_and(|answer| answer == "yes")
    }

    /// Thaws; gives how long it was frozen at most, counted from the start of the guard, or `None`
    /// when the guard had thawed before because its time was over.
    pub fn thaw(mut self) -> Option<Duration> {
        self.end().then(|| self.since.elapsed())
    }

    fn ask(&mut self, what: &str) -> io::Result<String> {
        writeln!(self.channel.get_mut(), "{what}")?;
        let mut answer = String::new();
        self.channel.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// True when the guard was in time.
    fn end(&mut self) -> bool {
        if std::mem::replace(&mut self.thawed, true) {
            return true;
        }
        let answer = self.ask("thaw");
        let in_time = answer.as_ref().is_ok_and(|answer| answer == "thawed");
        if answer.is_err() || answer.is_ok_and(|answer| answer.is_empty()) {
            // The guard is dead, or does not answer: what it froze is thawed here.
            for file in self.files.iter().rev() {
                let _not_frozen = ioctl::thaw(file);
            }
            let _gone = self.guard.kill();
        }
        let _status = self.guard.wait();
        in_time
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.end();
    }
}
