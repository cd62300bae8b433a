//! What the run shows to the outside.

use crate::progress::Tracker;
use landfall_api_types::ApiError;
use landfall_api_types::resource::CaptureMode;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Inner {
    capture: Option<(CaptureMode, String)>,
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
    /// How writes are captured, with the reason; `None` while they are not.
    pub fn set_capture(&self, capture: Option<(CaptureMode, String)>) {
        self.lock().capture = capture;
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
