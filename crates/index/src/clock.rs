use std::collections::HashMap;
use std::hash::Hash;

/// A bounded cache: what was not used since the hand passed goes first.
#[derive(Debug)]
pub struct Clock<K, V> {
    slots: Vec<Slot<K, V>>,
    places: HashMap<K, usize>,
    hand: usize,
    bytes: usize,
    budget: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    bytes: usize,
    used: bool,
}

impl<K: Hash + Eq + Clone, V: Clone> Clock<K, V> {
    /// Empty; holds values of `budget` bytes in all, or a single larger one.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self { slots: Vec::new(), places: HashMap::new(), hand: 0, bytes: 0, budget }
    }

    /// What is kept under a key.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let slot = &mut self.slots[*self.places.get(key)?];
        slot.used = true;
        Some(slot.value.clone())
    }

    /// Keeps a value that takes `bytes`, in the place of what was there before; others go until all
    /// fits.
    pub fn put(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        while self.bytes + bytes > self.budget && !self.slots.is_empty() {
            self.evict();
        }
        self.places.insert(key.clone(), self.slots.len());
        self.slots.push(Slot { key, value, bytes, used: false });
        self.bytes += bytes;
    }

    /// Bytes of all values that are kept.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps only what is wanted.
    pub fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self.places.keys().filter(|key| !wanted(key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(at) = self.places.get(key) {
            self.take(*at);
        }
    }

    fn evict(&mut self) {
        loop {
            self.hand = if self.hand < self.slots.len() { self.hand } else { 0 };
            let slot = &mut self.slots[self.hand];
            if !slot.used {
                return self.take(self.hand);
            }
            slot.used = false;
            self.hand += 1;
        }
    }

    fn take(&mut self, at: usize) {
        let slot = self.slots.swap_remove(at);
        self.places.remove(&slot.key);
        self.bytes -= slot.bytes;
        if let Some(moved) = self.slots.get(at) {
            self.places.insert(moved.key.clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let mut clock = Clock::new(100);
        for key in 0..10 {
            clock.put(key, key * 2, 10);
        }
        for round in 10..60 {
            assert_eq!(clock.get(&3), Some(6), "used in each round");
            clock.put(round, 0, 10);
            assert!(clock.bytes() <= 100);
        }
        clock.put(7, 1, 1000);
        assert_eq!((clock.get(&7), clock.bytes()), (Some(1), 1000), "alone");
        clock.put(8, 1, 10);
        assert_eq!((clock.get(&7), clock.bytes()), (None, 10));
        clock.retain(|key| *key != 8);
        assert_eq!((clock.get(&8), clock.bytes()), (None, 0));
    }
}
