//! What must always hold and nobody orders: folds that were cut off are ended, committed forks and
//! expired records are folded, what could not be opened is tried again.

use crate::errors;
use crate::hosted::{Hosted, lock};
use crate::target::Target;
use landfall_types::Lsn;
use landfall_volume::{FoldError, ImageOwner, OLD_DISKS, Replica, StorageError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Time between two looks: short against any retention, long against the cost of a look.
const INTERVAL: Duration = Duration::from_secs(2);
/// Looks between two attempts to open what could not be opened.
const RETRY_EVERY: u32 = 5;

/// Runs until `shutdown`.
pub(crate) async fn run(target: Arc<Target>, shutdown: CancellationToken) {
    let started = Instant::now();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for look in 0_u32.. {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = interval.tick() => {}
        }
        for hosted in target.all() {
            let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            fold(&hosted, now_ms).await;
        }
        if look % RETRY_EVERY == 0 {
            target.retry_problems().await;
        }
    }
}

async fn fold(hosted: &Arc<Hosted>, now_ms: u64) {
    let held = Arc::clone(hosted);
    let folded = hosted.with(move |replica| match due(&held, replica, now_ms)? {
        Some(to) => replica.fold(to).map(|bytes| Some((to, bytes))),
        None => Ok(None),
    });
    match folded.await {
        Ok(Some((to, bytes))) => {
            tracing::info!(replica = %hosted.replica.id(), %to, bytes, "image folded");
        }
        Ok(None) => {}
        // Something was pinned, or the role changed, between the look and the fold: the next look
        // finds it.
        Err(
            FoldError::Pinned { .. } | FoldError::WrongRole(_) | FoldError::DivergenceKept { .. },
        ) => {}
        Err(error) => {
            let (replica, error) = (hosted.replica.id(), errors::chain(&error));
            tracing::error!(%replica, error, "the image can't be folded");
        }
    }
}

/// Where the image should go now.
fn due(hosted: &Hosted, replica: &Replica, now_ms: u64) -> Result<Option<Lsn>, StorageError> {
    if let Some(cut_off) = replica.fold_pending()? {
        // A release that was cut off is gone on with by its order, with its undo.
        return Ok(replica.fold_limit(cut_off)?.filter(|to| *to == cut_off));
    }
    let status = replica.status()?;
    let expired = {
        let mut retention = lock(&hosted.retention);
        retention.sample(now_ms, status.durable.lsn);
        retention.expired(now_ms, status.retention_s.saturating_mul(1_000))
    };
    // Home's disks are touched by the release alone, which keeps the undo (traps T-13, T-15).
    let home = status.disks.iter().any(|disk| disk.owner == ImageOwner::Foreign)
        && status.divergence.iter().any(|entry| entry.name == OLD_DISKS);
    if home {
        return Ok(None);
    }
    let wanted = expired.unwrap_or(Lsn::ZERO).max(status.points_from);
    replica.fold_limit(wanted)
}
