//! At the end of a machine's life: what the target lacks goes into the area.

use super::RebootError;
use super::area::Area;
use super::fingerprint::{self, Fingerprint};
use super::saved::{SEAL_BYTES, Saved, SavedDisk};
use crate::freeze;
use crate::settings::{area_of, pin_of};
use crate::settled::SettledFile;
use crate::state::{AgentState, Phase};
use landfall_api_types::order::AgentStart;
use landfall_capture::boot::{Left, LeftDisk};
use landfall_capture::{AlignedBuffer, Dirty, Disk};
use landfall_types::ByteRange;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What was kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// How many disks.
    pub disks: usize,
    /// How many bytes of them are dirty.
    pub dirty_bytes: u64,
}

/// Keeps the bitmap of the agent with this folder of state, after its end and after the last
/// unmount (trap T-16). `None`: there is nothing to keep.
///
/// The order matters. The area is written once before the bits are read, so that they have its own
/// blocks; the seal comes last, and is broken again if anything was written meanwhile.
///
/// # Errors
/// [`RebootError`]; the seal is broken then, and the next start compares.
pub fn save(state_dir: &Path, settled: &SettledFile) -> Result<Option<Kept>, RebootError> {
    let path = area_of(state_dir);
    if !path.exists() {
        // No agent has protected anything here, or this file system can't have one.
        return Ok(None);
    }
    let area = Area::locate(&path)?;
    area.write(0, &[0; SEAL_BYTES])?;
    let Some(AgentState { phase: Phase::Running { start }, .. }) = AgentState::load(state_dir)?
    else {
        return Ok(None);
    };
    let owner = u128::from_be_bytes(*start.replica.as_bytes());
    let Some(left) = Left::open(&pin_of(state_dir), owner)? else { return Ok(None) };
    let disks: Vec<(LeftDisk, Disk)> = known(&left, &start);
    let every: Vec<Disk> = disks.iter().map(|(_, disk)| disk.clone()).collect();
    if let Some(path) = freeze::mounts_of(&every).map_err(mounts)?.into_iter().next() {
        return Err(RebootError::Writable(path));
    }
    // As large as it may become: all of its blocks are dirty from here on.
    area.write(SEAL_BYTES as u64, &vec![0; area_content()])?;
    let saved = collect(&left, &start, &disks, settled)?;
    let sealed = saved.encode();
    area.write(SEAL_BYTES as u64, &sealed[SEAL_BYTES..])?;
    area.write(0, &sealed[..SEAL_BYTES])?;
    if collect(&left, &start, &disks, settled)? != saved {
        area.write(0, &[0; SEAL_BYTES])?;
        return Err(RebootError::Written);
    }
    let ranges = saved.disks.iter().flat_map(|disk| &disk.dirty);
    let dirty_bytes = ranges.map(ByteRange::len).sum();
    Ok(Some(Kept { disks: saved.disks.len(), dirty_bytes }))
}

fn area_content() -> usize {
    usize::try_from(super::area::AREA_BYTES).unwrap_or(usize::MAX) - SEAL_BYTES
}

pub(super) fn mounts(error: freeze::FreezeError) -> RebootError {
    RebootError::Area {
        operation: "look for mounts in",
        path: "/proc/self/mountinfo".into(),
        source: io::Error::other(error),
    }
}

/// The disks of the run that are those which were captured (trap T-8).
fn known(left: &Left, start: &AgentStart) -> Vec<(LeftDisk, Disk)> {
    let pair = |one: LeftDisk| {
        let path = &start.disks.iter().find(|disk| disk.index == one.index)?.path;
        let disk = Disk::inspect(Path::new(path)).ok()?;
        let same = (disk.major, disk.minor) == one.number && disk.diskseq == one.diskseq;
        same.then_some((one, disk))
    };
    left.disks().into_iter().filter_map(pair).collect()
}

fn collect(
    left: &Left,
    start: &AgentStart,
    disks: &[(LeftDisk, Disk)],
    settled: &SettledFile,
) -> Result<Saved, RebootError> {
    let epoch = start.lineage.epoch();
    let mut incarnations = settled.ancestry().incarnations;
    if !incarnations.contains(&left.incarnation()) {
        incarnations.push(left.incarnation());
    }
    let mut saved = Saved {
        replica: start.replica,
        epoch,
        settled: settled.read(start.replica, epoch),
        incarnations,
        excluded: settled.excluded(),
        disks: Vec::new(),
    };
    for now in left.disks() {
        let Some((_, disk)) = disks.iter().find(|(one, _)| one.index == now.index) else {
            continue;
        };
        // Without a baseline, or with ranges that are not known, the disk is compared anyway.
        let Some(Dirty::Ranges(dirty)) = now.dirty else { continue };
        saved.disks.push(SavedDisk {
            index: now.index,
            size_bytes: now.size_bytes,
            fingerprint: fingerprint_of(disk)?.hash,
            dirty,
        });
    }
    Ok(saved)
}

/// Reads past every cache: what the disk itself holds.
pub(super) fn fingerprint_of(disk: &Disk) -> Result<Fingerprint, RebootError> {
    let failed = |source| RebootError::Area { operation: "read", path: disk.path.clone(), source };
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&disk.path);
    let device = direct.map_err(failed)?;
    let partitions = partitions(disk);
    let taken = fingerprint::take(disk.geometry.size_bytes, &partitions, |range| {
        let length = usize::try_from(range.len()).map_err(io::Error::other)?;
        let mut buffer = AlignedBuffer::zeroed(length)?;
        device.read_exact_at(&mut buffer, range.start)?;
        Ok(buffer.to_vec())
    });
    taken.map_err(failed)
}

/// The partitions of a disk as the kernel knows them, in order.
fn partitions(disk: &Disk) -> Vec<ByteRange> {
    let folder = format!("/sys/dev/block/{}:{}", disk.major, disk.minor);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let range = |path: std::path::PathBuf| {
        let number = |name| {
            let text = fs::read_to_string(path.join(name)).ok()?;
            text.trim().parse::<u64>().ok()?.checked_mul(512)
        };
        path.join("partition").exists().then_some(())?;
        ByteRange::at(number("start")?, number("size")?)
    };
    let mut found: Vec<ByteRange> = entries.filter_map(|entry| range(entry.path())).collect();
    found.sort();
    found
}
