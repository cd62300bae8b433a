/// A small deterministic generator (SplitMix64: Steele, Lea, Flood 2014): the same seed gives the
/// same run.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The sequence of `seed` for one purpose: two purposes of one seed have nothing in common.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let hash = blake3::keyed_hash(&key(seed), purpose.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_le_bytes(first))
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both inclusive.
    ///
    /// # Panics
    /// When `low` is above `high`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "nothing lies between");
        let span = high - low;
        if span == u64::MAX { self.next() } else { low + self.next() % (span + 1) }
    }

    /// True once in `n` times on average.
    pub(crate) const fn one_in(&mut self, n: u64) -> bool {
        self.between(1, n) == 1
    }

    /// Fills `buf`: bytes that no compressor makes smaller.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn key(seed: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_purpose_give_the_same_numbers_and_others_do_not() {
        let draw = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.next(), dice.next(), dice.next()]
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }

    #[test]
    fn numbers_stay_between_their_limits() {
        let mut dice = Dice::new(3, "limits");
        let drawn: Vec<_> = (0..1000).map(|_| dice.between(5, 7)).collect();
        assert!((5..=7).all(|n| drawn.contains(&n)) && drawn.iter().all(|n| (5..=7).contains(n)));
        assert_eq!(dice.between(u64::MAX, u64::MAX), u64::MAX);
    }
}
