//! What the run shows to the outside.

use crate::progress::Tracker;
use landfall_api_types::ApiError;
use landfall_api_types::resource::{CaptureMode, DiskCapture};
use landfall_capture::{Capture, Mode};
use landfall_types::DiskIndex;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const DATA_REASON: &str = "eBPF, self-test passed";

#[derive(Default)]
struct Inner {
    disks: Vec<DiskCapture>,
    capture: Option<(CaptureMode, String)>,
    returns: u64,
    losses: BTreeMap<&'static str, u64>,
    problem: Option<ApiError>,
}

/// Shared by the run, which writes it, and the report, which reads it.
#[derive(Default)]
pub struct Status {
    inner: Mutex<Inner>,
    /// The running or last catch-up.
    pub catch_up: Tracker,
}

impl Status {
    /// How each disk is captured now. The machine's mode is that of its worst disk.
    pub fn show_modes(&self, capture: &Capture) {
        let shown = |(disk, _): &(DiskIndex, landfall_capture::Disk)| {
            let (mode, reason) = match capture.mode(*disk) {
                Mode::Data => (CaptureMode::Data, DATA_REASON),
                Mode::Bitmap(reason) => (CaptureMode::Bitmap, reason.code()),
            };
            DiskCapture { disk: *disk, mode, reason: reason.to_owned() }
        };
        let disks: Vec<DiskCapture> = capture.disks().iter().map(shown).collect();
        let mut inner = self.lock();
        let worst = disks.iter().find(|disk| disk.mode != CaptureMode::Data).or(disks.first());
        inner.capture = worst.map(|disk| (disk.mode, disk.reason.clone()));
        inner.disks = disks;
    }

    /// The capture is being loaded anew.
    pub fn loading(&self) {
        let mut inner = self.lock();
        let reason = "capture is being loaded anew".to_owned();
        inner.capture = Some((CaptureMode::Compare, reason));
        inner.disks.clear();
    }

    /// Nothing is captured any more.
    pub fn end_capture(&self) {
        let mut inner = self.lock();
        inner.capture = None;
        inner.disks.clear();
    }

    /// A disk went back to data mode.
    pub fn count_return(&self) {
        self.lock().returns += 1;
    }

    /// How each disk is captured.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskCapture> {
        self.lock().disks.clone()
    }

    /// How often a disk went back to data mode.
    #[must_use]
    pub fn returns(&self) -> u64 {
        self.lock().returns
    }

    /// Capture was lost: an event with a reason code, counted and shown (design section 4).
    pub fn count_loss(&self, code: &'static str) {
        *self.lock().losses.entry(code).or_default() += 1;
    }

    /// What is wrong at present.
    pub fn set_problem(&self, problem: Option<ApiError>) {
        self.lock().problem = problem;
    }

    /// How writes are captured, with the reason.
    #[must_use]
    pub fn capture(&self) -> Option<(CaptureMode, String)> {
        self.lock().capture.clone()
    }

    /// How often capture was lost, by reason code.
    #[must_use]
    pub fn losses(&self) -> Vec<(String, u64)> {
        self.lock().losses.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
    }

    /// What is wrong at present.
    #[must_use]
    pub fn problem(&self) -> Option<ApiError> {
        self.lock().problem.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
