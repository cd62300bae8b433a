//! How long what is on the retention volume will last, replica by replica.

use crate::hosted::Hosted;
use crate::target::Target;
use landfall_api_types::alert::{Condition, Severity};
use landfall_api_types::retention::{Outlook, RetentionStatus};
use landfall_api_types::{ApiError, codes};
use landfall_types::MachineId;
use landfall_volume::{Rates, ReplicaStatus, Room, ShortenCause, project};
use rustix::fs::statvfs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Room on the retention volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Volume {
    /// Its size in bytes.
    pub(crate) total: u64,
    /// Bytes that can still be written.
    pub(crate) free: u64,
}

impl Volume {
    /// Of the file system that a directory is on.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let stat = statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Self { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

/// The rate that decides who gets what of the free room: the faster one of hour and day.
fn decisive(rates: Option<Rates>) -> f64 {
    rates.map_or(0.0, |rates| rates.hour.max(rates.day))
}

impl Target {
    /// Ingest is stopped: raised at once, because the sources' RPO grows.
    pub(crate) fn ingest_condition(&self) -> Option<Condition> {
        let cause = "nothing is taken from sources: a machine runs from the retention volume, \
                     which has no more room";
        let error = ApiError::new(&codes::RETENTION_FULL, cause);
        let stopped = self.ingest_stopped.load(Ordering::Relaxed);
        stopped.then_some(Condition { severity: Severity::Critical, machine: None, error })
    }

    /// Bytes per second of all replicas together.
    pub(crate) fn total_rate(&self) -> f64 {
        self.all().iter().map(|hosted| decisive(hosted.replica.rates())).sum()
    }

    /// What is kept of a replica, and how long that will go well. The free room is shared in
    /// proportion to how fast each grows.
    pub(crate) fn retention_status(
        &self,
        hosted: &Arc<Hosted>,
        status: &ReplicaStatus,
        total_rate: f64,
    ) -> RetentionStatus {
        let volume = Volume::of(&self.options.retention_dir).unwrap_or_default();
        let rates = hosted.replica.rates();
        let own = decisive(rates);
        let share = if total_rate > 0.0 { (own / total_rate).min(1.0) } else { 1.0 };
        let of_volume = (volume.free as f64 * share) as u64;
        let of_limit = status.retention.size_bytes.unwrap_or(u64::MAX);
        let room = Room {
            keep_ms: status.retention.keep_ms(),
            history_ms: status.points.history_ms,
            used_bytes: status.journal_bytes,
            free_bytes: of_volume.min(of_limit.saturating_sub(status.journal_bytes)),
        };
        let projection = project(room, rates);
        let points = &status.points;
        RetentionStatus {
            policy: status.retention.clone(),
            listed: points.listed,
            thinned: points.thinned,
            pinned: points.pinned,
            oldest: points.oldest.map(|(lsn, _)| lsn),
            oldest_time: points.oldest.and_then(|(_, time)| time),
            history_s: points.history_ms / 1_000,
            used_bytes: status.journal_bytes,
            shortened: points.shortened.map(|one| cause_name(one.cause).to_owned()),
            rates: rates.map(|rates| [rates.minutes, rates.hour, rates.day]),
            outlook: match projection.outlook {
                landfall_volume::Outlook::Enough => Outlook::Enough,
                landfall_volume::Outlook::Short => Outlook::Short,
                landfall_volume::Outlook::Critical => Outlook::Critical,
            },
            fits_s: projection.fits_ms / 1_000,
            left_s: projection.left_ms.map(|ms| ms / 1_000),
            volume_free_bytes: volume.free,
            volume_bytes: volume.total,
        }
    }
}

const fn cause_name(cause: ShortenCause) -> &'static str {
    match cause {
        ShortenCause::SizeLimit => "size-limit",
        ShortenCause::VolumeFull => "volume-full",
    }
}

/// What of it needs somebody's attention: before history is lost, and when it was.
pub(crate) fn conditions(machine: MachineId, kept: &RetentionStatus) -> Vec<Condition> {
    let keep_s = kept.policy.keep_s;
    let severity = match kept.outlook {
        Outlook::Enough => None,
        Outlook::Short => Some(Severity::Warning),
        Outlook::Critical => Some(Severity::Critical),
    };
    let mut all = Vec::new();
    if let Some(why) = &kept.shortened {
        let why = match why.as_str() {
            "size-limit" => "the policy's limit of size",
            _ => "the retention volume has no more room",
        };
        let cause =
            format!("history is {} of {}: {why}", hours(kept.history_s.min(keep_s)), hours(keep_s));
        let error = ApiError::new(&codes::RETENTION_SHORTENED, cause);
        all.push(Condition { severity: Severity::Critical, machine: Some(machine), error });
    } else if let Some(severity) = severity {
        let when = kept.left_s.map_or_else(String::new, |left| {
            format!("; what is older begins to be lost in about {}", hours(left))
        });
        let cause = format!(
            "there is room for about {} of {} at the present rate{when}",
            hours(kept.fits_s),
            hours(keep_s)
        );
        let error = ApiError::new(&codes::RETENTION_SHORT, cause);
        all.push(Condition { severity, machine: Some(machine), error });
    }
    all
}

/// A length of time as people say it.
fn hours(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::RetentionPolicy;

    fn kept(outlook: Outlook, shortened: Option<&str>) -> RetentionStatus {
        RetentionStatus {
            policy: RetentionPolicy::default(),
            listed: 1,
            thinned: 0,
            pinned: 0,
            oldest: None,
            oldest_time: None,
            history_s: 7_200,
            used_bytes: 0,
            shortened: shortened.map(str::to_owned),
            rates: None,
            outlook,
            fits_s: 9 * 3_600,
            left_s: Some(7 * 3_600),
            volume_free_bytes: 0,
            volume_bytes: 0,
        }
    }

    /// P5: told beforehand, with how long it will go well; and told when it has happened.
    #[test]
    fn a_loss_of_history_is_told_before_and_after() {
        let machine = MachineId::from_bytes([1; 16]);
        let told = |kept: &RetentionStatus| {
            let one = conditions(machine, kept).pop();
            one.map(|one| (one.severity, one.error.code, one.error.cause))
        };
        assert_eq!(told(&kept(Outlook::Enough, None)), None);
        let (severity, code, cause) = told(&kept(Outlook::Short, None)).expect("told");
        assert_eq!((severity, code.as_str()), (Severity::Warning, "retention-short"));
        assert!(cause.contains("about 9 h of 24 h") && cause.contains("in about 7 h"), "{cause}");
        let (severity, code, cause) =
            told(&kept(Outlook::Critical, Some("volume-full"))).expect("told");
        assert_eq!((severity, code.as_str()), (Severity::Critical, "retention-shortened"));
        assert!(cause.contains("2 h of 24 h") && cause.contains("no more room"), "{cause}");
    }
}
