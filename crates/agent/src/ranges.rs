//! Sets of byte ranges: which parts of a disk still have to be sent.

use landfall_types::ByteRange;
use std::collections::BTreeMap;

/// Disjoint, non-touching ranges of one disk, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// One range.
    #[must_use]
    pub fn of(range: ByteRange) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }

    /// Adds a range; parts of it may be there already.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // All that overlap or touch become one: those that begin at or before its end, from the
        // last on backwards.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ranges.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
    }

    /// Takes a range out, as far as it is there.
    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ranges.remove(&s);
            if range.end < e {
                self.ranges.insert(range.end, e);
            }
            if s < range.start {
                self.ranges.insert(s, range.start);
            }
        }
    }

    /// The parts of `range` that are in the set, in order.
    #[must_use]
    pub fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&s, _)| s);
        self.ranges
            .range(first..range.end.max(first))
            .filter_map(|(&start, &end)| ByteRange { start, end }.intersect(&range))
            .collect()
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| ByteRange { start, end })
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Sum of the lengths, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_testkit::{Rng, seed};

    const SIZE: u64 = 64;

    fn random(rng: &mut Rng) -> ByteRange {
        let start = rng.below(SIZE);
        ByteRange { start, end: start + rng.below(SIZE - start + 1) }
    }

    /// Against a bit per byte.
    #[test]
    fn agrees_with_a_naive_set() {
        let mut rng = Rng::new(seed("range sets"));
        for _ in 0..300 {
            let (mut set, mut naive) = (RangeSet::new(), [false; SIZE as usize]);
            for _ in 0..30 {
                let range = random(&mut rng);
                let add = rng.below(2) == 0;
                if add {
                    set.insert(range)
                } else {
                    set.remove(range)
                }
                naive[range.start as usize..range.end as usize].fill(add);
                let asked = random(&mut rng);
                let found: Vec<u64> =
                    set.within(asked).iter().flat_map(|r| r.start..r.end).collect();
                let expected: Vec<u64> =
                    (asked.start..asked.end).filter(|&n| naive[n as usize]).collect();
                assert_eq!(found, expected);
                assert_eq!(set.bytes(), naive.iter().filter(|&&bit| bit).count() as u64);
                assert_eq!(set.is_empty(), set.bytes() == 0);
                let ends: Vec<_> = set.iter().collect();
                assert!(ends.windows(2).all(|pair| pair[0].end < pair[1].start), "{ends:?}");
            }
        }
    }
}
