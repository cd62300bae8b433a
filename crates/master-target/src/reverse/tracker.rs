//! Progress of the comparison, as the report shows it: rate and time left.

use crate::hosted::lock;
use landfall_api_types::resource::{CatchUp, Progress};
use landfall_types::{Lsn, WindowMode, WindowReason};
use std::sync::Mutex;
use std::time::Instant;

/// Weight of the newest interval in the rate.
const RATE_WEIGHT: f64 = 0.4;
/// Seconds between two looks at the rate.
const RATE_INTERVAL_S: f64 = 0.5;

struct Running {
    catch_up: CatchUp,
    sample: (Instant, u64),
    closing: Option<Lsn>,
}

/// The running or last comparison.
#[derive(Default)]
pub(crate) struct Tracker(Mutex<Option<Running>>);

impl Tracker {
    /// One begins.
    pub(crate) fn begin(&self, estimate_bytes: Option<u64>) {
        let progress = Progress { phase: "comparing".to_owned(), ..Progress::default() };
        let catch_up = CatchUp {
            reason: WindowReason::Reprotect,
            mode: WindowMode::Compare,
            estimate_bytes,
            progress,
            finished: false,
        };
        *lock(&self.0) = Some(Running { catch_up, sample: (Instant::now(), 0), closing: None });
    }

    /// So much is to be looked at.
    pub(crate) fn total(&self, total_bytes: u64) {
        if let Some(running) = &mut *lock(&self.0) {
            running.catch_up.progress.total_bytes = total_bytes;
        }
    }

    /// Bytes were looked at, and some of them had to be sent.
    pub(crate) fn advance(&self, done: u64, sent: u64) {
        let mut running = lock(&self.0);
        let Some(running) = &mut *running else { return };
        let progress = &mut running.catch_up.progress;
        progress.done_bytes += done;
        progress.sent_bytes += sent;
        let elapsed = running.sample.0.elapsed().as_secs_f64();
        if elapsed < RATE_INTERVAL_S {
            return;
        }
        let newest = float(progress.done_bytes - running.sample.1) / elapsed;
        let old = progress.rate_bytes_per_s;
        let mixed = if old == 0.0 { newest } else { old + RATE_WEIGHT * (newest - old) };
        progress.rate_bytes_per_s = mixed;
        running.sample = (Instant::now(), progress.done_bytes);
        let left = float(progress.total_bytes.saturating_sub(progress.done_bytes));
        progress.eta_s = (mixed > 0.0).then(|| left / mixed);
    }

    /// Its window is closed, and the marker behind it stands at `lsn`.
    pub(crate) fn closed(&self, lsn: Lsn) {
        if let Some(running) = &mut *lock(&self.0) {
            running.closing = Some(lsn);
            "closing".clone_into(&mut running.catch_up.progress.phase);
        }
    }

    /// True once its window is closed.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|running| running.closing.is_some())
    }

    /// For the report: finished once its closing is durable at the target.
    pub(crate) fn report(&self, durable_at_target: Lsn) -> Option<CatchUp> {
        let mut running = lock(&self.0);
        let running = running.as_mut()?;
        if running.closing.is_some_and(|closing| closing <= durable_at_target) {
            running.catch_up.finished = true;
            "done".clone_into(&mut running.catch_up.progress.phase);
            running.catch_up.progress.eta_s = Some(0.0);
        }
        Some(running.catch_up.clone())
    }
}

/// For rates only, where the last digits mean nothing.
#[allow(clippy::cast_precision_loss, reason = "a rate shown to people")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
