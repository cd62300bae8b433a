//! What replication may use of the link to the next hops, by a plan for the week.

use crate::RelayError;
use crate::store::{read_whole, replace};
use jiff::Zoned;
use landfall_blockdev::Dir;
use landfall_model::BandwidthPlan;
use landfall_transport::Limiter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Holds the plan that was ordered last, as text.
const FILE: &str = "bandwidth";
/// How often the clock is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The plan in force, and the limiter that all routes share.
#[derive(Debug)]
pub struct Bandwidth {
    dir: Arc<dyn Dir>,
    plan: Mutex<BandwidthPlan>,
    limiter: Arc<Limiter>,
}

impl Bandwidth {
    /// The plan that was ordered last, or `otherwise` where none was. `dir`: where it is kept.
    ///
    /// # Errors
    /// [`RelayError::Store`]; [`RelayError::Bandwidth`] when the file holds no plan.
    pub fn open(dir: Arc<dyn Dir>, otherwise: BandwidthPlan) -> Result<Self, RelayError> {
        let failed = |source| RelayError::Store { doing: "read the bandwidth plan", source };
        let plan = match read_whole(&*dir, FILE).map_err(failed)? {
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                text.trim().parse().map_err(RelayError::Bandwidth)?
            }
            None => otherwise,
        };
        let limiter = Arc::new(Limiter::new(limit_at(&plan, &Zoned::now())));
        Ok(Self { dir, plan: Mutex::new(plan), limiter })
    }

    /// Puts another plan into force, durably. Blocks on the disk.
    ///
    /// # Errors
    /// [`RelayError::Store`]: the former plan stays in force.
    pub fn set(&self, plan: BandwidthPlan) -> Result<(), RelayError> {
        let mut current = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |source| RelayError::Store { doing: "write the bandwidth plan", source };
        replace(&*self.dir, FILE, plan.to_string().as_bytes()).map_err(failed)?;
        tracing::info!(%plan, "a bandwidth plan was ordered");
        self.limiter.set(limit_at(&plan, &Zoned::now()));
        *current = plan;
        Ok(())
    }

    /// The plan in force.
    #[must_use]
    pub fn plan(&self) -> BandwidthPlan {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What all senders of this process server share.
    #[must_use]
    pub fn limiter(&self) -> Arc<Limiter> {
        Arc::clone(&self.limiter)
    }

    /// Follows the clock until `shutdown`.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = interval.tick() => {}
            }
            let limit = limit_at(&self.plan(), &Zoned::now());
            if limit != self.limiter.limit() {
                tracing::info!(bytes_per_s = ?limit, "another limit holds for the link now");
                self.limiter.set(limit);
            }
        }
    }
}

fn limit_at(plan: &BandwidthPlan, now: &Zoned) -> Option<u64> {
    let day = now.weekday().to_monday_zero_offset();
    let minute = i16::from(now.hour()) * 60 + i16::from(now.minute());
    plan.limit_at(day.unsigned_abs(), minute.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_blockdev::FsDir;

    #[test]
    fn the_clock_on_the_wall_decides() {
        let plan: BandwidthPlan = "unlimited, wed 08:00-18:00 1MiB/s".parse().expect("a plan");
        let at = |text: &str| limit_at(&plan, &text.parse().expect("a time"));
        // A Wednesday, where it is nine o'clock while it is still eight in UTC.
        assert_eq!(at("2026-11-18T09:00:00+01:00[Europe/Berlin]"), Some(1 << 20));
        assert_eq!(at("2026-11-18T18:00:00+01:00[Europe/Berlin]"), None);
        assert_eq!(at("2026-11-19T09:00:00+01:00[Europe/Berlin]"), None);
    }

    #[test]
    fn what_was_ordered_holds_after_a_restart() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir: Arc<dyn Dir> = Arc::new(FsDir::open(temp.path()).expect("opens"));
        let configured: BandwidthPlan = "64KiB/s".parse().expect("a plan");
        let open = || Bandwidth::open(Arc::clone(&dir), configured.clone()).expect("opens");
        assert_eq!(open().limiter().limit(), Some(64 << 10));
        open().set("2MiB/s".parse().expect("a plan")).expect("written");
        assert_eq!(open().limiter().limit(), Some(2 << 20));
        open().set("unlimited".parse().expect("a plan")).expect("written");
        assert_eq!(open().limiter().limit(), None, "what was configured is over");
    }
}
