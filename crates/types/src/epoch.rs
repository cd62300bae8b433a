use std::fmt;

/// The random half of an [`Epoch`]: two controllers that hand out the same number still differ here
/// (trap T-17).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct EpochId(u64);

impl EpochId {
    /// Wraps 64 random bits.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch-id:{self}")
    }
}
impl From<EpochId> for String {
    fn from(id: EpochId) -> Self {
        id.to_string()
    }
}
impl TryFrom<String> for EpochId {
    type Error = std::num::ParseIntError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&s, 16).map(Self)
    }
}

/// Who may write: rises at failover, change of point and failback, never repeats (design section
/// 14.3).
///
/// Not raised by a catch-up (that is a window), a restart (an incarnation) or a test branch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Epoch {
    /// Rises by at least one at each change of authority.
    pub number: u64,
    /// Random; equal numbers with different IDs are different epochs (trap T-17).
    pub id: EpochId,
    /// The epoch that this one forked from; `None` for a machine's first.
    pub parent: Option<EpochId>,
}

impl Epoch {
    /// True when `other` names the same epoch: number *and* random ID.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.number == other.number && self.id == other.id
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.id)
    }
}

/// One run of a producer that can prove its continuity: for an agent the load key of its capture
/// program, for a branch the ID of its log. A new one always begins with a catch-up (trap T-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Incarnation(u64);

impl Incarnation {
    /// "No producer yet": the position of a replica that has received nothing.
    pub const NONE: Self = Self(0);
    /// Wraps 64 random bits.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "incarnation:{self}")
    }
}
impl From<Incarnation> for String {
    fn from(id: Incarnation) -> Self {
        id.to_string()
    }
}
impl TryFrom<String> for Incarnation {
    type Error = std::num::ParseIntError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&s, 16).map(Self)
    }
}
