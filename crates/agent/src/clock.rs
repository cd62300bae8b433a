//! Wall time, for markers only: nothing is decided by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970; 0 where the clock stands before. A clock that was set back gives markers
/// whose times fall: the target lists them by their position, and an ambiguous time is refused
/// there (trap T-6).
pub(crate) fn unix_ns() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
