//! What has rotted: which recovery points resolve to it, and what of it nothing covers yet.
//!
//! Trap T-20: what the source sends instead is a new record, of the present. It makes the positions
//! from there on good; those before stay corrupt and are named.

use super::scrub::ROT_MAX;
use super::{Core, Replica, Rot};
use crate::body::{Body, Role};
use crate::error::StorageError;
use crate::sums::BLOCK_BYTES;
use crate::sync::{lock, read};
use crate::tree;
use landfall_journal::JournalError;
use landfall_types::{ByteRange, DiskIndex, LogId, Lsn};
use std::sync::TryLockError;

/// Record headers that are in memory at once while it is looked for what covers rot.
const ENTRIES_AT_ONCE: u64 = 16 << 10;

/// Content that can't be had at some positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt {
    /// Which disk.
    pub disk: DiskIndex,
    /// Which bytes have rotted, wherever they stood.
    pub range: ByteRange,
    /// The first position that resolves to them …
    pub first: Lsn,
    /// … and the last; none: up to the newest.
    pub last: Option<Lsn>,
}

impl Replica {
    /// Which positions of the replica's log can't be shown whole, and where (trap T-20): exactly
    /// those that resolve to what is known to be rotten. A record that comes later and covers it
    /// makes the positions from there on good, and none before.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn corrupt(&self) -> Result<Vec<Corrupt>, StorageError> {
        let body = self.body()?;
        let mut all = Vec::new();
        for rot in known(&body) {
            let Some((first, disk, range)) = on_main(&body, rot) else { continue };
            let last = match self.left(rot, disk, range)?.is_empty() {
                true => self.covered_at(&body, rot)?.map(Lsn::prev),
                false => None,
            };
            all.push(Corrupt { disk, range, first, last });
        }
        Ok(all)
    }

    /// The ranges whose *newest* content has rotted, joined and in order: what the source has to
    /// send again, because no later record covers it. Empty while nothing is known to be rotten.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn rotten(&self) -> Result<Vec<(DiskIndex, ByteRange)>, StorageError> {
        let body = self.body()?;
        let mut all = Vec::new();
        for rot in known(&body) {
            let Some((_, disk, range)) = on_main(&body, rot) else { continue };
            all.extend(self.left(rot, disk, range)?.into_iter().map(|left| (disk, left)));
        }
        all.sort_unstable_by_key(|(disk, range)| (*disk, range.start));
        let mut joined: Vec<(DiskIndex, ByteRange)> = Vec::new();
        for (disk, range) in all {
            match joined.last_mut() {
                Some((same, last)) if *same == disk && range.start <= last.end => {
                    last.end = last.end.max(range.end);
                }
                _ => joined.push((disk, range)),
            }
        }
        Ok(joined)
    }

    /// Takes up what readers have met since, and forgets what is not rotten any more: blocks that
    /// were written anew, records that are not kept any more. Does nothing, and costs nothing,
    /// where nothing is known to be rotten.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn recheck_rot(&self) -> Result<(), StorageError> {
        // A fold may take hours, and looks again itself when it ends.
        match self.folding.try_lock() {
            Ok(_folding) => self.recheck_rot_folding(),
            Err(TryLockError::WouldBlock) => self.change_rot(|_| Ok(())),
            Err(TryLockError::Poisoned(_)) => Ok(()),
        }
    }

    /// As [`Replica::recheck_rot`]; the caller holds `folding`.
    pub(super) fn recheck_rot_folding(&self) -> Result<(), StorageError> {
        self.change_rot(|rot| {
            let mut still = Vec::new();
            for one in rot.drain(..) {
                match one {
                    Rot::Image { disk, range } => still.extend(self.rotten_blocks(disk, range)?),
                    Rot::Record { log, lsn, .. } if self.still_rotten(log, lsn)? => still.push(one),
                    Rot::Record { .. } => {}
                }
            }
            *rot = still;
            Ok(())
        })
    }

    /// Adds what readers have met, lets `change` look at all of it, and notes it durably where it
    /// is not what was known.
    fn change_rot(
        &self,
        change: impl FnOnce(&mut Vec<Rot>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let before = known(&self.body()?).collect::<Vec<_>>();
        let met = self.medium.take_met();
        if before.is_empty() && met.is_empty() {
            return Ok(());
        }
        let mut rot = with(before.clone(), met);
        change(&mut rot)?;
        if rot == before {
            return Ok(());
        }
        let mut core = lock(&self.core);
        let body = core.store.body()?.clone();
        // A scrub may have found more in between.
        let new = known(&body).filter(|one| !before.contains(one)).collect::<Vec<_>>();
        let mut scrub = body.scrub.clone().unwrap_or_default();
        scrub.rot = with(rot, new);
        core.store.write(Body { scrub: Some(scrub), ..body })
    }

    /// The blocks of a range that do not fit their checksums, joined.
    fn rotten_blocks(&self, disk: DiskIndex, range: ByteRange) -> Result<Vec<Rot>, StorageError> {
        let body = self.body()?;
        let whole = vec![Rot::Image { disk, range }];
        // In other hands, or a mix: nothing can be said of it now.
        if body.role == Role::Released || body.fold_through.is_some() || body.undo.is_some() {
            return Ok(whole);
        }
        let (devices, sums) = (self.medium.devices()?, self.medium.sums());
        let Some(device) = devices.get(&disk) else { return Ok(whole) };
        // A sealed image has none: reading a block says whether it is what was written.
        let sums = sums.get(&disk);
        let mut found: Vec<Rot> = Vec::new();
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            let start = block * BLOCK_BYTES;
            let length = device.size().saturating_sub(start).min(BLOCK_BYTES);
            let mut content = vec![0; usize::try_from(length).expect("at most a block")];
            let fits = match device.read_at(start, &mut content).map_err(StorageError::image(disk))
            {
                Err(StorageError::Rot { .. }) => false,
                Err(error) => return Err(error),
                Ok(()) => match sums {
                    Some(sums) => sums.get(block)?.fits(block, &content),
                    None => true,
                },
            };
            if fits {
                continue;
            }
            let end = start + length;
            match found.last_mut() {
                Some(Rot::Image { range, .. }) if range.end == start => range.end = end,
                _ => found.push(Rot::Image { disk, range: ByteRange { start, end } }),
            }
        }
        Ok(found)
    }

    /// The record is kept, and can't be read.
    fn still_rotten(&self, log: LogId, lsn: Lsn) -> Result<bool, StorageError> {
        let Ok((log, _)) = lock(&self.core).log(log).cloned() else { return Ok(false) };
        let read = log
            .entries(lsn.prev(), lsn)
            .and_then(|entries| entries.iter().try_for_each(|entry| log.read(entry).map(drop)));
        match read {
            Ok(()) | Err(JournalError::Trimmed { .. } | JournalError::Beyond { .. }) => Ok(false),
            Err(JournalError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The parts of a rotten range that the newest content is made of.
    fn left(
        &self,
        rot: Rot,
        disk: DiskIndex,
        range: ByteRange,
    ) -> Result<Vec<ByteRange>, StorageError> {
        let line = self.line();
        let _trims = read(&self.medium.trims);
        let pieces = line.scene.pieces(disk, range)?.into_iter();
        let mut left = Vec::new();
        for (piece, held) in pieces {
            let resolves = match (rot, held) {
                (Rot::Image { .. }, None) => true,
                (Rot::Record { log, lsn, .. }, Some(held)) if held.holder.lsn == lsn => {
                    self.medium.index(held.slot)?.log.id() == log
                }
                _ => false,
            };
            if resolves {
                left.push(piece);
            }
        }
        Ok(left)
    }

    /// The first position at which later records cover all of it. Read once: it stays what it is.
    fn covered_at(&self, body: &Body, rot: Rot) -> Result<Option<Lsn>, StorageError> {
        let known = {
            let mut covered = lock(&self.covered);
            // The same block can rot again, once the image holds what covered it.
            covered.retain(|(.., at)| *at > body.folded);
            covered.iter().find(|one| (one.0, one.1) == (body.log, rot)).map(|one| one.2)
        };
        if known.is_some() {
            return Ok(known);
        }
        let Some((first, disk, range)) = on_main(body, rot) else { return Ok(None) };
        let at = covered_at(&lock(&self.core), body, first, (disk, range))?;
        if let Some(at) = at {
            lock(&self.covered).push((body.log, rot, at));
        }
        Ok(at)
    }
}

/// What the superblock knows to be rotten.
fn known(body: &Body) -> impl Iterator<Item = Rot> {
    body.scrub.iter().flat_map(|scrub| scrub.rot.iter().copied()).collect::<Vec<_>>().into_iter()
}

/// The list with more, each once, up to its most.
pub(super) fn with(mut rot: Vec<Rot>, more: impl IntoIterator<Item = Rot>) -> Vec<Rot> {
    for one in more {
        if rot.len() < ROT_MAX && !rot.iter().any(|known| holds(*known, one)) {
            rot.push(one);
        }
    }
    rot
}

/// The one says all that the other says.
fn holds(known: Rot, one: Rot) -> bool {
    match (known, one) {
        (Rot::Image { disk, range }, Rot::Image { disk: same, range: inner }) => {
            disk == same && range.start <= inner.start && inner.end <= range.end
        }
        _ => known == one,
    }
}

/// The first position that resolves to it, and what it holds there. None: it stands on another
/// branch, or is in the image already and was overwritten with it.
fn on_main(body: &Body, rot: Rot) -> Option<(Lsn, DiskIndex, ByteRange)> {
    match rot {
        Rot::Image { disk, range } => Some((body.folded, disk, range)),
        Rot::Record { log, lsn, disk, range } => {
            let shared = tree::shared_through(&body.logs, body.log, log, lsn);
            (shared == lsn && lsn > body.folded).then_some((lsn, disk, range))
        }
    }
}

/// The first position behind `after` at which later records cover the whole range.
fn covered_at(
    core: &Core,
    body: &Body,
    after: Lsn,
    (disk, range): (DiskIndex, ByteRange),
) -> Result<Option<Lsn>, StorageError> {
    let mut left = vec![range];
    let end = core.log(body.log)?.0.tail().lsn;
    let levels = tree::levels(&body.logs, body.log, end, after).ok_or(StorageError::LogMissing)?;
    for level in levels {
        let log = &core.log(level.log)?.0;
        let mut at = level.after;
        while at < level.through {
            let to = level.through.min(at.plus(ENTRIES_AT_ONCE));
            for entry in log.entries(at, to)? {
                let over = entry.header.range().filter(|_| entry.header.disk == disk);
                let Some(over) = over else { continue };
                left = left.into_iter().flat_map(|range| without(range, over)).collect();
                if left.is_empty() {
                    return Ok(Some(entry.header.lsn));
                }
            }
            at = to;
        }
    }
    Ok(None)
}

/// What is left of a range.
fn without(range: ByteRange, over: ByteRange) -> impl Iterator<Item = ByteRange> {
    let before = ByteRange { start: range.start, end: range.end.min(over.start) };
    let behind = ByteRange { start: range.start.max(over.end), end: range.end };
    [before, behind].into_iter().filter(|piece| piece.start < piece.end)
}
