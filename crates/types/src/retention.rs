//! How long a replica's history is kept, and which of its markers stay listed.

use crate::Class;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most tiers of a schedule.
pub const TIERS_MAX: usize = 8;
/// Longest retention in seconds: ten years.
pub const RETENTION_S_MAX: u64 = 10 * 366 * DAY_S;
/// Smallest limit of size in bytes: below a few segments it could not be kept to.
pub const SIZE_BYTES_MIN: u64 = 1 << 20;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// One step of thinning: markers up to an age stay listed at a distance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ThinningTier {
    /// Seconds: markers that stay listed are no further apart than this, where the source put them
    /// that close.
    pub every_s: u64,
    /// Seconds: up to this age. The last tier holds for everything older too.
    pub until_age_s: u64,
}

/// What of a replica's history is kept (RQ-RP-2, RQ-RP-3).
///
/// Every *record* is kept for `keep_s`, so that any position outside windows can be chosen; the
/// schedule only says which *markers* stay listed. Space is freed by age and by size, never by
/// thinning.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// Seconds: how long every record is kept, 1 to [`RETENTION_S_MAX`].
    pub keep_s: u64,
    /// Bytes that the replica's journal may take on the retention volume; none: what is there. The
    /// oldest history gives way to it, and that is an alert.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Which markers stay listed.
    #[serde(default = "default_thinning")]
    pub thinning: Vec<ThinningTier>,
}

/// Every 5 s for 2 h, every minute for 24 h, hourly for 15 days.
fn default_thinning() -> Vec<ThinningTier> {
    vec![
        ThinningTier { every_s: 5, until_age_s: 2 * HOUR_S },
        ThinningTier { every_s: MINUTE_S, until_age_s: DAY_S },
        ThinningTier { every_s: HOUR_S, until_age_s: 15 * DAY_S },
    ]
}

impl Default for RetentionPolicy {
    /// 24 h (RQ-RP-2), no limit of size, the usual thinning.
    fn default() -> Self {
        Self::for_seconds(DAY_S)
    }
}

/// Why a policy is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// Retention out of range.
    #[error("keep_s: {0} s is not 1 to {RETENTION_S_MAX}")]
    Keep(u64),
    /// Too small.
    #[error("size_bytes: {0} is less than {SIZE_BYTES_MIN}")]
    Size(u64),
    /// No tier, or too many.
    #[error("thinning: {0} tiers, not 1 to {TIERS_MAX}")]
    Tiers(usize),
    /// A tier without a distance, or with one beyond its age.
    #[error("thinning: a tier of every {every_s} s until {until_age_s} s says nothing")]
    Empty {
        /// As given.
        every_s: u64,
        /// As given.
        until_age_s: u64,
    },
    /// A later tier is not coarser or not older.
    #[error("thinning: tier {0} is not both coarser and older than the one before it")]
    NotRising(usize),
}

impl PolicyError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Permanent
    }
}

impl RetentionPolicy {
    /// The usual policy with another retention.
    #[must_use]
    pub fn for_seconds(keep_s: u64) -> Self {
        Self { keep_s, size_bytes: None, thinning: default_thinning() }
    }

    /// Checks ranges and that each tier is coarser and reaches further back than the one before
    /// it.
    ///
    /// # Errors
    /// [`PolicyError`] names the field.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if !(1..=RETENTION_S_MAX).contains(&self.keep_s) {
            return Err(PolicyError::Keep(self.keep_s));
        }
        if let Some(bytes) = self.size_bytes.filter(|bytes| *bytes < SIZE_BYTES_MIN) {
            return Err(PolicyError::Size(bytes));
        }
        if !(1..=TIERS_MAX).contains(&self.thinning.len()) {
            return Err(PolicyError::Tiers(self.thinning.len()));
        }
        for ThinningTier { every_s, until_age_s } in self.thinning.iter().copied() {
            if every_s == 0 || until_age_s <= every_s || until_age_s > RETENTION_S_MAX {
                return Err(PolicyError::Empty { every_s, until_age_s });
            }
        }
        let rises = |pair: &[ThinningTier]| {
            pair[0].every_s < pair[1].every_s && pair[0].until_age_s < pair[1].until_age_s
        };
        match self.thinning.windows(2).position(|pair| !rises(pair)) {
            Some(at) => Err(PolicyError::NotRising(at + 2)),
            None => Ok(()),
        }
    }

    /// Milliseconds of retention.
    #[must_use]
    pub const fn keep_ms(&self) -> u64 {
        self.keep_s.saturating_mul(1_000)
    }
}

impl fmt::Display for ThinningTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Span(self.every_s), Span(self.until_age_s))
    }
}

/// Seconds in the largest unit that divides them.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "m"), (1, "s")];
        let fits =
            units.into_iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (unit, name) = fits.unwrap_or((1, "s"));
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(thinning: &[(u64, u64)]) -> RetentionPolicy {
        let tier = |(every_s, until_age_s): &(u64, u64)| ThinningTier {
            every_s: *every_s,
            until_age_s: *until_age_s,
        };
        RetentionPolicy { thinning: thinning.iter().map(tier).collect(), ..Default::default() }
    }

    #[test]
    fn the_default_is_a_day_thinned_in_three_tiers() {
        let policy = RetentionPolicy::default();
        policy.validate().expect("valid");
        assert_eq!(policy.keep_s, 86_400);
        let tiers: Vec<String> = policy.thinning.iter().map(ToString::to_string).collect();
        assert_eq!(tiers, ["5s:2h", "1m:1d", "1h:15d"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_field() {
        let refused = |policy: RetentionPolicy| policy.validate().expect_err("refused");
        assert_eq!(refused(RetentionPolicy::for_seconds(0)), PolicyError::Keep(0));
        let small = RetentionPolicy { size_bytes: Some(1), ..Default::default() };
        assert_eq!(refused(small), PolicyError::Size(1));
        assert_eq!(refused(with(&[])), PolicyError::Tiers(0));
        assert_eq!(refused(with(&[(5, 5)])), PolicyError::Empty { every_s: 5, until_age_s: 5 });
        assert_eq!(refused(with(&[(0, 5)])), PolicyError::Empty { every_s: 0, until_age_s: 5 });
        assert_eq!(refused(with(&[(5, 60), (5, 90)])), PolicyError::NotRising(2));
        assert_eq!(refused(with(&[(5, 60), (6, 60)])), PolicyError::NotRising(2));
        with(&[(5, 60), (7, 90)]).validate().expect("intervals need not be multiples");
    }
}
