//! At the beginning of a machine's life: watch every disk, then give each its past.

use super::RebootError;
use super::area::Area;
use super::save::fingerprint_of;
use super::saved::{Present, SEAL_BYTES, Saved, Verdict};
use crate::doctor::whole_disks;
use crate::freeze;
use crate::settings::{area_of, pin_of};
use crate::settled::{Ancestry, SettledFile};
use landfall_capture::Disk;
use landfall_capture::boot::{Admitted, Watch, watch_all};
use std::path::Path;

/// What became of what was kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restored {
    /// No disk is watched: nothing was asked for, or this kernel can't.
    NotWatched,
    /// Nothing was kept: the machine was not ended in good order, or what was kept is used up.
    Nothing,
    /// The disks that count, of so many that were kept.
    Disks {
        /// These count.
        counted: usize,
        /// So many were kept.
        kept: usize,
    },
}

/// Before the root file system is mounted: marks every write to every disk from now on. Gives the
/// number of disks.
///
/// # Errors
/// [`RebootError::Capture`].
pub fn watch(state_dir: &Path) -> Result<usize, RebootError> {
    let disks: Vec<Disk> = present();
    if disks.is_empty() {
        return Ok(0);
    }
    Ok(watch_all(disks, &pin_of(state_dir))?.len())
}

fn present() -> Vec<Disk> {
    whole_disks().iter().filter_map(|path| Disk::inspect(path).ok()).collect()
}

/// When the root file system is mounted at `root`, for reading only: uses up what was kept for the
/// agent with this folder of state, and gives each disk that proves unwritten its bits.
///
/// The order matters. The seal is broken durably first: a machine that loses power from then on
/// compares. Notes for the agent come before the watch is complete, because a watch without them
/// would count for more than it knows.
///
/// # Errors
/// [`RebootError`]; nothing is watched any more then, and the agent compares.
pub fn restore(
    root: &Path,
    state_dir: &Path,
    settled: &SettledFile,
) -> Result<Restored, RebootError> {
    let Some(watch) = Watch::open(&pin_of(state_dir))? else { return Ok(Restored::NotWatched) };
    match used_up(root, state_dir) {
        Ok(Some(saved)) => admit(watch, &saved, settled),
        Ok(None) => {
            watch.discard()?;
            Ok(Restored::Nothing)
        }
        Err(error) => {
            watch.discard()?;
            Err(error)
        }
    }
}

/// What was kept; it is nowhere any more.
fn used_up(root: &Path, state_dir: &Path) -> Result<Option<Saved>, RebootError> {
    let path = area_of(state_dir);
    let path = root.join(path.strip_prefix("/").unwrap_or(&path));
    if !path.exists() {
        return Ok(None);
    }
    let area = Area::locate(&path)?;
    let Some(saved) = Saved::decode(&area.read()?) else { return Ok(None) };
    area.write(0, &[0; SEAL_BYTES])?;
    if let Some(path) = freeze::mounts_of(&present()).map_err(super::save::mounts)?.first() {
        // What was written through it may have come before the seal was broken.
        return Err(RebootError::Writable(path.clone()));
    }
    Ok(Some(saved))
}

fn admit(watch: Watch, saved: &Saved, settled: &SettledFile) -> Result<Restored, RebootError> {
    let disks = present();
    let shown: Vec<Present> = disks.iter().map(|disk| look(disk, &watch, saved)).collect();
    let mut admitted = Vec::new();
    for (index, verdict) in saved.judge(&shown) {
        tracing::info!(%index, verdict = verdict.code(), "a bitmap was kept for this disk");
        if let Verdict::Counts { at, dirty } = verdict {
            admitted.push(Admitted { disk: disks[at].clone(), index, dirty });
        }
    }
    settled.write(saved.replica, saved.epoch, saved.settled)?;
    settled.note_excluded(&saved.excluded)?;
    let incarnations = saved.incarnations.clone();
    settled.write_ancestry(&Ancestry { restored: true, incarnations })?;
    watch.admit(u128::from_be_bytes(*saved.replica.as_bytes()), &admitted)?;
    Ok(Restored::Disks { counted: admitted.len(), kept: saved.disks.len() })
}

fn look(disk: &Disk, watch: &Watch, saved: &Saved) -> Present {
    // Only one that has the size can be it, and only then it is read.
    let size_bytes = disk.geometry.size_bytes;
    let like = saved.disks.iter().any(|one| one.size_bytes == size_bytes);
    let fingerprint = like.then(|| fingerprint_of(disk).ok()).flatten();
    Present { size_bytes, fingerprint, seen_all: watch.has_seen_all(disk) }
}
