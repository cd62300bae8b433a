//! The recovery point objective as it stands now (trap T-18).

use landfall_types::UnixNanos;

/// Nanoseconds of work that would be lost if the source died now: now − time of the newest durable *legal* point.
///
/// `None` without a legal point: not zero, not "soon". It grows while nothing new arrives, whatever the reason
/// (a dead agent, a window of hours, no contact), because it looks at nothing but that point (trap T-18).
#[must_use]
pub fn rpo_ns(now: UnixNanos, newest_durable_legal_point: Option<UnixNanos>) -> Option<u64> {
    newest_durable_legal_point.map(|time| now.since(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t18_rpo_grows_without_contact_and_is_never_zero_without_a_point() {
        let point = Some(UnixNanos(1_000));
        assert_eq!(rpo_ns(UnixNanos(1_500), point), Some(500));
        // Nothing new has arrived; all that was captured may be durable; it still grows.
        assert_eq!(rpo_ns(UnixNanos(9_000), point), Some(8_000));
        assert_eq!(rpo_ns(UnixNanos(9_000), None), None);
        // A clock set back shows no negative number.
        assert_eq!(rpo_ns(UnixNanos(10), point), Some(0));
    }
}
