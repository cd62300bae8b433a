//! How an agent works on its machine.

use crate::freeze::GuardCommand;
use crate::point::PointSettings;
use crate::settled::SettledFile;
use landfall_capture::Options;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the programs of an installation are pinned, each in a folder of its own.
const PINS: &str = "/sys/fs/bpf";
/// Magic number of a bpffs: linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Folder of the hooks.
pub const HOOKS_DIR: &str = "/etc/landfall/hooks.d";

/// What the agent may take of the machine; beyond, bytes are not captured for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Bytes captured a second, over two seconds.
    pub bytes_per_s: Option<u64>,
    /// Of one processor, over two seconds; 200 is two processors.
    pub cpu_percent: Option<u32>,
}

/// How an agent works on its machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How to capture.
    pub capture: Options,
    /// Most bytes of records in memory, beside the ring.
    pub queue_bytes_max: usize,
    /// What the target is known to have, where capture outlives the process.
    pub settled: SettledFile,
    /// How points are made.
    pub points: PointSettings,
    /// The file in which the bitmap is kept over a restart of the machine; `None`: it is not.
    pub area: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
}

impl Settings {
    /// What a plain installation uses. What is kept while the machine runs, and is not to be found
    /// on a copy of its disks, lies beside the instance file; the guard is `program` with the
    /// arguments `agent guard`.
    ///
    /// Capture outlives the process where a bpffs is mounted.
    #[must_use]
    pub fn of_installation(program: &Path, state_dir: &Path, instance_file: &Path) -> Self {
        let pin = bpffs().then(|| pin_of(state_dir));
        if pin.is_none() {
            tracing::warn!("{PINS} is no bpffs: capture ends with this process");
        }
        let settled = SettledFile(pin.is_some().then(|| Self::settled_file(instance_file)));
        let guard = GuardCommand {
            program: program.to_owned(),
            arguments: vec!["agent".to_owned(), "guard".to_owned()],
            record: Self::frozen_record(instance_file),
        };
        Self {
            capture: Options { pin, ..Options::default() },
            queue_bytes_max: 48 << 20,
            settled,
            area: Some(area_of(state_dir)),
            limits: Limits::default(),
            points: PointSettings {
                guard,
                hooks_dir: PathBuf::from(HOOKS_DIR),
                frozen_max: Duration::from_secs(5),
                hook_max: Duration::from_secs(30),
            },
        }
    }

    /// Where it is noted what may be frozen.
    #[must_use]
    pub fn frozen_record(instance_file: &Path) -> PathBuf {
        instance_file.with_file_name("landfall-frozen")
    }

    /// Where it is noted what the target is known to have.
    #[must_use]
    pub fn settled_file(instance_file: &Path) -> PathBuf {
        instance_file.with_file_name("landfall-settled")
    }

    /// Where the agent's newest report lies.
    #[must_use]
    pub fn status_file(instance_file: &Path) -> PathBuf {
        instance_file.with_file_name("landfall-status.json")
    }

    /// Capture ends with this process.
    pub fn end_with_process(&mut self) {
        self.capture.pin = None;
        self.settled = SettledFile(None);
        self.area = None;
    }
}

/// Where the agent with this folder of state pins its programs: two agents on one machine must not
/// share their pins.
pub(crate) fn pin_of(state_dir: &Path) -> PathBuf {
    let full = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let hash = blake3::hash(full.as_os_str().as_encoded_bytes()).to_hex();
    Path::new(PINS).join("landfall").join(&hash[..16])
}

/// Where the bitmap is kept over a restart.
pub(crate) fn area_of(state_dir: &Path) -> PathBuf {
    state_dir.join("bitmap")
}

/// True where programs and maps can be pinned.
pub(crate) fn bpffs() -> bool {
    let magic = rustix::fs::statfs(PINS).map(|found| u64::try_from(found.f_type).unwrap_or(0));
    magic.is_ok_and(|magic| magic == BPF_FS_MAGIC)
}
