//! How fast images are folded: never faster than the administrator allows, and slowly while frames
//! or a machine's own writes come in.

use crate::hosted::lock;
use landfall_volume::FoldPace;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Bytes a second while others write: a fraction of what any disk can, so that their flushes find
/// it free.
const BUSY_BYTES_PER_S: u64 = 32 << 20;
/// Others count as writing for so long after a write of theirs was seen.
const BUSY_FOR: Duration = Duration::from_millis(500);

/// The pace of one replica's folds.
pub(crate) struct Pace<A> {
    limit: Option<u64>,
    /// Rises with every write of others.
    activity: A,
    shutdown: CancellationToken,
    began: Instant,
    turns: Mutex<Turns>,
}

impl<A: Fn() -> u64 + Sync> Pace<A> {
    /// `limit` in bytes a second; none: what the disks give while nobody else writes.
    pub(crate) fn new(limit: Option<u64>, activity: A, shutdown: CancellationToken) -> Self {
        let turns = Turns { seen: activity(), ..Turns::default() };
        Self { limit, activity, shutdown, began: Instant::now(), turns: Mutex::new(turns) }
    }
}

impl<A: Fn() -> u64 + Sync> FoldPace for Pace<A> {
    fn before(&self, bytes: u64) -> bool {
        let now = self.began.elapsed();
        let pause = lock(&self.turns).pause(now, bytes, self.limit, (self.activity)());
        std::thread::sleep(pause);
        !self.shutdown.is_cancelled()
    }
}

/// The arithmetic of it, without a clock.
#[derive(Debug, Default)]
struct Turns {
    /// When the next piece may begin.
    next: Duration,
    /// The activity that was seen last, and until when it counts.
    seen: u64,
    busy_until: Duration,
}

impl Turns {
    /// How long a piece of `bytes` has to wait.
    fn pause(&mut self, now: Duration, bytes: u64, limit: Option<u64>, activity: u64) -> Duration {
        if activity != self.seen {
            self.seen = activity;
            self.busy_until = now + BUSY_FOR;
        }
        let busy = (now < self.busy_until).then_some(BUSY_BYTES_PER_S);
        let rate = [limit, busy].into_iter().flatten().min();
        let pause = self.next.saturating_sub(now);
        let cost = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1))
        });
        // Time that was not used is not saved up: a burst would hit whoever comes just then.
        self.next = self.next.max(now) + cost;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn without_limit_and_alone_nothing_waits() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            assert_eq!(turns.pause(at(0), MIB, None, 0), Duration::ZERO);
        }
    }

    #[test]
    fn a_limit_holds_and_idle_time_is_not_saved_up() {
        let mut turns = Turns::default();
        let limit = Some(10 * MIB);
        assert_eq!(turns.pause(at(0), MIB, limit, 0), Duration::ZERO);
        assert_eq!(turns.pause(at(0), MIB, limit, 0), at(100));
        assert_eq!(turns.pause(at(250), MIB, limit, 0), Duration::ZERO, "its turn has come");
        assert_eq!(turns.pause(at(60_000), MIB, limit, 0), Duration::ZERO);
        assert_eq!(turns.pause(at(60_000), MIB, limit, 0), at(100), "no burst after a minute");
    }

    #[test]
    fn others_that_write_slow_it_down_and_it_recovers() {
        let mut turns = Turns::default();
        turns.pause(at(0), 32 * MIB, None, 1);
        assert_eq!(turns.pause(at(0), MIB, None, 1), at(1000), "32 MiB took a second's worth");
        assert_eq!(turns.pause(at(2000), 32 * MIB, None, 1), Duration::ZERO);
        assert_eq!(turns.pause(at(2000), MIB, None, 1), Duration::ZERO, "nobody wrote since");
    }
}
