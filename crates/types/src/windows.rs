//! Which windows are open at a position of a log: pure counting, no storage (traps T-4 and T-5).

use crate::{Control, WindowClose, WindowId, WindowOpen};
use std::collections::BTreeMap;

/// Most windows that a log may have open at once; far more than the disks of any machine.
pub const WINDOWS_OPEN_MAX: usize = 4096;

/// The windows that are open at one position of a log, and the disks whose last catch-up was not
/// exact.
///
/// A position is a recovery point only where [`Windows::legal`] holds. Windows are *counted*: a
/// catch-up that closes inside another one does not make the interior legal (trap T-4). A window
/// that closes inexactly leaves its disks without a legal point until an exact one, opened
/// afterwards, covers them (trap T-5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Windows {
    open: Vec<OpenWindow>,
    /// Per disk: how many windows had been opened when its last inexact one closed.
    inexact: BTreeMap<u16, u64>,
    opened: u64,
}

/// One open window.
#[derive(Clone, PartialEq, Eq, Debug)]
struct OpenWindow {
    id: WindowId,
    disks: Vec<u16>,
    /// How many windows had been opened before it.
    serial: u64,
}

/// Why a control record does not fit what is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WindowsError {
    /// Closes what is not open: the log is not one that we wrote.
    #[error("window {} closes but is not open", .0.0)]
    NotOpen(WindowId),
    /// More than [`WINDOWS_OPEN_MAX`].
    #[error("more than {WINDOWS_OPEN_MAX} windows are open")]
    TooMany,
}

impl Windows {
    /// Nothing open, nothing inexact: the state before the first record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing but these windows open: what a receiver says of its position. The disks that they
    /// cover are not known, so closing one of them clears no inexact disk.
    #[must_use]
    pub fn from_open(ids: &[WindowId]) -> Self {
        let open = |(id, serial): (&WindowId, u64)| OpenWindow { id: *id, disks: vec![], serial };
        let open = ids.iter().zip(0..).map(open).collect::<Vec<_>>();
        Self { opened: open.len() as u64, open, inexact: BTreeMap::new() }
    }

    /// Follows a control record of the log; markers and geometry change nothing.
    ///
    /// # Errors
    /// [`WindowsError`]; nothing is changed then.
    pub fn apply(&mut self, control: &Control) -> Result<(), WindowsError> {
        match control {
            Control::WindowOpen(window) => self.open(window),
            Control::WindowClose(window) => self.close(*window),
            Control::Marker(_) | Control::Geometry(_) => Ok(()),
        }
    }

    fn open(&mut self, window: &WindowOpen) -> Result<(), WindowsError> {
        if self.open.len() >= WINDOWS_OPEN_MAX {
            return Err(WindowsError::TooMany);
        }
        let serial = self.opened;
        self.opened += 1;
        self.open.push(OpenWindow { id: window.window, disks: window.disks.clone(), serial });
        Ok(())
    }

    fn close(&mut self, close: WindowClose) -> Result<(), WindowsError> {
        // The same ID can be open twice when two runs of a producer chose it: each closing ends one
        // opening, the later first, so that the count stays right.
        let at = self.open.iter().rposition(|window| window.id == close.window);
        let window = self.open.remove(at.ok_or(WindowsError::NotOpen(close.window))?);
        for disk in window.disks {
            if close.exact {
                // Only what had become inexact before this window opened: a window that ran beside
                // it may have put a torn block behind the exact one.
                if self.inexact.get(&disk).is_some_and(|serial| *serial <= window.serial) {
                    self.inexact.remove(&disk);
                }
            } else {
                self.inexact.insert(disk, self.opened);
            }
        }
        Ok(())
    }

    /// True where the position is a recovery point: no window is open and no disk's content is
    /// inexact.
    #[must_use]
    pub fn legal(&self) -> bool {
        self.open.is_empty() && self.inexact.is_empty()
    }

    /// The open windows in the order of their opening; an ID stands as often as it is open.
    #[must_use]
    pub fn open_ids(&self) -> Vec<WindowId> {
        self.open.iter().map(|window| window.id).collect()
    }

    /// True when at least one window is open.
    #[must_use]
    pub fn any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The disks (raw [`crate::DiskIndex`] values) that hold data without a legal point (trap T-5).
    pub fn inexact_disks(&self) -> impl Iterator<Item = u16> {
        self.inexact.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{WindowMode, WindowReason};

    fn open(id: u64, disks: &[u16]) -> Control {
        Control::WindowOpen(WindowOpen {
            window: WindowId(id),
            reason: WindowReason::Requested,
            mode: WindowMode::Copy,
            disks: disks.to_vec(),
            into_image: false,
        })
    }
    fn close(id: u64, exact: bool) -> Control {
        Control::WindowClose(WindowClose { window: WindowId(id), exact })
    }
    fn after(controls: &[Control]) -> Windows {
        let mut windows = Windows::new();
        for control in controls {
            windows.apply(control).expect("fits");
        }
        windows
    }

    /// Guards P3. T-4: a second catch-up closes inside the first; the interior must not become
    /// legal.
    #[test]
    fn t4_a_window_in_a_window_leaves_the_interior_illegal() {
        assert!(Windows::new().legal());
        assert!(!after(&[open(1, &[0])]).legal());
        assert!(!after(&[open(1, &[0]), open(2, &[0])]).legal());
        let inner_closed = after(&[open(1, &[0]), open(2, &[0]), close(2, true)]);
        assert!(!inner_closed.legal());
        assert_eq!(inner_closed.open_ids(), [WindowId(1)]);
        // Overlapping instead of nested: the same.
        assert!(!after(&[open(1, &[0]), open(2, &[0]), close(1, true)]).legal());
        assert!(after(&[open(1, &[0]), open(2, &[0]), close(1, true), close(2, true)]).legal());
    }

    /// Guards P3. T-4 when two runs of an agent chose one ID: both openings must be closed.
    #[test]
    fn t4_the_same_id_twice_counts_twice() {
        let once = after(&[open(1, &[0]), open(1, &[0]), close(1, true)]);
        assert!(!once.legal());
        assert_eq!(once.open_ids(), [WindowId(1)]);
        assert!(after(&[open(1, &[0]), open(1, &[0]), close(1, true), close(1, true)]).legal());
    }

    /// Guards P3. T-5: a fuzzy copy is no point, until an exact window that opened later covers its
    /// disks.
    #[test]
    fn t5_an_inexact_close_is_repaired_only_by_a_later_exact_window() {
        let fuzzy = after(&[open(1, &[0, 1]), close(1, false)]);
        assert!(!fuzzy.legal() && !fuzzy.any_open());
        assert_eq!(fuzzy.inexact_disks().collect::<Vec<_>>(), [0, 1]);
        let half = after(&[open(1, &[0, 1]), close(1, false), open(2, &[0]), close(2, true)]);
        assert!(!half.legal());
        let whole = after(&[open(1, &[0, 1]), close(1, false), open(2, &[0, 1]), close(2, true)]);
        assert!(whole.legal());
        // The exact window was open already when the inexact one closed: it repairs nothing.
        let beside = after(&[open(1, &[0]), open(2, &[0]), close(1, false), close(2, true)]);
        assert!(!beside.legal() && !beside.any_open());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut windows = after(&[open(1, &[0])]);
        let before = windows.clone();
        assert_eq!(windows.apply(&close(2, true)), Err(WindowsError::NotOpen(WindowId(2))));
        assert_eq!(windows, before);
        let mut full = Windows::new();
        for id in 0..WINDOWS_OPEN_MAX as u64 {
            full.apply(&open(id, &[])).expect("within the limit");
        }
        assert_eq!(full.apply(&open(0, &[])), Err(WindowsError::TooMany));
        assert_eq!(full.open_ids().len(), WINDOWS_OPEN_MAX);
    }

    #[test]
    fn a_position_from_a_receiver_needs_each_of_its_windows_closed() {
        let mut windows = Windows::from_open(&[WindowId(7), WindowId(9)]);
        assert_eq!(windows.open_ids(), [WindowId(7), WindowId(9)]);
        windows.apply(&close(9, true)).expect("open");
        assert!(!windows.legal());
        windows.apply(&close(7, true)).expect("open");
        assert!(windows.legal());
    }

    /// Against the definition, counted anew at every step: legal only where every opening has its
    /// closing.
    #[test]
    fn random_sequences_agree_with_counting() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        let mut windows = Windows::new();
        let mut counts = [0_u32; 4];
        for _ in 0..10_000 {
            let id = next(4);
            let (control, fits) = if next(2) == 0 && counts[id as usize] < 100 {
                counts[id as usize] += 1;
                (open(id, &[0]), true)
            } else {
                let fits = counts[id as usize] > 0;
                counts[id as usize] = counts[id as usize].saturating_sub(1);
                (close(id, true), fits)
            };
            assert_eq!(windows.apply(&control).is_ok(), fits);
            assert_eq!(windows.legal(), counts.iter().all(|count| *count == 0));
        }
    }
}
