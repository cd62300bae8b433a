//! Bytes per second, as a person wants to see them.

use std::time::Duration;
use tokio::time::Instant;

/// How long an average looks back.
const SPAN: Duration = Duration::from_secs(2);

/// Average over the last two to four seconds.
#[derive(Debug)]
pub(crate) struct Rate {
    before: (Instant, u64),
    start: (Instant, u64),
    total: u64,
}

impl Rate {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { before: (now, 0), start: (now, 0), total: 0 }
    }

    pub(crate) fn add(&mut self, now: Instant, bytes: u64) {
        self.turn(now);
        self.total += bytes;
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn per_second(&mut self, now: Instant) -> f64 {
        self.turn(now);
        let seconds = now.duration_since(self.before.0).as_secs_f64();
        let bytes = u32::try_from((self.total - self.before.1).min(u64::from(u32::MAX)));
        if seconds > 0.0 { f64::from(bytes.unwrap_or(u32::MAX)) / seconds } else { 0.0 }
    }

    fn turn(&mut self, now: Instant) {
        if now.duration_since(self.start.0) >= SPAN {
            self.before = self.start;
            self.start = (now, self.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_forgets() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for second in 1..=10 {
            rate.add(start + Duration::from_secs(second), 1000);
        }
        let now = start + Duration::from_secs(10);
        assert!((700.0..=1600.0).contains(&rate.per_second(now)), "{}", rate.per_second(now));
        rate.per_second(now + Duration::from_secs(5));
        assert!(rate.per_second(now + Duration::from_secs(10)) < 1.0);
        assert_eq!(rate.total(), 10_000);
    }
}
