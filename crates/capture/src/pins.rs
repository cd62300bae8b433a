//! Where programs and maps are pinned, so that capture outlives the agent.
//!
//! ```text
//!   <pin>/                 one directory for each installation; locked by whoever uses it
//!     load-<key>/          one load; two of them while one takes over from the other
//!       map_control …      complete when control.layout is set, which comes last
//!       link_on_queue …    a pinned link keeps its program attached
//! ```

use crate::CaptureError;
use crate::layout::{self, control};
use crate::maps::{Maps, PINNED};
use crate::program::{HOOKS, Program};
use libbpf_rs::{Link, MapCore, MapHandle};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// `f_type` of a bpffs.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// A pin directory that is ours until this is dropped.
pub(crate) struct Pins {
    path: PathBuf,
    /// Locked.
    _directory: File,
}

/// A complete load that was found pinned.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) maps: Maps,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CaptureError {
    let path = path.to_owned();
    move |source| CaptureError::Pin { path, source }
}

impl Pins {
    /// Takes the directory, and makes it if it is missing; mounts a bpffs where its mount point is
    /// `/sys/fs/bpf` and empty.
    ///
    /// # Errors
    /// [`CaptureError::InUse`] when another process has it; [`CaptureError::Pin`].
    pub(crate) fn take(path: &Path) -> Result<Self, CaptureError> {
        mount_if_missing(path)?;
        fs::create_dir_all(path).map_err(failed(path))?;
        if !is_bpffs(path) {
            let source = io::Error::other("it is in no bpffs (mount -t bpf bpf /sys/fs/bpf)");
            return Err(CaptureError::Pin { path: path.to_owned(), source });
        }
        let directory = File::open(path).map_err(failed(path))?;
        match rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _directory: directory }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CaptureError::InUse(path.to_owned())),
            Err(errno) => Err(failed(path)(errno.into())),
        }
    }

    /// All complete loads, the newest first. What a process left that died while it pinned is
    /// removed: the load that it was to take over from is still there.
    pub(crate) fn loads(&self) -> Result<Vec<Found>, CaptureError> {
        let mut found = Vec::new();
        for path in self.entries()? {
            match open(&path) {
                Some(maps) => found.push(Found { path, maps }),
                None => remove(&path)?,
            }
        }
        found.sort_by_key(|load| std::cmp::Reverse(load.maps.get(control::SERIAL)));
        Ok(found)
    }

    /// All loads, complete or not.
    pub(crate) fn entries(&self) -> Result<Vec<PathBuf>, CaptureError> {
        let entries = fs::read_dir(&self.path).map_err(failed(&self.path))?;
        entries.map(|entry| Ok(entry.map_err(failed(&self.path))?.path())).collect()
    }

    /// Pins a load's maps, before it is attached.
    pub(crate) fn pin_maps(&self, program: &Program, key: u64) -> Result<PathBuf, CaptureError> {
        let path = self.path.join(format!("load-{key:016x}"));
        fs::create_dir_all(&path).map_err(failed(&path))?;
        for name in PINNED {
            let mut map = program.map(name)?;
            map.pin(path.join(format!("map_{name}")))
                .map_err(|source| CaptureError::Program { step: "pin a map", source })?;
        }
        Ok(path)
    }

    /// Pins the links. The load is not complete before its layout word is set.
    pub(crate) fn pin_links(&self, path: &Path, links: &mut [Link]) -> Result<(), CaptureError> {
        for (link, name) in links.iter_mut().zip(HOOKS) {
            link.pin(path.join(format!("link_{name}")))
                .map_err(|source| CaptureError::Program { step: "pin a hook", source })?;
        }
        Ok(())
    }

    /// Removes a load: the kernel detaches its programs.
    pub(crate) fn remove(&self, load: &Path) -> Result<(), CaptureError> {
        remove(load)
    }

    /// Removes everything, the directory too.
    pub(crate) fn remove_all(self) -> Result<(), CaptureError> {
        self.entries()?.iter().try_for_each(|load| remove(load))?;
        fs::remove_dir(&self.path).map_err(failed(&self.path))
    }
}

/// The maps of a load that is complete and whose programs are attached.
fn open(path: &Path) -> Option<Maps> {
    open_any(path).filter(|maps| maps.get(control::LAYOUT) == layout::LAYOUT)
}

/// The maps of a load whose programs are attached.
pub(crate) fn open_any(path: &Path) -> Option<Maps> {
    for name in HOOKS {
        // Dropping one that is pinned detaches nothing.
        let _link = Link::open(path.join(format!("link_{name}"))).ok()?;
    }
    let pinned = |name| {
        MapHandle::from_pinned_path(path.join(format!("map_{name}")))
            .map_err(|source| CaptureError::Program { step: "open a pinned map", source })
    };
    // An unknown layout is not read any further: nothing else is where we would look.
    let control_bytes = pinned("control").ok()?.value_size();
    if control_bytes as usize != layout::CONTROL_BYTES {
        return None;
    }
    Maps::new(pinned).ok()
}

fn remove(load: &Path) -> Result<(), CaptureError> {
    let entries = fs::read_dir(load).map_err(failed(load))?;
    for entry in entries {
        let path = entry.map_err(failed(load))?.path();
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    fs::remove_dir(load).map_err(failed(load))
}

/// Removes the pins of a capture whose agent is gone: its programs are detached, nothing is marked
/// any more. True when there were any.
///
/// # Errors
/// [`CaptureError::InUse`] when a process uses them; [`CaptureError::Pin`].
pub fn detach(pin: &Path) -> Result<bool, CaptureError> {
    if !pin.exists() {
        return Ok(false);
    }
    Pins::take(pin)?.remove_all()?;
    Ok(true)
}

/// True where pins can be made.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| {
        #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
        let magic = found.f_type as u64;
        magic == BPF_FS_MAGIC
    })
}

/// A minimal system has the mount point, and nothing mounted on it.
fn mount_if_missing(path: &Path) -> Result<(), CaptureError> {
    let standard = Path::new("/sys/fs/bpf");
    if !path.starts_with(standard) || is_bpffs(standard) {
        return Ok(());
    }
    tracing::info!("no bpffs at /sys/fs/bpf: mounting it");
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("bpf", standard, "bpf", flags, c"mode=0700")
        .map_err(|errno| failed(standard)(errno.into()))
}
