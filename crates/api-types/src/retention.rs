//! Policies, what they keep at present, and what keeps history.

use crate::request::PointChoice;
use landfall_types::{Lsn, MarkerKind, RetentionPolicy, UnixNanos};
use serde::{Deserialize, Serialize};

/// Name of the policy that machines are protected with when none is named. It is always there.
pub const DEFAULT_POLICY: &str = "default";
/// RPO threshold in seconds when none is given (RQ-RP-2).
pub const RPO_S_DEFAULT: u64 = 900;

/// A policy with its name (RQ-RP-2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Unique.
    pub name: String,
    /// How long what is kept.
    pub retention: RetentionPolicy,
    /// Seconds: an RPO above this raises an alert (RQ-RP-9).
    pub rpo_s: u64,
    /// Machines that it holds for, by name.
    pub machines: Vec<String>,
}

/// `PUT /v1/policies/{name}`: makes a policy, or changes it for all its machines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPolicy {
    /// How long what is kept.
    pub retention: RetentionPolicy,
    /// Seconds, at least 1; default 900.
    #[serde(default = "rpo_default")]
    pub rpo_s: u64,
    /// Refuse when there is one of this name.
    #[serde(default)]
    pub new: bool,
}

const fn rpo_default() -> u64 {
    RPO_S_DEFAULT
}

/// `POST /v1/machines/{name}/policy`: which policy holds for a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignPolicy {
    /// Its name.
    pub policy: String,
}

/// `POST /v1/machines/{name}/points/note`: pins, unpins or names a listed point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotePoint {
    /// Which one: a marker's LSN, name, or time; latest is the newest listed one.
    pub point: PointChoice,
    /// What to do.
    pub note: Note,
}

/// See [`NotePoint`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// Keep it from expiring.
    Pin {
        /// Seconds of the master target's running time; none: until it is unpinned.
        for_s: Option<u64>,
    },
    /// Let it expire again.
    Unpin,
    /// Give it a name; none: take the name away.
    Name {
        /// 1 to 128 bytes, unique among what is listed.
        name: Option<String>,
    },
}

/// `GET /v1/machines/{name}/points?…`: which points are listed in the answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointFilter {
    /// Not before, by the source's wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Not after, by the source's wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<MarkerKind>,
    /// Pinned ones only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Corrupt ones only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrupt: bool,
    /// With a name only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
    /// Behind this LSN: the next page begins behind the last point of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Lsn>,
    /// At most so many, the oldest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl PointFilter {
    /// True when a point passes, paging aside.
    #[must_use]
    pub fn passes(&self, point: &crate::resource::Point) -> bool {
        self.from.is_none_or(|from| point.time >= UnixNanos(from))
            && self.to.is_none_or(|to| point.time <= UnixNanos(to))
            && self.kind.is_none_or(|kind| point.kind == kind)
            && (!self.pinned || point.pinned)
            && (!self.corrupt || point.corrupt)
            && (!self.named || point.name.is_some())
            && self.after.is_none_or(|after| point.lsn > after)
    }
}

/// What is kept at present, as the master target says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RetentionStatus {
    /// The policy in force there.
    pub policy: RetentionPolicy,
    /// Points that are listed.
    pub listed: u64,
    /// Points that thinning has taken off the list so far.
    pub thinned: u64,
    /// Points that are pinned.
    pub pinned: u64,
    /// The oldest content that can be had.
    pub oldest: Option<Lsn>,
    /// Its time by the source's clock, where a marker says it.
    pub oldest_time: Option<UnixNanos>,
    /// Seconds of history, by the master target's clock of running time (trap T-6).
    pub history_s: u64,
    /// Bytes of the journal on the retention volume.
    pub used_bytes: u64,
    /// History that had to go before its time: `size-limit`, `volume-full`; none once it is as long
    /// as is asked for again.
    pub shortened: Option<String>,
    /// Bytes per second over about 5 minutes, an hour, a day; none before anything was measured.
    pub rates: Option<[f64; 3]>,
    /// What is to be expected.
    pub outlook: Outlook,
    /// Seconds of history that there is room for, at most what is asked for.
    pub fits_s: u64,
    /// Seconds until history begins to be shorter than asked for; none when that is not to be
    /// expected.
    pub left_s: Option<u64>,
    /// Bytes free on the retention volume.
    pub volume_free_bytes: u64,
    /// Its size in bytes.
    pub volume_bytes: u64,
}

/// What is to be expected of history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outlook {
    /// All that is asked for fits.
    Enough,
    /// At the present rates it does not fit, and will be shortened.
    Short,
    /// That begins within the hour, or has begun.
    Critical,
}

/// Something that keeps history from expiring (`GET /v1/machines/{name}/holds`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// `pin`, `view`, `test-branch`, `authority`, `divergence`, `window`, `old-disks`, `undo`,
    /// `sender`.
    pub kind: String,
    /// Whose: a branch, a divergence, a person.
    pub name: String,
    /// Nothing behind this position is given up because of it.
    pub lsn: Lsn,
    /// Until when, in words.
    pub until: String,
}
