//! How fast a replica's journal grows, over several horizons. Pure.

use serde::{Deserialize, Serialize};

/// Time constants in milliseconds: 5 minutes, an hour, a day. A burst shows in the first, the
/// day's rhythm is evened out in the last.
const HORIZONS_MS: [f64; 3] = [300_000.0, 3_600_000.0, 86_400_000.0];

/// Bytes per second over each horizon; exponentially weighted means.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Over about 5 minutes.
    pub minutes: f64,
    /// Over about an hour.
    pub hour: f64,
    /// Over about a day.
    pub day: f64,
}

/// Follows a counter of bytes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Meter {
    /// Milliseconds that were followed so far: young means are corrected for what they have not
    /// seen.
    followed_ms: f64,
    means: [f64; 3],
    /// Clock and counter at the last look of this process.
    #[serde(skip)]
    last: Option<(u64, u64)>,
}

impl Meter {
    /// Takes in a monotonic clock in milliseconds, and a counter that only rises while the process
    /// runs.
    pub fn look(&mut self, now_ms: u64, total_bytes: u64) {
        let Some((then_ms, then_bytes)) = self.last.replace((now_ms, total_bytes)) else { return };
        let passed_ms = now_ms.saturating_sub(then_ms) as f64;
        if passed_ms <= 0.0 {
            // Counted with the next look.
            self.last = Some((then_ms, then_bytes));
            return;
        }
        let rate = total_bytes.saturating_sub(then_bytes) as f64 * 1_000.0 / passed_ms;
        for (mean, horizon) in self.means.iter_mut().zip(HORIZONS_MS) {
            let old = (-passed_ms / horizon).exp();
            *mean = *mean * old + rate * (1.0 - old);
        }
        self.followed_ms += passed_ms;
    }

    /// The rates; none before anything was followed.
    #[must_use]
    pub fn rates(&self) -> Option<Rates> {
        if self.followed_ms <= 0.0 {
            return None;
        }
        // A mean that began at 0 has this share of what it will have.
        let seen = |horizon: f64| 1.0 - (-self.followed_ms / horizon).exp();
        let rate = |at: usize| self.means[at] / seen(HORIZONS_MS[at]);
        Some(Rates { minutes: rate(0), hour: rate(1), day: rate(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() <= wanted.abs() * 0.01 + 1.0
    }

    #[test]
    fn an_even_flow_has_its_rate_from_the_start_and_over_every_horizon() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(), None);
        for second in 0..100 {
            meter.look(second * 1_000, second * 5_000);
        }
        let rates = meter.rates().expect("followed");
        assert!([rates.minutes, rates.hour, rates.day].into_iter().all(|r| near(r, 5_000.0)));
    }

    #[test]
    fn a_burst_shows_in_the_short_horizon_first() {
        let mut meter = Meter::default();
        let mut total = 0;
        for minute in 0..600_u64 {
            total += if minute < 590 { 60_000 } else { 6_000_000 };
            meter.look(minute * 60_000, total);
        }
        let rates = meter.rates().expect("followed");
        assert!(rates.minutes > 80_000.0 && rates.minutes < 100_000.0, "{rates:?}");
        assert!(rates.day < rates.hour && rates.hour < rates.minutes / 3.0, "{rates:?}");
    }

    /// After a restart the counter begins anew; what was learned stays.
    #[test]
    fn a_restart_keeps_the_means() {
        let mut meter = Meter::default();
        for second in 0..100 {
            meter.look(second * 1_000, second * 5_000);
        }
        let mut again = Meter { last: None, ..meter.clone() };
        again.look(0, 0);
        assert_eq!(again.rates(), meter.rates());
        again.look(1_000, 5_000);
        assert!(near(again.rates().expect("followed").hour, 5_000.0));
    }
}
