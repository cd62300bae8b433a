//! How far the first copy is: survives the load of the capture.

use landfall_repl::ImageCopyPosition;
use landfall_types::{DiskIndex, Incarnation};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Copy {
    position: Option<ImageCopyPosition>,
    /// Of the capture under which it has been going on since its beginning.
    since: Option<Incarnation>,
}

/// The first copy, if one is under way.
#[derive(Default)]
pub(crate) struct ImageProgress(Mutex<Copy>);

impl ImageProgress {
    /// The copy, if one has begun and not ended.
    pub(crate) fn unfinished(&self) -> Option<ImageCopyPosition> {
        self.lock().position.clone()
    }

    /// True when one is under way that began under this load of the capture.
    pub(crate) fn is_of(&self, incarnation: Incarnation) -> bool {
        let copy = self.lock();
        copy.position.is_some() && copy.since == Some(incarnation)
    }

    /// One begins or goes on; `since` when it is known that it began under that load.
    pub(crate) fn set(&self, position: ImageCopyPosition, since: Option<Incarnation>) {
        *self.lock() = Copy { position: Some(position), since };
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        *self.lock() = Copy::default();
    }

    /// This disk is in the image up to `through`.
    pub(crate) fn advance(&self, disk: DiskIndex, through: u64) {
        if let Some(copy) = &mut self.lock().position {
            copy.durable_bytes.retain(|(other, _)| *other != disk);
            copy.durable_bytes.push((disk, through));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Copy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
