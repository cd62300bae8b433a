//! What is counted of each disk.

use crate::Capture;
use crate::layout::counters;
use landfall_types::DiskIndex;

/// Counts of one disk since the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Writes that the hook saw.
    pub submitted: u64,
    /// Of those, the ones that have ended.
    pub completed: u64,
    /// Of those, the ones that ended with an error.
    pub failed: u64,
    /// Of those, the ones that were only marked, because the disk was in bitmap mode.
    pub marked: u64,
    /// Of those, the ones that began while another write of the same blocks was in flight (trap
    /// T-22).
    pub overlaps: u64,
    /// Of those, the ones whose end was not seen.
    pub unended: u64,
    /// Writes that ended without having been seen: those in flight when capture began, or trap T-7.
    pub beside: u64,
    /// The same, noticed when they went to the driver.
    pub issued_beside: u64,
    /// Writes for which the kernel skipped the hook.
    pub missed: u64,
    /// Bytes of data captured.
    pub bytes: u64,
    /// Writes to excluded ranges.
    pub excluded: u64,
    /// Commands sent past the block layer.
    pub pass_through: u64,
}

impl Capture {
    /// Counts of one disk.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn counters(&self, disk: DiskIndex) -> Counters {
        let slot = self.slot(disk);
        let count = |offset| self.maps.count(slot, offset);
        Counters {
            submitted: count(counters::SUBMITTED),
            completed: count(counters::COMPLETED),
            failed: count(counters::FAILED),
            marked: count(counters::MARKED),
            overlaps: count(counters::OVERLAPS),
            unended: count(counters::UNENDED),
            beside: count(counters::BESIDE),
            issued_beside: count(counters::ISSUED_BESIDE),
            missed: count(counters::MISSED),
            bytes: count(counters::BYTES),
            excluded: count(counters::EXCLUDED),
            pass_through: count(counters::PASS_THROUGH),
        }
    }
}
