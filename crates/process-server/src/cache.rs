//! How full the cache is: bytes that were acknowledged and that the next hop does not have.

use std::sync::atomic::{AtomicU64, Ordering};

/// Below this free share an operator is warned (RQ-PS-6).
const WARNING_FREE: f64 = 0.30;
/// Below this free share it is critical (RQ-PS-6).
const CRITICAL_FREE: f64 = 0.25;
/// Below this free share nothing more is taken (RQ-PS-6).
const PRESSURE_FREE: f64 = 0.20;

/// What an operator should think of the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheHealth {
    /// More than 30 % free.
    Good,
    /// At most 30 % free.
    Warning,
    /// At most 25 % free: back-pressure is near.
    Critical,
}

/// Shared by all routes of a process server.
#[derive(Debug)]
pub struct Cache {
    capacity: u64,
    used: AtomicU64,
}

impl Cache {
    /// `capacity` in bytes of records. The disk needs two segments per route more.
    #[must_use]
    pub const fn new(capacity: u64) -> Self {
        Self { capacity, used: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more was removed than there was");
    }

    /// Free share, 0 to 1.
    #[must_use]
    pub fn free(&self) -> f64 {
        let used = self.used.load(Ordering::Relaxed).min(self.capacity);
        if self.capacity == 0 { 0.0 } else { share(self.capacity - used, self.capacity) }
    }

    /// True when nothing more may be taken.
    #[must_use]
    pub fn pressed(&self) -> bool {
        self.free() <= PRESSURE_FREE
    }

    /// For status.
    #[must_use]
    pub fn health(&self) -> CacheHealth {
        match self.free() {
            free if free <= CRITICAL_FREE => CacheHealth::Critical,
            free if free <= WARNING_FREE => CacheHealth::Warning,
            _ => CacheHealth::Good,
        }
    }
}

/// In thousandths: exact enough for a share, and free of rounding surprises at the limits.
fn share(part: u64, whole: u64) -> f64 {
    let thousandths = u128::from(part) * 1000 / u128::from(whole);
    f64::from(u16::try_from(thousandths).unwrap_or(u16::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RQ-PS-6: the three limits, at and beside them.
    #[test]
    fn warnings_come_before_pressure() {
        let at = |used| {
            let cache = Cache::new(1000);
            cache.add(used);
            (cache.health(), cache.pressed())
        };
        assert_eq!(at(0), (CacheHealth::Good, false));
        assert_eq!(at(699), (CacheHealth::Good, false));
        assert_eq!(at(700), (CacheHealth::Warning, false));
        assert_eq!(at(749), (CacheHealth::Warning, false));
        assert_eq!(at(750), (CacheHealth::Critical, false));
        assert_eq!(at(799), (CacheHealth::Critical, false));
        assert_eq!(at(800), (CacheHealth::Critical, true));
        assert_eq!(at(5000), (CacheHealth::Critical, true));
        let cache = Cache::new(1000);
        cache.add(900);
        cache.remove(200);
        assert!(!cache.pressed());
        assert!(Cache::new(0).pressed());
    }
}
