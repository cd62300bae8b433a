//! A capture whose records are replayed onto images in memory.

use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{
    AlignedBuffer, Capture, Captured, CapturedKind, Options, Quiet, State, Target,
};
use landfall_types::DiskIndex;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BARRIER_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) disks: Vec<LoopDevice>,
    pub(crate) capture: Capture,
}

impl Rig {
    /// Captures fresh loop devices of these sizes, all zeroes.
    pub(crate) fn new(sizes: &[u64], options: Options) -> Self {
        let disks: Vec<LoopDevice> = sizes.iter().map(|&size| scratch(size)).collect();
        Self::over(disks, options)
    }

    pub(crate) fn over(disks: Vec<LoopDevice>, options: Options) -> Self {
        let targets: Vec<Target> = disks
            .iter()
            .zip(0..)
            .map(|(disk, index)| Target { disk: DiskIndex(index), path: disk.path().to_owned() })
            .collect();
        let capture = Capture::start(&targets, options).expect("capture starts");
        let quiet = capture.barrier(BARRIER_MAX).expect("writes end");
        assert_eq!(quiet, Quiet::Seen, "nothing else writes to these disks");
        Self { disks, capture }
    }

    pub(crate) fn path(&self, disk: usize) -> &Path {
        self.disks[disk].path()
    }

    /// Takes all records that are in the ring now, and frees it.
    pub(crate) fn take(&self) -> Vec<Captured> {
        let head = self.capture.head();
        let mut records = Vec::new();
        while self.capture.drained() < head && !self.capture.is_exhausted() {
            records.extend(self.capture.drain(MIB as usize));
            self.capture.release(self.capture.drained());
        }
        records
    }

    /// Runs `load` while the ring is emptied onto images, as an agent would.
    pub(crate) fn replay_while(&self, load: impl FnOnce() + Send) -> Vec<Vec<u8>> {
        let mut images: Vec<Vec<u8>> = self
            .capture
            .disks()
            .iter()
            .map(|(_, disk)| vec![0; disk.geometry.size_bytes as usize])
            .collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let end = EndFlag(&done);
                load();
                drop(end);
            });
            loop {
                let last = done.load(Ordering::SeqCst);
                for record in self.take() {
                    apply(&mut images, &record);
                }
                if last {
                    break;
                }
                let _more = self.capture.wait_readable(Duration::from_millis(20));
            }
        });
        assert_eq!(self.capture.state(), State::Data, "nothing was lost");
        images
    }

    /// Byte for byte what the disks hold.
    pub(crate) fn assert_equal(&self, images: &[Vec<u8>]) {
        for (disk, image) in self.disks.iter().zip(images) {
            let found = read_disk(disk.path(), image.len());
            let differs = image.iter().zip(found.iter()).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{} differs from the replay", disk.path().display());
        }
        for (index, disk) in self.capture.disks() {
            let counters = self.capture.counters(*index);
            assert_eq!(counters.submitted, counters.completed, "{disk:?} {counters:?}");
            assert_eq!((counters.missed, counters.beside, counters.failed), (0, 0, 0), "{disk:?}");
        }
    }
}

/// Set also when the load panics: the replay must not wait for ever.
struct EndFlag<'a>(&'a AtomicBool);

impl Drop for EndFlag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn apply(images: &mut [Vec<u8>], record: &Captured) {
    let start = usize::try_from(record.offset).expect("fits");
    let end = start + usize::try_from(record.length).expect("fits");
    let place = &mut images[usize::from(record.disk.0)][start..end];
    match &record.kind {
        CapturedKind::Write(data) => place.copy_from_slice(data),
        // A loop device over memory reads zeroes after a discard; others may not (trap T-23).
        CapturedKind::Zero | CapturedKind::Discard => place.fill(0),
        CapturedKind::Failed => panic!("no write failed in this test: {record:?}"),
    }
}

pub(crate) fn scratch(bytes: u64) -> LoopDevice {
    LoopDevice::scratch(bytes, LoopOptions::default()).expect("a free loop device")
}

/// Over a file: memory has no "zero this range", so a driver fails such a request and the kernel
/// writes zeroes.
pub(crate) fn on_file(bytes: u64) -> LoopDevice {
    let backing = tempfile::tempfile().expect("a file");
    backing.set_len(bytes).expect("a sparse file");
    LoopDevice::attach(&backing, LoopOptions::default()).expect("a free loop device")
}

pub(crate) fn small_ring(mib: u64) -> Options {
    Options { ring_bytes: mib * MIB, ..Options::default() }
}

pub(crate) fn direct(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .expect("the disk opens for direct I/O")
}

pub(crate) fn read_disk(path: &Path, bytes: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(bytes).expect("memory");
    direct(path).read_exact_at(&mut buffer, 0).expect("the disk is read");
    buffer
}

/// A buffer for direct I/O, filled with `byte`.
pub(crate) fn filled(bytes: usize, byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(bytes).expect("memory");
    buffer.fill(byte);
    buffer
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A mount that is undone, also when the test fails.
pub(crate) struct Mount {
    pub(crate) at: tempfile::TempDir,
}

impl Mount {
    pub(crate) fn new(what: &str, arguments: &[&str]) -> Self {
        let at = tempfile::tempdir().expect("a directory");
        let path = at.path().to_str().expect("text").to_owned();
        run("mount", &[arguments, &[what, &path]].concat());
        Self { at }
    }

    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _undone = Command::new("umount").arg(self.at.path()).status();
    }
}

/// A disk whose writes hang: its backing file lies in a frozen file system.
pub(crate) struct Hanging {
    pub(crate) disk: LoopDevice,
    mount: Option<Mount>,
    _outer: LoopDevice,
}

impl Hanging {
    pub(crate) fn new() -> Self {
        let outer = scratch(32 * MIB);
        run("mkfs.ext4", &["-q", "-F", outer.path().to_str().unwrap()]);
        let mount = Mount::new(outer.path().to_str().unwrap(), &["-t", "ext4"]);
        let backing = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(mount.path().join("disk"))
            .unwrap();
        backing.set_len(MIB).unwrap();
        let disk = LoopDevice::attach(&backing, LoopOptions::default()).unwrap();
        Self { disk, mount: Some(mount), _outer: outer }
    }

    pub(crate) fn freeze(&self) -> Thaw {
        let path = self.mount.as_ref().unwrap().path().to_owned();
        run("fsfreeze", &["-f", path.to_str().unwrap()]);
        Thaw(path)
    }

    pub(crate) fn target(&self) -> Target {
        Target { disk: DiskIndex(0), path: self.disk.path().to_owned() }
    }
}

/// Thaws at the latest when the test ends: a frozen file system hangs everything that comes later.
pub(crate) struct Thaw(std::path::PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", self.0.to_str().unwrap()]);
    }
}
