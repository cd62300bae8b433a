//! Starting a capture: taking over a pinned one, replacing it without a gap, or loading anew.
//!
//! | found pinned | what is done | [`Origin`] |
//! |---|---|---|
//! | nothing complete | load, attach, pin | `Fresh` |
//! | what we would load: program, disks, ring | go on with it | `Resumed` |
//! | anything else of ours | attach ours, take over the bits, detach it | `Replaced` |
//! | another replica's | attach ours, detach it | `Fresh` |

use crate::adopt::{boot_id, halves, is_current, is_ours, merge};
use crate::capture::Capture;
use crate::disk::Disk;
use crate::layout::{self, control, target};
use crate::maps::{Maps, membarrier};
use crate::options::{Fallback, Options, Target};
use crate::pins::{Found, Pins};
use crate::program::Program;
use crate::{CaptureError, LostReason, Origin, kernel, self_test};
use landfall_types::DiskIndex;
use libbpf_rs::Link;
use std::path::Path;

/// The pins of a capture, locked as long as it is used.
pub(crate) struct Pinned {
    pub(crate) pins: Pins,
}

/// What a [`Capture`] is made of.
pub(crate) struct Opened {
    pub(crate) links: Vec<Link>,
    pub(crate) maps: Maps,
    pub(crate) disks: Vec<(DiskIndex, Disk)>,
    pub(crate) options: Options,
    pub(crate) origin: Origin,
    pub(crate) pinned: Option<Pinned>,
}

/// See [`Capture::start`].
pub(crate) fn open(targets: &[Target], options: Options) -> Result<Capture, CaptureError> {
    kernel::check_marking()?;
    let disks = inspect(targets)?;
    let Some(path) = options.pin.clone() else {
        let mode = tested(&options)?;
        return load(disks, options, mode, None).map(Capture::new);
    };
    let pins = Pins::take(&path)?;
    let boot = boot_id()?;
    let mut found = pins.loads()?;
    let ours = found.first().is_some_and(|load| is_ours(&load.maps, boot, &options));
    if ours && is_current(&found[0].maps, &disks, &options) {
        let newest = found.remove(0);
        // What it has taken over from, if its agent died before the old one was removed.
        remove_all(&pins, &found)?;
        tracing::info!(path = %newest.path.display(), "the pinned capture goes on");
        let pinned = Some(Pinned { pins });
        let (links, maps, origin) = (Vec::new(), newest.maps, Origin::Resumed);
        return Ok(Capture::new(Opened { links, maps, disks, options, origin, pinned }));
    }
    let mode = tested(&options)?;
    let old = Old { pins, boot, found, ours };
    load(disks, options, mode, Some(old)).map(Capture::new)
}

/// What is replaced, and where ours is pinned.
struct Old {
    pins: Pins,
    boot: [u64; 2],
    found: Vec<Found>,
    ours: bool,
}

fn remove_all(pins: &Pins, loads: &[Found]) -> Result<(), CaptureError> {
    loads.iter().try_for_each(|load| pins.remove(&load.path))
}

/// Whether bytes can be trusted here.
fn tested(options: &Options) -> Result<u64, CaptureError> {
    let verdict = kernel::check_data().and_then(|()| self_test::self_test(options));
    match (verdict, options.fallback) {
        (Ok(report), _) => {
            let (bytes, records) = (report.bytes, report.records);
            tracing::debug!(bytes, records, "capture self-test passed");
            Ok(layout::MODE_DATA)
        }
        (Err(error), Fallback::Refuse) => Err(error),
        (Err(error), Fallback::Bitmap) => {
            tracing::warn!(%error, "bytes can't be captured: marking only");
            Ok(layout::MODE_BITMAP)
        }
    }
}

/// Without the self-test, which needs it itself.
pub(crate) fn open_untested(targets: &[Target], options: Options) -> Result<Capture, CaptureError> {
    load(inspect(targets)?, options, layout::MODE_DATA, None).map(Capture::new)
}

/// The order matters. Ours is attached before anything else: from then on nothing is missed. Then
/// it takes over what the old one knows, and only then it is complete: a process that dies before
/// leaves the old one as the one that counts. Detached is the old one last.
fn load(
    disks: Vec<(DiskIndex, Disk)>,
    options: Options,
    mode: u64,
    old: Option<Old>,
) -> Result<Opened, CaptureError> {
    let key = random()?;
    let program = Program::load(&disks, key, &options)?;
    if mode == layout::MODE_BITMAP {
        for slot in 0..disks.len() {
            let lost = layout::pack_lost(LostReason::NoData, 0);
            program.maps.target_set(slot, target::LOST, lost);
            program.maps.target_set(slot, target::TAKEN, 1);
        }
    }
    let Some(Old { pins, boot, found, ours }) = old else {
        let (maps, links) = program.attach(mode)?;
        present(&disks)?;
        let (origin, pinned) = (Origin::Fresh, None);
        return Ok(Opened { links, maps, disks, options, origin, pinned });
    };
    let path = pins.pin_maps(&program, key)?;
    let attached = attach_pinned(program, &pins, &path, mode, &disks);
    let (maps, links) = attached.inspect_err(|_| {
        // What is left would go on by itself; the old load is in force.
        let _tried = pins.remove(&path);
    })?;
    let [owner, boot] = [halves(options.owner), boot];
    for (half, (owner, boot)) in owner.iter().zip(boot).enumerate() {
        maps.set(control::OWNER + half * 8, *owner);
        maps.set(control::BOOT + half * 8, boot);
    }
    let serial = found.first().map_or(0, |load| load.maps.get(control::SERIAL));
    maps.set(control::SERIAL, serial + 1);
    // All marks from before ours was attached are there.
    membarrier();
    if ours {
        merge(&found[0].maps, &maps, &disks);
    }
    maps.set(control::LAYOUT, layout::LAYOUT);
    remove_all(&pins, &found)?;
    let origin = if ours { Origin::Replaced } else { Origin::Fresh };
    let pinned = Some(Pinned { pins });
    Ok(Opened { links, maps, disks, options, origin, pinned })
}

fn attach_pinned(
    program: Program,
    pins: &Pins,
    path: &Path,
    mode: u64,
    disks: &[(DiskIndex, Disk)],
) -> Result<(Maps, Vec<Link>), CaptureError> {
    let (maps, mut links) = program.attach(mode)?;
    present(disks)?;
    pins.pin_links(path, &mut links)?;
    Ok((maps, links))
}

/// Between the look at a disk and the load another one can have come: then the filter matches
/// nothing (trap T-8).
fn present(disks: &[(DiskIndex, Disk)]) -> Result<(), CaptureError> {
    match disks.iter().find(|(_, disk)| !disk.is_present()) {
        Some((index, _)) => Err(CaptureError::DiskReplaced(*index)),
        None => Ok(()),
    }
}

fn inspect(targets: &[Target]) -> Result<Vec<(DiskIndex, Disk)>, CaptureError> {
    if targets.is_empty() || targets.len() > layout::TARGETS_MAX {
        let count = targets.len();
        let most = layout::TARGETS_MAX;
        return Err(CaptureError::Targets(format!(
            "{count} disks, where 1 to {most} are possible"
        )));
    }
    let mut disks: Vec<(DiskIndex, Disk)> = Vec::with_capacity(targets.len());
    for target in targets {
        let disk = Disk::inspect(&target.path)?;
        let twice = disks.iter().find(|(index, other)| {
            *index == target.disk || (other.major, other.minor) == (disk.major, disk.minor)
        });
        if let Some((_, other)) = twice {
            let (a, b) = (other.path.display(), disk.path.display());
            return Err(CaptureError::Targets(format!("{a} and {b} are the same disk or index")));
        }
        disks.push((target.disk, disk));
    }
    Ok(disks)
}

/// A load key: random, so that bytes of an earlier load never look committed, and never 0 ("no
/// incarnation").
pub(crate) fn random() -> Result<u64, CaptureError> {
    loop {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(CaptureError::Random)?;
        match u64::from_ne_bytes(bytes) {
            0 => {}
            key => return Ok(key),
        }
    }
}
