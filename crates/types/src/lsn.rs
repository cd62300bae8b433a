use std::fmt;
use std::str::FromStr;

/// Position in a replica's log: one dense counter per machine, over all its disks (design section
/// 14.1).
///
/// The first record has LSN 1. [`Lsn::ZERO`] is the position before it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The position before the first record.
    pub const ZERO: Self = Self(0);
    /// The largest representable position; used as "no upper limit", never assigned to a record.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps a raw counter.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw counter.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position of the following record.
    ///
    /// # Panics
    /// At `u64::MAX`: a machine that writes a million records a second gets there after 584 000
    /// years.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("an LSN never reaches u64::MAX"))
    }

    /// The position before this one; [`Lsn::ZERO`] stays where it is.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The position `count` records later.
    ///
    /// # Panics
    /// On overflow, see [`Lsn::next`].
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.checked_add(count).expect("an LSN never reaches u64::MAX"))
    }

    /// How many records lie after `earlier` up to and including `self`; 0 when `earlier` is not
    /// before `self`.
    #[must_use]
    pub const fn records_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn:{}", self.0)
    }
}

impl FromStr for Lsn {
    type Err = std::num::ParseIntError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}
