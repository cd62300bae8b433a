//! How much history there is room for, and when it begins to be shorter than asked for. Pure.

use super::Rates;
use serde::{Deserialize, Serialize};

/// Longest time before the loss at which it is critical: an hour, or a tenth of the retention where
/// that is shorter.
const CRITICAL_MS: u64 = 3_600_000;

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Milliseconds of history that are asked for.
    pub keep_ms: u64,
    /// Milliseconds of history that there are.
    pub history_ms: u64,
    /// Bytes that it takes.
    pub used_bytes: u64,
    /// Bytes that it may take in addition: what the limit of size and the volume leave.
    pub free_bytes: u64,
}

/// How it looks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outlook {
    /// All that is asked for fits.
    Enough,
    /// At the present rates it does not fit, and will be shortened.
    Short,
    /// It will be shortened within the hour, or it is shorter already.
    Critical,
}

/// What is to be expected: "about `fits` of `keep`".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Projection {
    /// See [`Outlook`].
    pub outlook: Outlook,
    /// Milliseconds of history that fit at the fastest of the rates over an hour and a day; at most
    /// what is asked for.
    pub fits_ms: u64,
    /// Milliseconds until history begins to be shorter than asked for; none when that is not to be
    /// expected.
    pub left_ms: Option<u64>,
}

/// Projects. No rates yet, or a source that writes nothing: what is asked for fits.
#[must_use]
pub fn project(room: Room, rates: Option<Rates>) -> Projection {
    let rates = rates.unwrap_or_default();
    let fits_ms = fits(room, rates.hour.max(rates.day));
    let left_ms = [rates.minutes, rates.hour, rates.day]
        .into_iter()
        .filter_map(|rate| left(room, rate))
        .min();
    // The rate of minutes alone warns only of what is about to happen: a burst that ends in time
    // is nobody's business.
    let critical = left_ms.is_some_and(|left| left <= CRITICAL_MS.min(room.keep_ms / 10));
    let outlook = match (critical, fits_ms < room.keep_ms) {
        (true, _) => Outlook::Critical,
        (false, true) => Outlook::Short,
        (false, false) => Outlook::Enough,
    };
    let left_ms = left_ms.filter(|_| outlook != Outlook::Enough);
    Projection { outlook, fits_ms: fits_ms.min(room.keep_ms), left_ms }
}

/// Milliseconds of history that fit at this rate.
fn fits(room: Room, rate: f64) -> u64 {
    let bytes = room.used_bytes.saturating_add(room.free_bytes) as f64;
    if rate <= 0.0 { u64::MAX } else { (bytes / rate * 1_000.0) as u64 }
}

/// Milliseconds until the room is used up at this rate, if it will be.
fn left(room: Room, rate: f64) -> Option<u64> {
    if fits(room, rate) >= room.keep_ms {
        return None;
    }
    // Once history is as long as asked for, what expires is freed: at the rate at which it was
    // written.
    let freed = match room.history_ms >= room.keep_ms && room.history_ms > 0 {
        true => room.used_bytes as f64 / (room.history_ms as f64 / 1_000.0),
        false => 0.0,
    };
    let grows = rate - freed;
    (grows > 0.0).then(|| (room.free_bytes as f64 / grows * 1_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const MIB: u64 = 1 << 20;

    fn even(mib_per_s: f64) -> Option<Rates> {
        let rate = mib_per_s * MIB as f64;
        Some(Rates { minutes: rate, hour: rate, day: rate })
    }
    fn room(history_h: u64, used_mib: u64, free_mib: u64) -> Room {
        Room {
            keep_ms: 24 * HOUR,
            history_ms: history_h * HOUR,
            used_bytes: used_mib * MIB,
            free_bytes: free_mib * MIB,
        }
    }

    #[test]
    fn what_fits_is_enough() {
        let none = project(room(0, 0, 0), None);
        assert_eq!((none.outlook, none.fits_ms, none.left_ms), (Outlook::Enough, 24 * HOUR, None));
        let day = 24 * 3600;
        assert_eq!(project(room(2, 7200, day), even(1.0)).outlook, Outlook::Enough);
        // Steady: as much expires as comes.
        assert_eq!(project(room(24, day, 100), even(1.0)).outlook, Outlook::Enough);
    }

    /// "about 9 h left of 24 h", hours before the first is lost.
    #[test]
    fn what_will_not_fit_is_told_beforehand() {
        let seen = project(room(2, 2 * 3600, 7 * 3600), even(1.0));
        assert_eq!(seen.outlook, Outlook::Short);
        assert_eq!((seen.fits_ms, seen.left_ms), (9 * HOUR, Some(7 * HOUR)));
        let soon = project(room(8, 8 * 3600 + 1800, 1800), even(1.0));
        assert_eq!(soon.outlook, Outlook::Critical);
        assert_eq!(soon.left_ms, Some(HOUR / 2));
        let now = project(room(9, 9 * 3600, 0), even(1.0));
        assert_eq!((now.outlook, now.left_ms), (Outlook::Critical, Some(0)));
    }

    /// A full day that was written slowly, and now the source writes four times as fast.
    #[test]
    fn a_faster_source_is_seen_while_old_history_still_expires() {
        let seen = project(room(24, 24 * 3600, 9 * 3600), even(4.0));
        assert_eq!(seen.outlook, Outlook::Short);
        assert_eq!(seen.fits_ms, 33 * 3_600_000 / 4);
        assert_eq!(seen.left_ms, Some(3 * HOUR), "it grows by 3 MiB/s");
    }

    #[test]
    fn a_short_burst_warns_only_when_it_is_about_to_cost_history() {
        let mib = MIB as f64;
        let burst = Some(Rates { minutes: 50.0 * mib, hour: mib, day: mib });
        let far = project(room(24, 24 * 3600, 40 * 3600 * 50), burst);
        assert_eq!((far.outlook, far.left_ms), (Outlook::Enough, None));
        assert_eq!(project(room(24, 24 * 3600, 3600), burst).outlook, Outlook::Critical);
    }
}
