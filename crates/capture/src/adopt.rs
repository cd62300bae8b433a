//! Taking over what an earlier process left pinned.

use crate::disk::Disk;
use crate::layout::{self, control, target};
use crate::maps::{Maps, Plane};
use crate::program::{excluded, object_hash, size_and_index};
use crate::{CaptureError, Options};
use landfall_types::{ByteRange, DiskIndex};
use std::fs;
use std::sync::atomic::Ordering;

/// The running kernel's boot, so that nothing of an earlier one is ever taken for ours.
pub(crate) fn boot_id() -> Result<[u64; 2], CaptureError> {
    let path = std::path::Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path)
        .map_err(|source| CaptureError::Inspect { path: path.to_owned(), source })?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).unwrap_or_default();
    Ok(halves(number))
}

/// Low and high half.
pub(crate) fn halves(number: u128) -> [u64; 2] {
    let low = u64::try_from(number & u128::from(u64::MAX)).expect("64 bits");
    let high = u64::try_from(number >> 64).expect("64 bits");
    [low, high]
}

/// True when the bitmaps of a pinned load mean what ours would: same replica, same boot.
pub(crate) fn is_ours(maps: &Maps, boot: [u64; 2], options: &Options) -> bool {
    let pair = |offset| [maps.get(offset), maps.get(offset + 8)];
    pair(control::BOOT) == boot && pair(control::OWNER) == halves(options.owner)
}

/// True when a pinned load is just what we would load: then it goes on as it is.
pub(crate) fn is_current(maps: &Maps, disks: &[(DiskIndex, Disk)], options: &Options) -> bool {
    let segments = options.ring_bytes.div_ceil(layout::SEGMENT_BYTES).max(1);
    maps.get(control::OBJECT) == object_hash()
        && maps.get(control::KEY) != 0
        && maps.get(control::SEGMENTS) == segments
        && maps.get(control::TAIL) <= maps.get(control::HEAD)
        && maps.get(control::TARGETS_COUNT) == disks.len() as u64
        && disks.iter().enumerate().all(|(slot, (index, disk))| {
            maps.target_get(slot, target::SIZE_AND_INDEX) == size_and_index(*index, disk)
                && is_disk(maps, slot, disk)
                && has_exclusions(maps, slot, &excluded(options, *index).collect::<Vec<_>>())
        })
}

/// Trap T-8: number *and* sequence.
pub(crate) fn is_disk(maps: &Maps, slot: usize, disk: &Disk) -> bool {
    let number = u64::from(disk.major) | u64::from(disk.minor) << 32;
    maps.target_get(slot, target::MAJOR) == number
        && maps.target_get(slot, target::DISKSEQ) == disk.diskseq
}

fn has_exclusions(maps: &Maps, slot: usize, ranges: &[ByteRange]) -> bool {
    let first = maps.target_get(slot, target::EXCLUDED_FIRST);
    let count = maps.target_get(slot, target::EXCLUDED_COUNT);
    count == ranges.len() as u64
        && ranges.iter().zip(first..).all(|(range, at)| {
            let at = usize::try_from(at).unwrap_or(layout::EXCLUSIONS_MAX - 1);
            let at =
                control::EXCLUSIONS + at.min(layout::EXCLUSIONS_MAX - 1) * layout::EXCLUSION_BYTES;
            maps.get(at) == range.start.div_ceil(512) && maps.get(at + 8) == range.end / 512
        })
}

/// Takes over what an older load knows of each disk: all its bits become pending in the new one.
/// The new one is active already, so between the two nothing is missed; what both have marked is
/// merged by OR.
pub(crate) fn merge(old: &Maps, new: &Maps, disks: &[(DiskIndex, Disk)]) {
    let old_slots = usize::try_from(old.get(control::TARGETS_COUNT)).unwrap_or(0);
    for (slot, (wanted, disk)) in disks.iter().enumerate() {
        let found = (0..old_slots.min(layout::TARGETS_MAX)).find(|at| is_disk(old, *at, disk));
        let Some(old_slot) = found else { continue };
        let index = old.target_get(old_slot, target::SIZE_AND_INDEX) >> 48;
        if index != u64::from(wanted.0) {
            // The replica's baseline of another disk.
            continue;
        }
        let all = match old.target_get(old_slot, target::ALL_DIRTY) {
            0 => old.target_get(old_slot, target::PENDING_ALL),
            reason => reason,
        };
        new.target_set(slot, target::PENDING_ALL, all);
        // What lies behind the older one's end has no bit there, and was not in the replica.
        for range in marked(old, old_slot) {
            mark_pending(new, slot, range);
        }
        let baseline = old.target_get(old_slot, target::BASELINE);
        new.target_set(slot, target::BASELINE, baseline);
    }
}

/// Ranges in which any plane of a target has bits.
pub(crate) fn marked(maps: &Maps, slot: usize) -> Vec<ByteRange> {
    let planes = [Plane::Live(0), Plane::Live(1), Plane::Pending];
    ranges(maps, slot, |word| {
        planes
            .iter()
            .fold(0, |bits, plane| bits | maps.bits(*plane, slot, word).load(Ordering::SeqCst))
    })
}

/// Runs of set bits as ranges of bytes, within the disk.
pub(crate) fn ranges(maps: &Maps, slot: usize, word_of: impl Fn(u64) -> u64) -> Vec<ByteRange> {
    let shift = maps.target_get(slot, target::BLOCK_SHIFT);
    let sectors = maps.target_get(slot, target::SIZE_AND_INDEX) & ((1 << 48) - 1);
    let size = sectors * 512;
    let mut found: Vec<ByteRange> = Vec::new();
    for word in 0..maps.words(slot) {
        let mut bits = word_of(word);
        while bits != 0 {
            let first = u64::from(bits.trailing_zeros());
            let run = u64::from((!(bits >> first)).trailing_zeros()).min(64 - first);
            let start = (word * 64 + first) << shift;
            let end = (start + (run << shift)).min(size);
            match found.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => found.push(ByteRange { start, end }),
            }
            bits &= if first + run == 64 { 0 } else { u64::MAX << (first + run) };
        }
    }
    found.retain(|range| !range.is_empty());
    found
}

/// Sets the pending bits of all blocks that a range touches.
pub(crate) fn mark_pending(maps: &Maps, slot: usize, range: ByteRange) {
    let shift = maps.target_get(slot, target::BLOCK_SHIFT);
    let blocks = maps.target_get(slot, target::BLOCKS);
    if range.is_empty() || blocks == 0 {
        return;
    }
    let last = (range.end - 1) >> shift;
    for_words(range.start >> shift, last.min(blocks - 1), |word, mask| {
        maps.bits(Plane::Pending, slot, word).fetch_or(mask, Ordering::SeqCst);
    });
}

/// Calls `f` with each word and the mask of the blocks from `first` to `last` in it.
pub(crate) fn for_words(first: u64, last: u64, mut f: impl FnMut(u64, u64)) {
    for word in first / 64..=last / 64 {
        let low = if word == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
        let high = if word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
        if first <= last {
            f(word, low & high);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_masks_of_a_run_of_blocks() {
        let masks = |first, last| {
            let mut found = Vec::new();
            for_words(first, last, |word, mask| found.push((word, mask)));
            found
        };
        assert_eq!(masks(0, 0), [(0, 1)]);
        assert_eq!(masks(63, 64), [(0, 1 << 63), (1, 1)]);
        assert_eq!(masks(64, 191), [(1, u64::MAX), (2, u64::MAX)]);
        assert_eq!(masks(5, 4), []);
    }
}
