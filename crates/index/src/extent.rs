//! A map from the bytes of a disk to whatever holds them newest. Pure; no storage.

use landfall_types::ByteRange;
use std::collections::BTreeMap;

/// Non-overlapping stretches of one disk, each with the value that was inserted last over it.
#[derive(Clone, Debug)]
pub struct ExtentMap<T> {
    /// Start of a stretch → its end (exclusive) and value. Stretches are not empty and never
    /// overlap.
    stretches: BTreeMap<u64, (u64, T)>,
}

impl<T> Default for ExtentMap<T> {
    fn default() -> Self {
        Self { stretches: BTreeMap::new() }
    }
}

impl<T: Copy> ExtentMap<T> {
    /// Puts `value` over the whole range; what was there before is cut away or split.
    pub fn insert(&mut self, range: ByteRange, value: T) {
        if range.is_empty() {
            return;
        }
        self.clear(range);
        self.stretches.insert(range.start, (range.end, value));
    }

    /// Removes whatever lies in the range.
    fn clear(&mut self, range: ByteRange) {
        // The stretch that begins before the range may reach into it, or beyond its end.
        let before = self.stretches.range_mut(..range.start).next_back();
        if let Some((_, (end, value))) = before
            && *end > range.start
        {
            let (old_end, value) = (*end, *value);
            *end = range.start;
            if old_end > range.end {
                self.stretches.insert(range.end, (old_end, value));
                return;
            }
        }
        let inside = self.stretches.range(range.start..range.end);
        let starts: Vec<u64> = inside.map(|(start, _)| *start).collect();
        for start in starts {
            if let Some((end, value)) = self.stretches.remove(&start)
                && end > range.end
            {
                self.stretches.insert(range.end, (end, value));
            }
        }
    }

    /// The range cut into pieces in order, covering it whole: what holds each, or `None` where
    /// nothing does.
    pub fn pieces(&self, range: ByteRange) -> Vec<(ByteRange, Option<T>)> {
        let mut out = Vec::new();
        let mut at = range.start;
        let first = self.stretches.range(..=range.start).next_back().map(|(start, _)| *start);
        for (start, (end, value)) in self.stretches.range(first.unwrap_or(range.start)..range.end) {
            let Some(piece) = range.intersect(&ByteRange { start: *start, end: *end }) else {
                continue;
            };
            if piece.start > at {
                out.push((ByteRange { start: at, end: piece.start }, None));
            }
            at = piece.end;
            out.push((piece, Some(*value)));
        }
        if at < range.end {
            out.push((ByteRange { start: at, end: range.end }, None));
        }
        out
    }

    /// All stretches in order.
    pub fn iter(&self) -> impl Iterator<Item = (ByteRange, T)> + '_ {
        self.stretches
            .iter()
            .map(|(start, (end, value))| (ByteRange { start: *start, end: *end }, *value))
    }

    /// Keeps the stretches whose value is wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(T) -> bool) {
        self.stretches.retain(|_, (_, value)| wanted(*value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive_pieces(bytes: &[Option<u32>], range: ByteRange) -> Vec<Option<u32>> {
        bytes[range.start as usize..range.end as usize].to_vec()
    }

    proptest! {
        /// Guards P4: the map says of every byte what a plain array of bytes says.
        #[test]
        fn agrees_with_an_array(
            inserts in prop::collection::vec((0_u64..200, 0_u64..60), 0..60),
            from in 0_u64..200, length in 0_u64..60, keep in 0_u32..60,
        ) {
            let mut map = ExtentMap::default();
            let mut array = vec![None; 300];
            for (value, (start, len)) in (0_u32..).zip(&inserts) {
                map.insert(ByteRange { start: *start, end: start + len }, value);
                array[*start as usize..(start + len) as usize].fill(Some(value));
            }
            let check = |map: &ExtentMap<u32>, array: &[Option<u32>]| {
                let range = ByteRange { start: from, end: from + length };
                let mut at = range.start;
                let mut found = Vec::new();
                for (piece, value) in map.pieces(range) {
                    assert!(piece.start == at && !piece.is_empty(), "in order, without gaps");
                    at = piece.end;
                    found.extend(std::iter::repeat_n(value, piece.len() as usize));
                }
                assert_eq!(at, range.end);
                assert_eq!(found, naive_pieces(array, range));
                let total: u64 = map.iter().map(|(piece, _)| piece.len()).sum();
                assert_eq!(total as usize, array.iter().flatten().count());
            };
            check(&map, &array);
            map.retain(|value| value >= keep);
            for byte in &mut array {
                *byte = byte.filter(|value| *value >= keep);
            }
            check(&map, &array);
        }
    }

    #[test]
    fn an_insert_in_the_middle_splits() {
        let mut map = ExtentMap::default();
        map.insert(ByteRange { start: 0, end: 100 }, 1);
        map.insert(ByteRange { start: 40, end: 60 }, 2);
        let pieces: Vec<_> =
            map.iter().map(|(range, value)| (range.start, range.end, value)).collect();
        assert_eq!(pieces, [(0, 40, 1), (40, 60, 2), (60, 100, 1)]);
    }
}
