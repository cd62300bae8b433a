//! What a restart of the machine needs of the capture: programs that mark from before the first
//! write on, and the bits that the former life has left.
//!
//! ```text
//!   shutdown:  Left::open ─► which blocks the target lacks ─► (the agent keeps them, trap T-16)
//!   boot:      watch_all ─► programs mark every disk, pinned, not complete
//!              Watch::open ─► admit what was kept ─► complete: the agent takes it over
//!                        └──► nothing was kept: discard
//! ```
//!
//! A watch is an ordinary load in bitmap mode with the smallest ring. It is never gone on with
//! ([`crate::Capture::start`] replaces it), so that bytes are trusted only after a self-test.

use crate::adopt::{boot_id, halves, mark_pending, marked};
use crate::disk::Disk;
use crate::layout::{self, control, number_of, reason_of, target};
use crate::maps::{Maps, membarrier};
use crate::open::random;
use crate::options::{Options, RING_BYTES_MIN};
use crate::pins::{Pins, open_any};
use crate::program::{Program, size_and_index};
use crate::{CaptureError, Dirty, LostReason, kernel};
use landfall_types::{ByteRange, DiskIndex, Incarnation};
use std::path::{Path, PathBuf};

/// Marks every write to every disk of `disks` from now on, pinned at `pin`. Before the first file
/// system is mounted. Gives the disks that are watched: at most as many as one load has places for.
///
/// A disk that was written before in this boot, or whose kernel does not count, is watched too, but
/// as dirty everywhere.
///
/// # Errors
/// [`CaptureError`].
pub fn watch_all(disks: Vec<Disk>, pin: &Path) -> Result<Vec<Disk>, CaptureError> {
    kernel::check_marking()?;
    let indexed = disks.into_iter().take(layout::TARGETS_MAX).zip(0..);
    let disks: Vec<(DiskIndex, Disk)> =
        indexed.map(|(disk, index)| (DiskIndex(index), disk)).collect();
    let pins = Pins::take(pin)?;
    if !pins.loads()?.is_empty() {
        // An agent's, of this boot: what it knows must not be thrown away.
        return Err(CaptureError::InUse(pin.to_owned()));
    }
    let options = Options { ring_bytes: RING_BYTES_MIN, ..Options::default() };
    let key = random()?;
    let program = Program::load(&disks, key, &options)?;
    let maps = &program.maps;
    // No program of ours: whoever comes next replaces it.
    maps.set(control::OBJECT, 0);
    for slot in 0..disks.len() {
        maps.target_set(slot, target::LOST, layout::pack_lost(LostReason::NoData, 0));
        maps.target_set(slot, target::TAKEN, 1);
    }
    let path = pins.pin_maps(&program, key)?;
    let attached = program.attach(layout::MODE_BITMAP).and_then(|(maps, mut links)| {
        pins.pin_links(&path, &mut links)?;
        Ok(maps)
    });
    let maps = attached.inspect_err(|_| {
        let _tried = pins.remove(&path);
    })?;
    for (slot, (_, disk)) in disks.iter().enumerate() {
        // After the programs are there: a write is either counted here or marked.
        if !disk.is_unwritten() {
            maps.target_set(slot, target::ALL_DIRTY, number_of(LostReason::Unmarked));
        }
    }
    Ok(disks.into_iter().map(|(_, disk)| disk).collect())
}

/// What is known of a disk that was kept over a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// Which of the watched disks, by number.
    pub disk: Disk,
    /// How the replica names it.
    pub index: DiskIndex,
    /// The target lacks no more than this, and what was written since the watch began.
    pub dirty: Vec<ByteRange>,
}

/// A watch that waits for what was kept.
pub struct Watch {
    pins: Pins,
    path: PathBuf,
    maps: Maps,
}

impl Watch {
    /// The watch at `pin`, if there is one.
    ///
    /// # Errors
    /// [`CaptureError`]: the pins are not usable, or in use.
    pub fn open(pin: &Path) -> Result<Option<Self>, CaptureError> {
        if !pin.exists() {
            return Ok(None);
        }
        let pins = Pins::take(pin)?;
        let found = pins.entries()?.into_iter().find_map(|path| {
            let maps = open_any(&path)?;
            // Complete is what an agent has loaded, or what was admitted before.
            (maps.get(control::LAYOUT) == 0).then_some((path, maps))
        });
        Ok(found.map(|(path, maps)| Self { pins, path, maps }))
    }

    /// Whether a disk was watched from before its first write of this boot on.
    #[must_use]
    pub fn has_seen_all(&self, disk: &Disk) -> bool {
        self.slot(disk).is_some_and(|slot| self.maps.target_get(slot, target::ALL_DIRTY) == 0)
    }

    fn slot(&self, disk: &Disk) -> Option<usize> {
        let count = usize::try_from(self.maps.get(control::TARGETS_COUNT)).unwrap_or(0);
        (0..count.min(layout::TARGETS_MAX))
            .find(|slot| crate::adopt::is_disk(&self.maps, *slot, disk))
    }

    /// Gives these disks their past: an agent of `owner` finds them with a baseline, and dirty
    /// where they were dirty or were written since. The others are as unknown as before.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing was admitted then.
    pub fn admit(self, owner: u128, admitted: &[Admitted]) -> Result<(), CaptureError> {
        let boot = boot_id()?;
        let maps = &self.maps;
        for one in admitted {
            let Some(slot) = self.slot(&one.disk) else { continue };
            maps.target_set(slot, target::SIZE_AND_INDEX, size_and_index(one.index, &one.disk));
            for range in &one.dirty {
                mark_pending(maps, slot, *range);
            }
            maps.target_set(slot, target::BASELINE, 1);
        }
        for (half, (owner, boot)) in halves(owner).into_iter().zip(boot).enumerate() {
            maps.set(control::OWNER + half * 8, owner);
            maps.set(control::BOOT + half * 8, boot);
        }
        maps.set(control::SERIAL, 1);
        // Last: without it the watch is what nobody goes on with.
        maps.set(control::LAYOUT, layout::LAYOUT);
        Ok(())
    }

    /// Ends it: nothing is marked any more.
    ///
    /// # Errors
    /// [`CaptureError::Pin`].
    pub fn discard(self) -> Result<(), CaptureError> {
        self.pins.remove(&self.path)?;
        self.pins.remove_all()
    }
}

/// What a capture has left in the kernel whose agent is gone, at the end of the machine's life.
pub struct Left {
    _pins: Pins,
    maps: Maps,
}

/// A disk of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftDisk {
    /// How the replica names it.
    pub index: DiskIndex,
    /// Its device number.
    pub number: (u32, u32),
    /// Counts every disk that has appeared since boot.
    pub diskseq: u64,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// The target lacks no more than this; `None`: it may lack anything.
    pub dirty: Option<Dirty>,
}

impl Left {
    /// The newest complete capture of `owner` in this boot; `None` when there is none.
    ///
    /// # Errors
    /// [`CaptureError::InUse`] while an agent runs; [`CaptureError::Pin`].
    pub fn open(pin: &Path, owner: u128) -> Result<Option<Self>, CaptureError> {
        if !pin.exists() {
            return Ok(None);
        }
        let options = Options { owner, ..Options::default() };
        let pins = Pins::take(pin)?;
        let boot = boot_id()?;
        let newest = pins.loads()?.into_iter().next();
        let ours = newest.filter(|load| crate::adopt::is_ours(&load.maps, boot, &options));
        Ok(ours.map(|load| Self { _pins: pins, maps: load.maps }))
    }

    /// The load's name.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::new(self.maps.get(control::KEY))
    }

    /// Each disk, with everything that has a bit by now.
    #[must_use]
    pub fn disks(&self) -> Vec<LeftDisk> {
        // Who marks right now has marked when this returns.
        membarrier();
        let count = usize::try_from(self.maps.get(control::TARGETS_COUNT)).unwrap_or(0);
        (0..count.min(layout::TARGETS_MAX)).map(|slot| self.disk(slot)).collect()
    }

    fn disk(&self, slot: usize) -> LeftDisk {
        let get = |offset| self.maps.target_get(slot, offset);
        let number = get(target::MAJOR);
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).expect("32 bits");
        let size_and_index = get(target::SIZE_AND_INDEX);
        let dirty = match (get(target::ALL_DIRTY), get(target::PENDING_ALL)) {
            (0, 0) => Dirty::Ranges(marked(&self.maps, slot)),
            (0, reason) | (reason, _) => Dirty::Everything(reason_of(reason)),
        };
        LeftDisk {
            index: DiskIndex(u16::try_from(size_and_index >> 48).expect("16 bits")),
            number: (half(number), half(number >> 32)),
            diskseq: get(target::DISKSEQ),
            size_bytes: (size_and_index & ((1 << 48) - 1)) * 512,
            dirty: (get(target::BASELINE) != 0).then_some(dirty),
        }
    }
}
