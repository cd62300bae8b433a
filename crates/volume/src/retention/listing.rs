//! The markers that are listed, with the time at which each was first seen. Pure.

use super::thinning::{Stamped, thin};
use crate::timeline::Point;
use landfall_types::{LogId, Lsn, MarkerKind, ThinningTier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What has made history shorter than the policy asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortenCause {
    /// The replica's own limit of size.
    SizeLimit,
    /// The retention volume had no room.
    VolumeFull,
}

/// History that had to go before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shortened {
    /// Why.
    pub cause: ShortenCause,
    /// Milliseconds: what was left of history then.
    pub left_ms: u64,
}

/// A listed marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "(u64, u8)", from = "(u64, u8)")]
struct Kept {
    /// Milliseconds of running time at which it was first seen.
    stamp_ms: u64,
    kind: MarkerKind,
}

impl From<Kept> for (u64, u8) {
    fn from(kept: Kept) -> Self {
        let kind = match kept.kind {
            MarkerKind::CrashConsistent => 0,
            MarkerKind::FileSystemConsistent => 1,
            MarkerKind::ApplicationConsistent => 2,
            MarkerKind::User => 3,
        };
        (kept.stamp_ms, kind)
    }
}

impl From<(u64, u8)> for Kept {
    fn from((stamp_ms, kind): (u64, u8)) -> Self {
        let kind = match kind {
            1 => MarkerKind::FileSystemConsistent,
            2 => MarkerKind::ApplicationConsistent,
            3 => MarkerKind::User,
            // Of a later version too: what is promised at the least.
            _ => MarkerKind::CrashConsistent,
        };
        Self { stamp_ms, kind }
    }
}

/// Which markers of a log are listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// Whose positions these are.
    log: LogId,
    /// Milliseconds for which this replica was open, over all runs of the process.
    clock_ms: u64,
    /// Markers up to here were judged: those that are not in `kept` are not listed. Later ones are.
    through: Lsn,
    kept: BTreeMap<Lsn, Kept>,
    /// How many markers thinning has taken off the list so far.
    thinned: u64,
    #[serde(default)]
    shortened: Option<Shortened>,
}

impl Listing {
    /// Nothing judged yet: every marker is listed, and counts as new.
    pub(crate) const fn new(log: LogId) -> Self {
        Self {
            log,
            clock_ms: 0,
            through: Lsn::ZERO,
            kept: BTreeMap::new(),
            thinned: 0,
            shortened: None,
        }
    }

    pub(crate) const fn log(&self) -> LogId {
        self.log
    }
    pub(crate) const fn clock_ms(&self) -> u64 {
        self.clock_ms
    }
    pub(crate) const fn through(&self) -> Lsn {
        self.through
    }
    pub(crate) const fn thinned(&self) -> u64 {
        self.thinned
    }
    pub(crate) const fn shortened(&self) -> Option<Shortened> {
        self.shortened
    }

    /// Another log is the replica's now, and shares the positions up to `fork`. Those behind it are
    /// other records, and as young as they are.
    pub(crate) fn fork(&mut self, log: LogId, fork: Lsn) {
        self.log = log;
        self.through = self.through.min(fork);
        self.kept.split_off(&fork.next());
    }

    /// Takes in time and the markers behind [`Listing::through`] that are recovery points.
    pub(crate) fn look(&mut self, clock_ms: u64, found: &[Point], through: Lsn) {
        self.clock_ms = self.clock_ms.max(clock_ms);
        for point in found.iter().filter(|point| point.lsn > self.through) {
            let kept = Kept { stamp_ms: self.clock_ms, kind: point.marker.kind };
            self.kept.insert(point.lsn, kept);
        }
        self.through = self.through.max(through);
    }

    /// Takes markers off the list by the schedule; how many.
    pub(crate) fn thin(&mut self, tiers: &[ThinningTier], exempt: impl Fn(Lsn) -> bool) -> usize {
        let stamped = |(lsn, kept): (&Lsn, &Kept)| Stamped {
            stamp_ms: kept.stamp_ms,
            kind: kept.kind,
            exempt: kept.kind == MarkerKind::User || exempt(*lsn),
        };
        let markers: Vec<Stamped> = self.kept.iter().map(stamped).collect();
        let mut stays = thin(&markers, self.clock_ms, tiers).into_iter();
        let before = self.kept.len();
        self.kept.retain(|_, _| stays.next().unwrap_or(true));
        let gone = before - self.kept.len();
        self.thinned += gone as u64;
        gone
    }

    /// Markers before `first` can't be chosen any more.
    pub(crate) fn forget_before(&mut self, first: Lsn) {
        self.kept = self.kept.split_off(&first);
    }

    /// True when a marker at this position is listed.
    pub(crate) fn lists(&self, lsn: Lsn) -> bool {
        lsn > self.through || self.kept.contains_key(&lsn)
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The newest listed marker that has been here for `keep_ms`.
    pub(crate) fn expired(&self, keep_ms: u64) -> Option<Lsn> {
        let old = |kept: &Kept| kept.stamp_ms.saturating_add(keep_ms) <= self.clock_ms;
        self.kept.iter().rev().find(|(_, kept)| old(kept)).map(|(lsn, _)| *lsn)
    }

    /// The first listed marker at or behind a position, or else the newest one.
    pub(crate) fn at_or_behind(&self, lsn: Lsn) -> Option<Lsn> {
        let behind = self.kept.range(lsn..).next().or_else(|| self.kept.last_key_value());
        behind.map(|(lsn, _)| *lsn)
    }

    /// Milliseconds since a position was first seen durable, as far as a listed marker at or behind
    /// it says so: never more than it is.
    pub(crate) fn age_ms(&self, lsn: Lsn) -> u64 {
        let marker = self.kept.range(lsn..).next();
        marker.map_or(0, |(_, kept)| self.clock_ms.saturating_sub(kept.stamp_ms))
    }

    /// Milliseconds of history: the age of the oldest listed marker.
    pub(crate) fn history_ms(&self) -> u64 {
        self.kept.first_key_value().map_or(0, |(lsn, _)| self.age_ms(*lsn))
    }

    /// History had to go before its time.
    pub(crate) fn note_shortened(&mut self, cause: ShortenCause, keep_ms: u64) {
        let left_ms = self.history_ms();
        if left_ms < keep_ms {
            self.shortened = Some(Shortened { cause, left_ms });
        }
    }

    /// Forgets that history was shortened once it is as long as is asked for again.
    pub(crate) fn recover(&mut self, keep_ms: u64) {
        if self.history_ms() >= keep_ms {
            self.shortened = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::Marker;

    fn lsn(n: u64) -> Lsn {
        Lsn::new(n)
    }
    fn log(n: u8) -> LogId {
        LogId::from_bytes([n; 16])
    }
    fn marker(at: u64) -> Point {
        let kind = MarkerKind::CrashConsistent;
        let marker = Marker { kind, time_unix_ns: 0, name: None, group: None };
        Point { lsn: lsn(at), marker }
    }
    /// A marker each second at the LSNs 10, 20, …
    fn seen(seconds: u64) -> Listing {
        let mut listing = Listing::new(log(1));
        for second in 1..=seconds {
            listing.look(second * 1_000, &[marker(second * 10)], lsn(second * 10 + 3));
        }
        listing
    }

    /// T-6: age is counted from when it was first seen, by the clock that the caller brings; the
    /// markers' own times play no part.
    #[test]
    fn t6_only_what_was_seen_long_enough_ago_expires() {
        let listing = seen(9);
        assert_eq!(listing.expired(60_000), None);
        assert_eq!(listing.expired(5_000), Some(lsn(40)));
        assert_eq!(listing.expired(0), Some(lsn(90)));
        assert_eq!(listing.history_ms(), 8_000);
        assert_eq!(listing.age_ms(lsn(41)), 4_000, "as young as the marker behind it");
    }

    /// A branch that forked earlier counts anew: its positions are younger than the old log's of
    /// the same number.
    #[test]
    fn positions_behind_a_fork_are_as_old_as_the_branch() {
        let mut listing = seen(9);
        listing.fork(log(2), lsn(55));
        listing.look(3_600_000, &[marker(60), marker(61)], lsn(61));
        assert_eq!(listing.expired(60_000), Some(lsn(50)));
        listing.look(3_661_000, &[], lsn(61));
        assert_eq!(listing.expired(60_000), Some(lsn(61)));
    }

    #[test]
    fn what_was_not_judged_yet_is_listed() {
        let mut listing = seen(3);
        assert!(listing.lists(lsn(20)) && !listing.lists(lsn(21)) && listing.lists(lsn(40)));
        listing.forget_before(lsn(25));
        assert!(!listing.lists(lsn(20)) && listing.lists(lsn(30)));
        assert_eq!(listing.at_or_behind(lsn(11)), Some(lsn(30)));
        assert_eq!(listing.at_or_behind(lsn(31)), Some(lsn(30)));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_younger() {
        let mut listing = seen(9);
        listing.look(2_000, &[], lsn(93));
        assert_eq!(listing.clock_ms(), 9_000);
    }
}
