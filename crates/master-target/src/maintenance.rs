//! What must always hold and nobody orders: folds that were cut off are ended, committed forks and
//! expired records are folded, what is kept is read again from time to time, what could not be
//! opened is tried again.

use crate::errors;
use crate::hosted::Hosted;
use crate::pace::Pace;
use crate::relief;
use crate::reverse::wall_time_ns;
use crate::rot;
use crate::target::Target;
use landfall_blockdev::Rank;
use landfall_volume::{Due, DueCause, FoldError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Time between two looks: short against any retention, long against the cost of a look.
const INTERVAL: Duration = Duration::from_secs(2);
/// Looks between two attempts to open what could not be opened.
const RETRY_EVERY: u32 = 5;
/// Looks between two questions whether a scrub is due, or can go on.
const SCRUB_EVERY: u32 = 30;
/// From the end of a scrub to the next one: shorter than the time in which a second copy of the
/// same block is likely to rot.
const SCRUB_INTERVAL_S: u64 = 7 * 24 * 3600;
/// Bytes a second that one replica's scrub reads at most.
const SCRUB_BYTES_PER_S: u64 = 32 << 20;

/// Runs until `shutdown`.
pub async fn run(target: Arc<Target>, shutdown: CancellationToken) {
    let started = Instant::now();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for look in 0_u32.. {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = interval.tick() => {}
        }
        target.reopen_failed().await;
        let wanted = wanted_back(&target).await;
        let give_up = target.relieve().await;
        for hosted in target.all() {
            let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            relief::mark(&hosted, now_ms).await;
            rot::look(&hosted).await;
            let bytes = give_up.get(&hosted.replica.id()).copied().unwrap_or(0).max(wanted);
            let limit = target.options.fold_bytes_per_s;
            fold(&hosted, (now_ms, bytes), limit, &shutdown).await;
        }
        if look % SCRUB_EVERY == 0 {
            target.all().iter().for_each(|hosted| scrub(hosted, &shutdown));
        }
        if look % RETRY_EVERY == 0 {
            target.retry_problems().await;
        }
    }
    // So that nothing of anybody's age is forgotten.
    for hosted in target.all() {
        hosted.with(landfall_volume::Replica::save_points).await;
    }
}

/// What each replica should give up of its history, in bytes: only where a machine runs from a
/// branch here and would stop for want of room. Test branches are refused before that, and others'
/// records after it (trap T-21). Without such a branch a full volume stops the ingest, which says
/// so, instead of shortening what was promised.
async fn wanted_back(target: &Arc<Target>) -> u64 {
    let all = target.all();
    if !all.iter().any(|hosted| hosted.replica.authority().is_some()) {
        return 0;
    }
    let target = Arc::clone(target);
    let missing = crate::blocking::blocking(move || {
        target.vault.room().missing(Rank::History, target.vault.segment_bytes())
    });
    match missing.await {
        Ok(bytes) => bytes.div_ceil(all.len() as u64),
        Err(error) => {
            let error = errors::chain(&error);
            tracing::warn!(error, "the retention volume does not say how much is free");
            0
        }
    }
}

/// Starts a fold where one is due and none runs. It is not waited for: its pace may keep it for
/// hours, and the ages of records are noted by every look.
async fn fold(
    hosted: &Arc<Hosted>,
    (now_ms, give_up_bytes): (u64, u64),
    limit: Option<u64>,
    shutdown: &CancellationToken,
) {
    match hosted.with(move |replica| replica.retain(now_ms, give_up_bytes)).await {
        Ok(Some(due)) if !hosted.folding.swap(true, Ordering::AcqRel) => {
            let (hosted, shutdown) = (Arc::clone(hosted), shutdown.clone());
            tokio::spawn(async move {
                let held = Arc::clone(&hosted);
                let folded = hosted.with(move |replica| {
                    let pace = Pace::new(limit, || held.activity(), shutdown);
                    let bytes = replica.fold_paced(due.to, &pace)?;
                    if let DueCause::Room(cause) = due.cause {
                        replica.note_shortened(cause)?;
                    }
                    Ok((due, bytes))
                });
                ended(&hosted, folded.await);
                hosted.folding.store(false, Ordering::Release);
            });
        }
        Ok(_) => {}
        Err(error) => failed(hosted, &error.into()),
    }
}

fn ended(hosted: &Hosted, folded: Result<(Due, u64), FoldError>) {
    match folded {
        Ok((Due { to, cause }, bytes)) => {
            tracing::info!(replica = %hosted.replica.id(), %to, ?cause, bytes, "image folded");
        }
        // Something was pinned, or the role changed, between the look and the fold, or the process
        // ends: the next look finds it.
        Err(
            FoldError::Pinned { .. }
            | FoldError::WrongRole(_)
            | FoldError::DivergenceKept { .. }
            | FoldError::Stopped,
        ) => {}
        Err(error) => failed(hosted, &error),
    }
}

fn failed(hosted: &Hosted, error: &FoldError) {
    let (replica, error) = (hosted.replica.id(), errors::chain(error));
    tracing::error!(%replica, error, "the image can't be folded");
}

/// Starts a scrub where one is due and none runs, or goes on with one that was stopped.
fn scrub(hosted: &Arc<Hosted>, shutdown: &CancellationToken) {
    let now_s = wall_time_ns() / 1_000_000_000;
    let Ok((last, running)) = hosted.replica.scrub_reports() else { return };
    let fresh = last.and_then(|report| report.finished_s).is_some_and(|finished| {
        // A clock that was set back makes it due.
        finished <= now_s && now_s - finished < SCRUB_INTERVAL_S
    });
    if (fresh && running.is_none()) || hosted.scrubbing.swap(true, Ordering::AcqRel) {
        return;
    }
    let (hosted, shutdown) = (Arc::clone(hosted), shutdown.clone());
    tokio::spawn(async move {
        let held = Arc::clone(&hosted);
        let scrubbed = hosted.with(move |replica| {
            let pace = Pace::new(Some(SCRUB_BYTES_PER_S), || held.activity(), shutdown);
            replica.scrub(&pace, now_s)
        });
        let replica = hosted.replica.id();
        match scrubbed.await {
            Ok(report) if !report.rot.is_empty() => {
                tracing::error!(%replica, code = "corrupt", rot = ?report.rot, "data has rotted");
            }
            Ok(report) if report.finished_s.is_some() => {
                tracing::info!(%replica, ?report, "all that is kept is what was written");
            }
            Ok(_) => {}
            Err(error) => {
                let error = errors::chain(&error);
                tracing::error!(%replica, error, "what is kept can't be read");
            }
        }
        hosted.scrubbing.store(false, Ordering::Release);
    });
}
