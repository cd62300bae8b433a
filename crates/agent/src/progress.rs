//! Progress of a catch-up, as the report shows it: rate and time left.

use landfall_api_types::resource::{CatchUp, Progress};
use landfall_types::{Lsn, WindowMode, WindowReason};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Weight of the newest second in the rate.
const RATE_WEIGHT: f64 = 0.4;
/// Seconds between two looks at the rate.
const RATE_INTERVAL_S: f64 = 0.5;

struct Running {
    catch_up: CatchUp,
    sample: (Instant, u64),
    closing: Option<Lsn>,
}

/// The running or last catch-up.
#[derive(Default)]
pub struct Tracker(Mutex<Option<Running>>);

impl Tracker {
    /// One begins.
    pub fn begin(&self, reason: WindowReason, mode: WindowMode, estimate: Option<u64>) {
        let catch_up = CatchUp {
            reason,
            mode,
            estimate_bytes: estimate,
            progress: Progress::default(),
            finished: false,
        };
        *self.lock() = Some(Running { catch_up, sample: (Instant::now(), 0), closing: None });
    }

    /// What it is expected to send became known.
    pub fn estimate(&self, bytes: u64) {
        if let Some(running) = &mut *self.lock() {
            running.catch_up.estimate_bytes = Some(bytes);
        }
    }

    /// A phase of it begins.
    pub fn phase(&self, phase: &str, done_bytes: u64, total_bytes: u64) {
        if let Some(running) = &mut *self.lock() {
            let sent_bytes = running.catch_up.progress.sent_bytes;
            let phase = phase.to_owned();
            running.catch_up.progress =
                Progress { phase, done_bytes, total_bytes, sent_bytes, ..Progress::default() };
            running.sample = (Instant::now(), done_bytes);
        }
    }

    /// Bytes were looked at, and some of them sent.
    pub fn advance(&self, done: u64, sent: u64) {
        let mut lock = self.lock();
        let Some(running) = &mut *lock else { return };
        let progress = &mut running.catch_up.progress;
        progress.done_bytes += done;
        progress.sent_bytes += sent;
        let elapsed = running.sample.0.elapsed().as_secs_f64();
        if elapsed < RATE_INTERVAL_S {
            return;
        }
        let newest = float(progress.done_bytes - running.sample.1) / elapsed;
        let old = progress.rate_bytes_per_s;
        progress.rate_bytes_per_s =
            if old == 0.0 { newest } else { old + RATE_WEIGHT * (newest - old) };
        running.sample = (Instant::now(), progress.done_bytes);
        let left = float(progress.total_bytes.saturating_sub(progress.done_bytes));
        progress.eta_s =
            (progress.rate_bytes_per_s > 0.0).then(|| left / progress.rate_bytes_per_s);
    }

    /// Its window was closed by the record at `lsn`.
    pub fn closed(&self, lsn: Lsn) {
        if let Some(running) = &mut *self.lock() {
            running.closing = Some(lsn);
            running.catch_up.progress.phase = "closing".to_owned();
        }
    }

    /// For the report: finished once its closing is durable at the target.
    #[must_use]
    pub fn report(&self, durable_at_target: Lsn) -> Option<CatchUp> {
        let mut lock = self.lock();
        let running = lock.as_mut()?;
        if running.closing.is_some_and(|closing| closing <= durable_at_target) {
            running.catch_up.finished = true;
            running.catch_up.progress.phase = "done".to_owned();
            running.catch_up.progress.eta_s = Some(0.0);
        }
        Some(running.catch_up.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For rates only, where the last digits mean nothing.
#[allow(clippy::cast_precision_loss)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
