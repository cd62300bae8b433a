use landfall_types::UnixNanos;
use std::time::Duration;

/// How much would be lost if the source died now: now − time of the newest durable legal point
/// (trap T-18).
///
/// It does not look at watermarks: in a window, in bitmap mode or with a dead agent everything
/// captured may be durable, and still nothing newer than that point can be recovered. It grows
/// while nobody reports, because the last known point grows older; it is `None` as long as there is
/// no point at all. A point from the future (the source's clock is ahead) counts as now.
#[must_use]
pub fn rpo(now: UnixNanos, newest_legal_point: Option<UnixNanos>) -> Option<Duration> {
    newest_legal_point.map(|point| Duration::from_nanos(now.since(point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Guards P5, T-18: a dead agent has "durable = captured", and the figure must grow all the
    /// same.
    #[test]
    fn t18_it_grows_without_contact_and_is_none_without_a_legal_point() {
        assert_eq!(rpo(UnixNanos(100 * SECOND), None), None);
        let point = Some(UnixNanos(90 * SECOND));
        let at = |second| rpo(UnixNanos(second * SECOND), point).expect("a point").as_secs();
        assert_eq!([at(90), at(100), at(100 + 3 * 3600)], [0, 10, 10 + 3 * 3600]);
        assert_eq!(at(80), 0, "the source's clock is ahead");
    }
}
