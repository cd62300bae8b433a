//! How long to wait before the next attempt. The random part comes from outside, so that a
//! simulation repeats.

use crate::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN};

/// Doubles from attempt to attempt up to a limit; half of each wait is random, so that a thousand
/// agents whose relay came back do not all knock at once (fault F4, reconnect storm).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait in milliseconds before the next attempt; `jitter` is any random number.
    pub(crate) fn next_ms(&mut self, jitter: u64) -> u64 {
        let whole = BACKOFF_MS_MIN.saturating_mul(1_u64.checked_shl(self.failures).unwrap_or(0));
        let whole = if whole == 0 { BACKOFF_MS_MAX } else { whole.min(BACKOFF_MS_MAX) };
        self.failures = (self.failures + 1).min(63);
        whole / 2 + jitter % (whole / 2 + 1)
    }

    /// Records got through: the next failure is a first one again.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_anew() {
        let mut backoff = Backoff::default();
        let shortest: Vec<u64> = (0..10).map(|_| backoff.next_ms(0)).collect();
        assert_eq!(shortest[..4], [50, 100, 200, 400]);
        assert_eq!(shortest[9], BACKOFF_MS_MAX / 2);
        for jitter in [0, 1, u64::MAX / 3, u64::MAX] {
            let wait = backoff.next_ms(jitter);
            assert!((BACKOFF_MS_MAX / 2..=BACKOFF_MS_MAX).contains(&wait), "{wait}");
        }
        (0..200).for_each(|_| assert!(backoff.next_ms(0) > 0));
        backoff.reset();
        assert_eq!(backoff.next_ms(0), BACKOFF_MS_MIN / 2);
    }
}
