//! What the agent may cost the machine: beyond a limit of the administrator's, bytes are captured
//! no longer, and only changed blocks are marked for a while.

use crate::settings::Limits;
use landfall_capture::LostReason;
use std::time::{Duration, Instant};

/// One look lasts so long at least: a burst that is shorter is what the ring is for.
const LOOK: Duration = Duration::from_secs(2);

/// What was used so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Used {
    /// Bytes captured.
    pub(super) bytes: u64,
    /// Time of processors that this process has taken, of all its threads.
    pub(super) cpu: Duration,
}

/// Compares what is used with the limits.
pub(super) struct Watch {
    limits: Limits,
    since: Instant,
    then: Used,
}

impl Watch {
    pub(super) const fn new(limits: Limits, now: Instant, used: Used) -> Self {
        Self { limits, since: now, then: used }
    }

    /// The limit that was passed since the last look, if one was.
    pub(super) fn look(&mut self, now: Instant, used: impl FnOnce() -> Used) -> Option<LostReason> {
        let passed = now.duration_since(self.since);
        if passed < LOOK {
            return None;
        }
        let used = used();
        let bytes = used.bytes.saturating_sub(self.then.bytes);
        let cpu = used.cpu.saturating_sub(self.then.cpu);
        (self.since, self.then) = (now, used);
        let over = |limit: f64, amount: f64| amount > limit * passed.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate, and no address")]
        let bytes_over = |limit: u64| over(limit as f64, bytes as f64);
        if self.limits.bytes_per_s.is_some_and(bytes_over) {
            return Some(LostReason::RateLimit);
        }
        let cpu_over = |percent: u32| over(f64::from(percent) / 100.0, cpu.as_secs_f64());
        self.limits.cpu_percent.is_some_and(cpu_over).then_some(LostReason::CpuLimit)
    }
}

/// The time of processors that this process has taken.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bytes_per_s: Option<u64>, cpu_percent: Option<u32>) -> Limits {
        Limits { bytes_per_s, cpu_percent }
    }

    fn used(bytes: u64, cpu_ms: u64) -> Used {
        Used { bytes, cpu: Duration::from_millis(cpu_ms) }
    }

    #[test]
    fn a_limit_is_passed_only_over_a_whole_look() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut watch = Watch::new(limits(Some(100), Some(50)), start, used(1000, 0));
        assert_eq!(watch.look(at(1), || used(5000, 900)), None, "a burst");
        assert_eq!(watch.look(at(4), || used(1400, 2000)), None, "exactly as much as is allowed");
        assert_eq!(watch.look(at(6), || used(1601, 2000)), Some(LostReason::RateLimit));
        assert_eq!(watch.look(at(8), || used(1601, 3001)), Some(LostReason::CpuLimit));
        assert_eq!(watch.look(at(10), || used(1601, 3001)), None, "it is over");
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        let start = Instant::now();
        let mut watch = Watch::new(limits(None, None), start, Used::default());
        let later = start + Duration::from_secs(10);
        assert_eq!(watch.look(later, || used(u64::MAX, u64::MAX / 2)), None);
    }
}
