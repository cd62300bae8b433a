//! When records have grown old enough to be folded. Pure: the caller brings the clock.

use landfall_types::Lsn;
use std::collections::VecDeque;

/// Positions with the monotonic time at which they were first seen durable. Starts empty at every
/// start of the process, so that records count as new again: kept longer, never shorter (trap T-6:
/// no wall clock).
#[derive(Debug, Default)]
pub struct Retention {
    /// Milliseconds of a monotonic clock, and what was durable then; both rise.
    seen: VecDeque<(u64, Lsn)>,
}

/// Distance between two samples in milliseconds: finer says nothing, retention is counted in
/// seconds or more.
const SAMPLE_MS: u64 = 1_000;

impl Retention {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what is durable now.
    pub fn sample(&mut self, now_ms: u64, durable: Lsn) {
        // Another log, which forked earlier: its positions are younger than those that had the same
        // numbers.
        while self.seen.back().is_some_and(|(_, lsn)| *lsn > durable) {
            self.seen.pop_back();
        }
        let due =
            self.seen.back().is_none_or(|(at, lsn)| now_ms >= at + SAMPLE_MS && durable > *lsn);
        if due {
            self.seen.push_back((now_ms, durable));
        }
    }

    /// The newest position that was durable `retention_ms` ago; what lies up to there may be
    /// folded. Older samples are forgotten.
    pub fn expired(&mut self, now_ms: u64, retention_ms: u64) -> Option<Lsn> {
        let old = |at: u64| at.saturating_add(retention_ms) <= now_ms;
        while self.seen.get(1).is_some_and(|(at, _)| old(*at)) {
            self.seen.pop_front();
        }
        self.seen.front().filter(|(at, _)| old(*at)).map(|(_, lsn)| *lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-6: age is counted by the monotonic time that the caller brings, from when it was seen.
    #[test]
    fn t6_only_what_was_seen_long_enough_ago_expires() {
        let mut retention = Retention::new();
        for second in 0..10 {
            retention.sample(second * 1_000, Lsn::new(second * 10));
        }
        assert_eq!(retention.expired(9_000, 60_000), None);
        assert_eq!(retention.expired(9_000, 5_000), Some(Lsn::new(40)));
        assert_eq!(retention.expired(9_000, 5_000), Some(Lsn::new(40)));
        assert_eq!(retention.expired(100_000, 5_000), Some(Lsn::new(90)));
    }
}
