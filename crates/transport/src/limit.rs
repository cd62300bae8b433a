//! A limit in bytes per second that several sessions share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a session may write at once: small enough that sessions take turns, large enough to be
/// worth a call.
const TURN_BYTES: u64 = 64 * 1024;
/// Longest wait for one turn: a slower link gets smaller turns, so that pings and acknowledgments
/// are not silent for long.
const TURN_TIME_MAX: Duration = Duration::from_millis(200);
/// What was not used may be made up for, for so long.
const BURST: Duration = Duration::from_millis(100);

/// Hands out turns on a link. Cheap to ask; all methods may be called from any thread.
#[derive(Debug)]
pub struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes per second; none: no limit.
    limit: Option<u64>,
    /// When the link is free again after all turns that were handed out.
    free: Instant,
}

/// A session's next write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    /// Not before.
    pub(crate) due: Instant,
    /// Bytes.
    pub(crate) bytes: u64,
}

impl Limiter {
    /// `limit`: bytes per second, at least 1; none: no limit.
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        Self { state: Mutex::new(State { limit, free: Instant::now() }) }
    }

    /// Takes effect with the next turn that is asked for.
    pub fn set(&self, limit: Option<u64>) {
        self.state().limit = limit.map(|limit| limit.max(1));
    }

    /// Bytes per second; none: no limit.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.state().limit
    }

    /// The next turn; none where there is no limit. What a turn allows is spent with this call,
    /// whether it is used or not: ask only when there is something to write.
    pub(crate) fn turn(&self, now: Instant) -> Option<Turn> {
        let mut state = self.state();
        let limit = state.limit?.max(1);
        let longest = u64::try_from(u128::from(limit) * TURN_TIME_MAX.as_millis() / 1000);
        let bytes = TURN_BYTES.min(longest.unwrap_or(u64::MAX)).max(1);
        let due = state.free.max(now.checked_sub(BURST).unwrap_or(now));
        let takes = u128::from(bytes) * 1_000_000_000 / u128::from(limit);
        state.free = due + Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        Some(Turn { due, bytes })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_add_up_to_the_limit_whoever_takes_them() {
        let start = Instant::now();
        let limiter = Limiter::new(Some(1_000_000));
        let (mut now, mut bytes) = (start, 0);
        while now < start + Duration::from_secs(10) {
            let turn = limiter.turn(now).expect("limited");
            assert!(turn.bytes <= TURN_BYTES);
            now = now.max(turn.due);
            bytes += turn.bytes;
        }
        assert!((10_000_000..10_300_000).contains(&bytes), "{bytes} bytes in 10 s");
    }

    #[test]
    fn a_slow_link_gets_small_turns() {
        let turn = Limiter::new(Some(10_000)).turn(Instant::now()).expect("limited");
        assert_eq!(turn.bytes, 2_000);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let start = Instant::now();
        let limiter = Limiter::new(Some(1_000_000));
        limiter.turn(start);
        let later = start + Duration::from_secs(60);
        let mut at_once = 0;
        while let Some(turn) = limiter.turn(later).filter(|turn| turn.due <= later) {
            at_once += turn.bytes;
        }
        assert!(at_once <= 100_000 + 2 * TURN_BYTES, "{at_once} bytes at once after a minute");
    }

    #[test]
    fn a_new_limit_holds_from_the_next_turn() {
        let limiter = Limiter::new(None);
        let now = Instant::now();
        assert_eq!(limiter.turn(now), None);
        limiter.set(Some(50_000));
        assert_eq!(limiter.turn(now).map(|turn| turn.bytes), Some(10_000));
        limiter.set(None);
        assert_eq!(limiter.turn(now), None);
    }
}
