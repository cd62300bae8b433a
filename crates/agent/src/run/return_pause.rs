//! How long bitmap mode is kept before data mode is tried again.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A loss after so long is a new one, not the old cause again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Grows with losses that follow on each other: each return reads what is dirty, and a machine that
/// writes more than its ring and its link can take is served better by fewer of them.
#[derive(Default)]
pub(super) struct ReturnPause {
    last: Option<Instant>,
    pause: Duration,
}

impl ReturnPause {
    /// Data mode ended.
    pub(super) fn lost(&mut self, now: Instant) {
        let again = self.last.is_some_and(|last| now.duration_since(last) < FORGOTTEN_AFTER);
        self.pause = match again {
            true => (self.pause * 2).clamp(FIRST, LONGEST),
            false => Duration::ZERO,
        };
        self.last = Some(now);
    }

    /// Before the next return.
    pub(super) const fn get(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_losses_in_a_row_and_is_forgotten() {
        let mut pause = ReturnPause::default();
        let mut now = Instant::now();
        let pauses = [0, 1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs);
        for expected in pauses {
            now += Duration::from_secs(100);
            pause.lost(now);
            assert_eq!(pause.get(), expected);
        }
        pause.lost(now + FORGOTTEN_AFTER);
        assert_eq!(pause.get(), Duration::ZERO);
    }
}
