//! Which blocks of a disk may differ from the target.
//!
//! The program sets *live* bits, of the current one of two generations. The loader moves them into
//! *pending* bits before a catch-up reads the blocks, and clears those when the target has them
//! durable. At no moment is a block that is not durable without a bit, or without a record that is
//! still in the ring: whoever comes after a dead agent finds all of it (trap T-3).
//!
//! In data mode the records carry the bytes away, so bits need not be moved: every few seconds the
//! program is told to use the other generation, and when the target has all records from before
//! that swap, the older generation is dropped.

use crate::adopt::{for_words, mark_pending, marked, ranges};
use crate::capture::Working;
use crate::layout::{control, number_of, reason_of, target};
use crate::maps::{Plane, membarrier};
use crate::{Capture, CaptureError, Dirty, LostReason, Mode};
use landfall_types::{ByteRange, DiskIndex};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Capture {
    /// True when the target holds all of this disk, but for what is dirty and for records that are
    /// not durable yet. Survives the agent with the pins.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn has_baseline(&self, disk: DiskIndex) -> bool {
        self.maps.target_get(self.slot(disk), target::BASELINE) != 0
    }

    /// A first copy or a comparison of the whole disk is durable at the target.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn set_baseline(&self, disk: DiskIndex) {
        self.maps.target_set(self.slot(disk), target::BASELINE, 1);
    }

    /// What the bits are relative to is not what the target has: they say nothing any more.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn forget_baseline(&self, disk: DiskIndex) {
        self.maps.target_set(self.slot(disk), target::BASELINE, 0);
    }

    /// True when the target lacks nothing of this disk but records of the ring that are not durable
    /// yet: it has a baseline, it is in data mode, and nothing waits to be collected or settled. An
    /// agent that has taken over a pinned capture asks this to know whether a catch-up was cut
    /// short.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn is_in_step(&self, disk: DiskIndex) -> bool {
        let slot = self.slot(disk);
        self.has_baseline(disk)
            && self.all_captured(slot)
            && self.maps.target_get(slot, target::ALL_DIRTY) == 0
            && self.pending(disk).is_clean()
    }

    /// The target has every record before this position of the ring: bits of writes before it are
    /// dropped, a generation at a time (trap T-3).
    pub fn durable(&self, position: u64) {
        let mut working = self.working();
        let maps = &self.maps;
        if position > maps.get(control::DURABLE) {
            maps.set(control::DURABLE, position);
        }
        let rotated = maps.get(control::ROTATED);
        if rotated == 0 {
            if working.rotated_at.elapsed() >= self.options.rotate_after {
                self.rotate(&mut working);
            }
        } else if position >= rotated {
            let older = Plane::Live(maps.get(control::GENERATION) ^ 1);
            for slot in 0..self.disks.len() {
                if self.all_captured(slot) {
                    for word in 0..maps.words(slot) {
                        let bits = maps.bits(older, slot, word);
                        if bits.load(Ordering::Relaxed) != 0 {
                            bits.store(0, Ordering::SeqCst);
                        }
                    }
                }
            }
            maps.set(control::ROTATED, 0);
            working.rotated_at = Instant::now();
        }
    }

    /// True when every live bit of the older generation stands for a record: nothing was lost since
    /// the live bits were last moved.
    fn all_captured(&self, slot: usize) -> bool {
        let get = |offset| self.maps.target_get(slot, offset);
        get(target::LOST) == 0 && get(target::UNCOLLECTED) == 0 && !self.is_broken()
    }

    /// From here on the program marks in the other generation, which is empty but for disks that
    /// have lost something, whose bits stay in both until they are collected.
    fn rotate(&self, working: &mut Working) {
        let maps = &self.maps;
        maps.set(control::GENERATION, maps.get(control::GENERATION) ^ 1);
        // Whoever still marks in the older one has its record by then, before this head.
        membarrier();
        maps.set(control::ROTATED, self.head().max(1));
        working.rotated_at = Instant::now();
    }

    /// Puts a disk back into data mode, and waits until the writes from before have ended. Its loss
    /// must have been taken ([`Capture::take_loss`]); [`Capture::collect`] comes next.
    ///
    /// # Errors
    /// [`CaptureError::Lost`] when this load can't capture bytes, or when data mode ended again;
    /// [`CaptureError::Barrier`] when a write has not ended within `max`: the disk is in bitmap
    /// mode again.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn return_to_data(&self, disk: DiskIndex, max: Duration) -> Result<(), CaptureError> {
        let slot = self.slot(disk);
        let maps = &self.maps;
        if let Some(reason) = self.no_return(slot) {
            return Err(CaptureError::Lost(reason));
        }
        if self.mode(disk) != Mode::Data {
            // Before the loss is forgotten: until the live bits are moved they stand for writes
            // that are in no record, and must not be dropped as durable.
            maps.target_set(slot, target::UNCOLLECTED, 1);
            maps.target_set(slot, target::TAKEN, 0);
            // The loss before the mode: the program sets it only while the mode is data.
            maps.target_set(slot, target::LOST, 0);
            maps.target_set(slot, target::MODE, crate::layout::MODE_DATA);
            self.working().returned += 1;
        }
        // Every program that saw the old mode has ended: what comes now is in the ring.
        membarrier();
        if let Err(error) = self.barrier(max) {
            if matches!(error, CaptureError::Barrier { .. }) {
                self.fall_back(disk, LostReason::LostCompletion);
            }
            return Err(error);
        }
        match self.mode(disk) {
            Mode::Data => Ok(()),
            Mode::Bitmap(reason) => Err(CaptureError::Lost(reason)),
        }
    }

    /// Why a disk can't go back into data mode with this load.
    fn no_return(&self, slot: usize) -> Option<LostReason> {
        if let Some(loss) = self.broken() {
            return Some(loss.reason);
        }
        let (reason, _) = self.loss_of(slot)?;
        let taken = self.maps.target_get(slot, target::TAKEN) != 0;
        (reason == LostReason::NoData || reason == LostReason::Grown || !taken).then_some(reason)
    }

    /// Moves the live dirty bits of a disk into its pending bits, waits until the writes that they
    /// stand for have ended, and gives all that is pending.
    ///
    /// # Errors
    /// [`CaptureError::Barrier`] when a write has not ended within `max`; what was moved stays
    /// pending.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn collect(&self, disk: DiskIndex, max: Duration) -> Result<Dirty, CaptureError> {
        let slot = self.slot(disk);
        let maps = &self.maps;
        let in_data = self.mode(disk) == Mode::Data;
        // What drain() adds from here on belongs to the next collect.
        self.working().late[slot].clear();
        for word in 0..maps.words(slot) {
            for live in [Plane::Live(0), Plane::Live(1)] {
                let bits = maps.bits(live, slot, word).load(Ordering::SeqCst);
                if bits != 0 {
                    // Pending first: killed in between, the next agent finds them in both.
                    maps.bits(Plane::Pending, slot, word).fetch_or(bits, Ordering::SeqCst);
                    maps.bits(live, slot, word).fetch_and(!bits, Ordering::SeqCst);
                }
            }
        }
        let all = maps.target_get(slot, target::ALL_DIRTY);
        if all != 0 {
            maps.target_set(slot, target::PENDING_ALL, all);
            let live = maps.target(slot, target::ALL_DIRTY);
            // Another reason that came meanwhile stays for the next time.
            let _changed = live.compare_exchange(all, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        // A write whose bit was moved may not have reached the disk yet: what is read before it
        // ends would be old, and its bit is gone when that is durable.
        self.barrier(max)?;
        if in_data && self.mode(disk) == Mode::Data {
            maps.target_set(slot, target::UNCOLLECTED, 0);
        }
        Ok(self.pending(disk))
    }

    /// All that is pending: what the newest [`Capture::collect`] gave and is not settled, and what
    /// came to it by failed and overlapping writes since.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn pending(&self, disk: DiskIndex) -> Dirty {
        let slot = self.slot(disk);
        match self.maps.target_get(slot, target::PENDING_ALL) {
            0 => Dirty::Ranges(ranges(&self.maps, slot, |word| {
                self.maps.bits(Plane::Pending, slot, word).load(Ordering::SeqCst)
            })),
            reason => Dirty::Everything(reason_of(reason)),
        }
    }

    /// Everything that has a bit, live or pending: what a next agent would have to catch up if this
    /// one died now and its records with it.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn marked(&self, disk: DiskIndex) -> Dirty {
        let slot = self.slot(disk);
        let get = |offset| self.maps.target_get(slot, offset);
        match (get(target::ALL_DIRTY), get(target::PENDING_ALL)) {
            (0, 0) => Dirty::Ranges(marked(&self.maps, slot)),
            (0, reason) | (reason, _) => Dirty::Everything(reason_of(reason)),
        }
    }

    /// These ranges are durable at the target as they were read after the *newest*
    /// [`Capture::collect`] of this disk: they are pending no more. Only blocks that lie in them as
    /// a whole.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn settled(&self, disk: DiskIndex, settled: &[ByteRange]) {
        let slot = self.slot(disk);
        let maps = &self.maps;
        let shift = maps.target_get(slot, target::BLOCK_SHIFT);
        let blocks = maps.target_get(slot, target::BLOCKS);
        let working = self.working();
        for range in settled {
            let first = range.start.div_ceil(1 << shift);
            let end = match range.end >= self.disks[slot].1.geometry.size_bytes {
                true => blocks,
                false => (range.end >> shift).min(blocks),
            };
            if first < end {
                for_words(first, end - 1, |word, mask| {
                    let keep = late_bits(&working.late[slot], shift, word);
                    maps.bits(Plane::Pending, slot, word)
                        .fetch_and(!(mask & !keep), Ordering::SeqCst);
                });
            }
        }
    }

    /// All of the disk is durable at the target as it was read or compared after the newest
    /// [`Capture::collect`]: nothing of that is pending any more, and the disk has a baseline.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn settled_all(&self, disk: DiskIndex) {
        let slot = self.slot(disk);
        self.settled(disk, &[ByteRange { start: 0, end: u64::MAX }]);
        self.maps.target_set(slot, target::PENDING_ALL, 0);
        self.set_baseline(disk);
    }

    /// A range whose content became unknown: it stays pending until it was collected and settled.
    pub(crate) fn make_pending(&self, working: &mut Working, slot: usize, range: ByteRange) {
        mark_pending(&self.maps, slot, range);
        working.late[slot].push(range);
    }

    /// Ends data mode: for a limit that the administrator has set, for instance. Nothing happens
    /// where it has ended already.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn fall_back(&self, disk: DiskIndex, reason: LostReason) {
        let slot = self.slot(disk);
        if self.mode(disk) != Mode::Data {
            return;
        }
        let lost = crate::layout::pack_lost(reason, self.head());
        let word = self.maps.target(slot, target::LOST);
        let _first = word.compare_exchange(0, lost, Ordering::SeqCst, Ordering::SeqCst);
        self.maps.target_set(slot, target::MODE, crate::layout::MODE_BITMAP);
    }

    /// Forgets what is known of a disk: all of it is dirty, for this reason.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn mark_all(&self, disk: DiskIndex, reason: LostReason) {
        self.maps.target_set(self.slot(disk), target::ALL_DIRTY, number_of(reason));
    }
}

/// Bits in `word` of the blocks that the ranges touch.
fn late_bits(late: &[ByteRange], shift: u64, word: u64) -> u64 {
    let mut bits = 0;
    for range in late.iter().filter(|range| !range.is_empty()) {
        let (first, last) = (range.start >> shift, (range.end - 1) >> shift);
        if last / 64 < word || first / 64 > word {
            continue;
        }
        let first = first.max(word * 64);
        for_words(first, last.min(word * 64 + 63), |_, mask| bits |= mask);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::late_bits;
    use landfall_types::ByteRange;

    #[test]
    fn blocks_that_became_unknown_late_are_kept() {
        let range = |start, end| ByteRange { start, end };
        assert_eq!(late_bits(&[], 12, 0), 0);
        assert_eq!(late_bits(&[range(4095, 4097)], 12, 0), 0b11);
        assert_eq!(late_bits(&[range(0, 1 << 30)], 12, 3), u64::MAX);
        assert_eq!(late_bits(&[range(64 * 4096, 65 * 4096)], 12, 0), 0);
        assert_eq!(late_bits(&[range(64 * 4096, 65 * 4096)], 12, 1), 1);
    }
}
