//! What has rotted here: the source is asked for exactly that, and people are told (trap T-20).
//!
//! The question stands in the position that a session begins with. Whatever is new in it, or has
//! been answered, ends the session that is open: the next one begins with the question of then.

use crate::hosted::{Hosted, lock};
use landfall_api_types::alert::{Condition, Severity};
use landfall_api_types::{ApiError, codes};
use landfall_repl::limits::ROTTEN_RANGES_MAX;
use landfall_types::{ByteRange, DiskIndex, MachineId};
use landfall_volume::{Corrupt, Replica};
use std::sync::Arc;

/// What the source of a replica is asked for.
pub(crate) fn to_ask(replica: &Replica) -> Vec<(DiskIndex, ByteRange)> {
    let mut rotten =
        replica.recheck_rot().and_then(|()| replica.rotten()).unwrap_or_else(|error| {
            let (replica, error) = (replica.id(), crate::errors::chain(&error));
            tracing::error!(%replica, error, "what has rotted can't be told");
            vec![]
        });
    rotten.truncate(ROTTEN_RANGES_MAX);
    rotten
}

/// Looks whether the source has to be asked for something new, or need not be asked any more.
pub(crate) async fn look(hosted: &Arc<Hosted>) {
    let rotten = hosted.with(to_ask).await;
    let (connected, asked) = {
        let sessions = lock(&hosted.sessions);
        (sessions.connected, sessions.asked.clone())
    };
    let within = |(disk, range): &(DiskIndex, ByteRange)| {
        asked.iter().any(|(same, outer)| {
            same == disk && outer.start <= range.start && range.end <= outer.end
        })
    };
    let answered = rotten.is_empty() && !asked.is_empty();
    if connected && (answered || !rotten.iter().all(within)) {
        let replica = hosted.replica.id();
        match answered {
            true => tracing::info!(%replica, "the source has sent again what had rotted"),
            false => tracing::warn!(%replica, ?rotten, "the source is asked for what has rotted"),
        }
        hosted.end_session();
    }
}

/// What people should know of it.
pub(crate) fn condition(machine: MachineId, corrupt: &[Corrupt]) -> Option<Condition> {
    let first = corrupt.iter().map(|one| one.first).min()?;
    let waiting = corrupt.iter().any(|one| one.last.is_none());
    let through = corrupt.iter().filter_map(|one| one.last).max();
    let bytes: u64 = corrupt.iter().map(|one| one.range.len()).sum();
    let places = corrupt.len();
    let what = format!("{bytes} bytes at {places} places of what is kept have rotted");
    let (severity, cause, cure) = match through {
        Some(through) if !waiting => (
            Severity::Warning,
            format!("{what}: points from {first} to {through} can't be had whole; later ones can"),
            "check the device; choose a point outside of that range",
        ),
        _ => (
            Severity::Critical,
            format!("{what}: points from {first} on can't be had whole"),
            "check the device, and see that the source is connected: it is asked for these ranges, \
             and points after its answer are good",
        ),
    };
    let error = ApiError::new(&codes::CORRUPT, cause).cure(cure);
    Some(Condition { severity, machine: Some(machine), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::Lsn;

    /// P5: told while nothing newer can be had either, and told which points stay lost.
    #[test]
    fn t20_the_points_that_stay_corrupt_are_named() {
        let machine = MachineId::from_bytes([1; 16]);
        let rot = |first, last: Option<u64>| Corrupt {
            disk: DiskIndex(0),
            range: ByteRange { start: 0, end: 4096 },
            first: Lsn::new(first),
            last: last.map(Lsn::new),
        };
        assert_eq!(condition(machine, &[]), None);
        let told = |corrupt: &[Corrupt]| {
            let one = condition(machine, corrupt).expect("told");
            (one.severity, one.error.cause)
        };
        let (severity, cause) = told(&[rot(9, None), rot(4, Some(6))]);
        assert_eq!(severity, Severity::Critical);
        assert!(cause.contains("from 4 on") && cause.contains("8192 bytes"), "{cause}");
        let (severity, cause) = told(&[rot(9, Some(12)), rot(4, Some(6))]);
        assert_eq!(severity, Severity::Warning);
        assert!(cause.contains("from 4 to 12"), "{cause}");
    }
}
