//! What runs in a guest.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use landfall_capture::{
    AlignedBuffer, Capture, CaptureError, Captured, CapturedKind, Dirty, Fallback, Mode, Options,
    Target,
};
use landfall_types::DiskIndex;

use crate::verdict::Verdict;

const DISK: DiskIndex = DiskIndex(0);
const CHUNK: u64 = 1 << 20;
const BARRIER_MAX: Duration = Duration::from_secs(30);

/// Captures the disk `DEVICE` while the load in `/run/load` runs, and compares the replay with it.
#[test]
#[ignore = "runs inside a guest"]
fn replay() {
    // What libbpf and the verifier say is worth reading when a load fails.
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
    let device = PathBuf::from(std::env::var("DEVICE").unwrap());
    println!("{}", perform(&device));
}

fn perform(device: &Path) -> Verdict {
    let target = Target { disk: DISK, path: device.to_owned() };
    let options = Options { fallback: Fallback::Bitmap, ..Options::default() };
    let capture = match Capture::start(&[target], options) {
        Ok(capture) => capture,
        Err(error @ (CaptureError::Kernel { .. } | CaptureError::Disk { .. })) => {
            return Verdict::Refused(error.to_string());
        }
        Err(error) => panic!("{error:?}"),
    };
    capture.barrier(BARRIER_MAX).unwrap();
    let mut replica = Replica::copy_of(device, capture.disks()[0].1.geometry.size_bytes);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Set also when the load fails: the replay must not wait for ever.
            let _end = EndFlag(&done);
            let status = Command::new("sh").arg("/run/load").env("DEVICE", device).status();
            assert!(status.unwrap().success(), "the load failed");
        });
        loop {
            let last = done.load(Ordering::SeqCst);
            replica.take(&capture);
            if last {
                break;
            }
            let _more = capture.wait_readable(Duration::from_millis(20));
        }
    });
    println!("{:?}", capture.counters(DISK));
    let different = replica.differences(device);
    match (capture.mode(DISK), different.first()) {
        (Mode::Data, None) => {
            Verdict::Equal { bytes: capture.counters(DISK).bytes, records: replica.records }
        }
        (Mode::Data, Some(&at)) => Verdict::Differs { at },
        (Mode::Bitmap(why), _) => {
            let marked = capture.marked(DISK);
            let is_marked = |at: u64| match &marked {
                Dirty::Everything(_) => true,
                Dirty::Ranges(ranges) => ranges.iter().any(|r| (r.start..r.end).contains(&at)),
            };
            match different.iter().find(|&&at| !is_marked(at)) {
                None => Verdict::Marked(why.code().to_owned()),
                Some(&at) => Verdict::Differs { at },
            }
        }
    }
}

struct EndFlag<'a>(&'a AtomicBool);

impl Drop for EndFlag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the records make of the disk as it was; a sparse file in memory.
struct Replica {
    file: File,
    size: u64,
    /// Not written since it was given up by a discard, where what it reads as depends on the disk
    /// (trap T-23), or since the capture has said that it has to be read again: start → end.
    undefined: BTreeMap<u64, u64>,
    records: u64,
}

impl Replica {
    fn copy_of(device: &Path, size: u64) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for_each_chunk(device, size, |at, bytes| {
            if bytes.iter().any(|&byte| byte != 0) {
                file.write_all_at(bytes, at).unwrap();
            }
        });
        Self { file, size, undefined: BTreeMap::new(), records: 0 }
    }

    fn take(&mut self, capture: &Capture) {
        let head = capture.head();
        while capture.drained() < head && !capture.is_exhausted() {
            for record in capture.drain(CHUNK as usize) {
                self.apply(&record);
            }
            capture.release(capture.drained());
        }
    }

    fn apply(&mut self, record: &Captured) {
        self.records += 1;
        let (start, end) = (record.offset, record.offset + record.length);
        self.define(start, end);
        match &record.kind {
            CapturedKind::Write(data) => self.file.write_all_at(data, start).unwrap(),
            CapturedKind::Zero => {
                self.file.write_all_at(&vec![0; record.length as usize], start).unwrap();
            }
            CapturedKind::Discard | CapturedKind::Failed => {
                self.undefined.insert(start, end);
            }
        }
    }

    /// Takes a range out of what is undefined.
    fn define(&mut self, start: u64, end: u64) {
        let touched: Vec<_> = self
            .undefined
            .range(..end)
            .filter(|&(_, &until)| until > start)
            .map(|(&from, &until)| (from, until))
            .collect();
        for (from, until) in touched {
            self.undefined.remove(&from);
            if from < start {
                self.undefined.insert(from, start);
            }
            if until > end {
                self.undefined.insert(end, until);
            }
        }
    }

    /// Of each sector in which the disk differs, the first defined byte.
    fn differences(&self, device: &Path) -> Vec<u64> {
        let mut found = Vec::new();
        let mut mine = vec![0; CHUNK as usize];
        for_each_chunk(device, self.size, |at, bytes| {
            let mine = &mut mine[..bytes.len()];
            self.file.read_exact_at(mine, at).unwrap();
            if mine == bytes {
                return;
            }
            for (sector, (theirs, mine)) in bytes.chunks(512).zip(mine.chunks(512)).enumerate() {
                let place = at + sector as u64 * 512;
                let differs = theirs.iter().zip(mine).position(|(a, b)| a != b);
                found.extend(differs.map(|byte| place + byte as u64));
            }
        });
        found.retain(|&place| !self.is_undefined(place));
        found
    }

    fn is_undefined(&self, place: u64) -> bool {
        self.undefined.range(..=place).next_back().is_some_and(|(_, &until)| until > place)
    }
}

/// Reads the whole disk, past the page cache.
fn for_each_chunk(device: &Path, size: u64, mut with: impl FnMut(u64, &[u8])) {
    let disk = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device).unwrap();
    let mut buffer = AlignedBuffer::zeroed(CHUNK as usize).unwrap();
    let mut at = 0;
    while at < size {
        let length = CHUNK.min(size - at) as usize;
        disk.read_exact_at(&mut buffer[..length], at).unwrap();
        with(at, &buffer[..length]);
        at += length as u64;
    }
}

#[test]
fn a_discarded_range_is_defined_again_by_a_write() {
    let file = tempfile::tempfile().unwrap();
    let mut replica = Replica { file, size: 100, undefined: BTreeMap::new(), records: 0 };
    replica.undefined.insert(10, 50);
    replica.define(20, 30);
    let left: Vec<_> = replica.undefined.iter().map(|(&a, &b)| (a, b)).collect();
    assert_eq!(left, [(10, 20), (30, 50)]);
    assert!(replica.is_undefined(19) && !replica.is_undefined(20) && !replica.is_undefined(50));
    replica.define(0, 100);
    assert!(replica.undefined.is_empty());
}
