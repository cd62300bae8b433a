//! What must always hold and nobody orders: folds that were cut off are ended, committed forks and
//! expired records are folded, what could not be opened is tried again.

use crate::errors;
use crate::hosted::Hosted;
use crate::target::Target;
use landfall_volume::{Due, DueCause, FoldError};
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
    let folded = hosted.with(move |replica| {
        let Some(due) = replica.retain(now_ms, 0)? else { return Ok(None) };
        let bytes = replica.fold(due.to)?;
        if let DueCause::Room(cause) = due.cause {
            replica.note_shortened(cause)?;
        }
        Ok(Some((due, bytes)))
    });
    match folded.await {
        Ok(Some((Due { to, cause }, bytes))) => {
            tracing::info!(replica = %hosted.replica.id(), %to, ?cause, bytes, "image folded");
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
