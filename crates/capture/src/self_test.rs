//! Compares captured bytes with written ones, before any captured byte is trusted.

use crate::loopdev::{LoopDevice, LoopOptions};
use crate::{
    AlignedBuffer, Capture, CaptureError, CapturedKind, Options, SelfTestFailure, State, Target,
};
use landfall_types::DiskIndex;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

const SCRATCH_BYTES: usize = 4 << 20;
const SECTOR: usize = 512;
/// The scratch disk is memory: more than this is no slow disk but a capture that does not work.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelfTestReport {
    /// Bytes written and found again.
    pub bytes: u64,
    /// Records that they came in.
    pub records: u64,
}

/// Writes random bytes to a scratch disk in several ways, and compares what was captured with what
/// was written.
///
/// # Errors
/// [`CaptureError::SelfTest`] when they differ: bytes can't be captured on this machine.
pub fn self_test(options: &Options) -> Result<SelfTestReport, CaptureError> {
    let scratch = |step| move |source| CaptureError::Scratch { step, source };
    let disk = LoopDevice::scratch(SCRATCH_BYTES as u64, LoopOptions::default())
        .map_err(scratch("set up a loop device"))?;
    let target = Target { disk: DiskIndex(0), path: disk.path().to_owned() };
    let options = Options {
        ring_bytes: 4 * SCRATCH_BYTES as u64,
        excluded: Vec::new(),
        pin: None,
        ..options.clone()
    };
    let capture = crate::open::open_untested(&[target], options)?;
    capture.barrier(PATIENCE)?;
    let mut pattern = AlignedBuffer::zeroed(SCRATCH_BYTES).map_err(scratch("get memory"))?;
    getrandom::fill(&mut pattern).map_err(CaptureError::Random)?;
    write_pattern(&disk, &pattern).map_err(scratch("write to the scratch disk"))?;
    let (image, report) = collect(&capture)?;
    let differs = pattern.iter().zip(&image).position(|(written, found)| written != found);
    match differs {
        None => Ok(report),
        Some(at) => Err(CaptureError::SelfTest(SelfTestFailure::Differs {
            offset: at as u64,
            written: pattern[at],
            found: image[at],
        })),
    }
}

/// Every byte of the disk once, in all the shapes that a write can have: small and large, of memory
/// that does not begin at a page, of several pieces of memory, and through the page cache.
fn write_pattern(disk: &LoopDevice, pattern: &AlignedBuffer) -> io::Result<()> {
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(disk.path())?;
    let cached = OpenOptions::new().write(true).open(disk.path())?;
    let quarter = SCRATCH_BYTES / 4;
    // Sizes that leave each following write at an odd sector, so that vectors begin within pages.
    let mut at = 0;
    for sectors in [1, 2, 7, 8, 9, 31, 64, 100].iter().cycle() {
        let end = (at + sectors * SECTOR).min(quarter);
        direct.write_all_at(&pattern[at..end], at as u64)?;
        at = end;
        if at == quarter {
            break;
        }
    }
    direct.write_all_at(&pattern[quarter..2 * quarter], quarter as u64)?;
    write_vectored(&direct, &pattern[2 * quarter..3 * quarter], 2 * quarter)?;
    cached.write_all_at(&pattern[3 * quarter..], (3 * quarter) as u64)?;
    cached.sync_all()
}

/// One write of many pieces that are not neighbors in memory: each is copied out, in an order of
/// its own.
fn write_vectored(file: &File, data: &[u8], offset: usize) -> io::Result<()> {
    const PIECE: usize = 5 * SECTOR;
    let gap = PIECE + SECTOR;
    let pieces = data.len().div_ceil(PIECE);
    let mut scattered = AlignedBuffer::zeroed(pieces * gap)?;
    for (piece, bytes) in data.chunks(PIECE).enumerate() {
        let at = (pieces - 1 - piece) * gap;
        scattered[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let slices: Vec<IoSlice<'_>> = data
        .chunks(PIECE)
        .enumerate()
        .map(|(piece, bytes)| {
            let at = (pieces - 1 - piece) * gap;
            IoSlice::new(&scattered[at..at + bytes.len()])
        })
        .collect();
    let written = rustix::io::pwritev(file, &slices, offset as u64)?;
    if written == data.len() {
        return Ok(());
    }
    // A system may take less at once; the rest in the plain way.
    let rest = written / SECTOR * SECTOR;
    let mut copy = AlignedBuffer::zeroed(data.len() - rest)?;
    copy.copy_from_slice(&data[rest..]);
    file.write_all_at(&copy, (offset + rest) as u64)
}

/// What the captured writes make of an empty disk.
fn collect(capture: &Capture) -> Result<(Vec<u8>, SelfTestReport), CaptureError> {
    let failed = |failure| Err(CaptureError::SelfTest(failure));
    let begun = Instant::now();
    let head = capture.head();
    let mut image = vec![0; SCRATCH_BYTES];
    let mut report = SelfTestReport { bytes: 0, records: 0 };
    while capture.drained() < head {
        for record in capture.drain(usize::MAX) {
            let start = usize::try_from(record.offset).unwrap_or(usize::MAX);
            if let CapturedKind::Write(data) = &record.kind
                && let Some(place) = image.get_mut(start..).and_then(|i| i.get_mut(..data.len()))
            {
                place.copy_from_slice(data);
                report.bytes += data.len() as u64;
                report.records += 1;
            }
        }
        if let State::Lost(loss) = capture.state() {
            return failed(SelfTestFailure::Lost(loss.reason));
        }
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    let (written, captured) = (SCRATCH_BYTES as u64, report.bytes);
    if captured < written {
        return failed(SelfTestFailure::Incomplete { written, captured });
    }
    Ok((image, report))
}
