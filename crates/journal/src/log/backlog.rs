//! Complete frames on their way to the disk: who writes which, and who waits for it.
//!
//! A frame waits until someone claims it: a thread of the pool while the append goes on copying, or
//! the flush itself. So no frame is written twice at a time, and a flush never waits for a thread
//! that has not begun.

use crate::{JournalError, Position};
use landfall_blockdev::{AlignedBuf, File};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

const WAITS: u8 = 0;
const IS_WRITTEN_NOW: u8 = 1;
const WRITTEN: u8 = 2;

/// A frame in memory that is complete; its bytes never change any more.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Bytes from the segment's start.
    pub(crate) offset: u64,
    pub(crate) bytes: AlignedBuf,
    /// The position after it.
    pub(crate) position: Position,
    stage: AtomicU8,
}

impl Frame {
    pub(crate) const fn new(offset: u64, bytes: AlignedBuf, position: Position) -> Self {
        Self { offset, bytes, position, stage: AtomicU8::new(WAITS) }
    }

    /// True for the one caller that has to write it now.
    fn claim(&self) -> bool {
        let exchanged =
            self.stage.compare_exchange(WAITS, IS_WRITTEN_NOW, Ordering::AcqRel, Ordering::Acquire);
        exchanged.is_ok()
    }

    pub(crate) fn is_written(&self) -> bool {
        self.stage.load(Ordering::Acquire) == WRITTEN
    }

    pub(crate) fn waits(&self) -> bool {
        self.stage.load(Ordering::Acquire) == WAITS
    }

    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// What a log shares with the threads that write for it.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    state: Mutex<BacklogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BacklogState {
    /// Jobs that are writing.
    active: usize,
    /// The log is going away: no job begins any more.
    closed: bool,
    /// What a job failed with, until somebody is told.
    failed: Option<JournalError>,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes those of the frames that nobody has claimed. Frames without a gap between them become
    /// one request.
    ///
    /// When it fails, the frames wait again: the same bytes go to the same place when there is
    /// room.
    pub(crate) fn write(&self, file: &dyn File, frames: &[Arc<Frame>]) -> Result<(), JournalError> {
        let mut result = Ok(());
        let mut number = 0;
        while number < frames.len() {
            let mut run = Vec::new();
            while let Some(frame) = frames.get(number).filter(|frame| {
                run.last().is_none_or(|last: &&Arc<Frame>| last.end() == frame.offset)
                    && frame.claim()
            }) {
                run.push(frame);
                number += 1;
            }
            let Some(first) = run.first() else {
                number += 1;
                continue;
            };
            let parts: Vec<&[u8]> = run.iter().map(|frame| &*frame.bytes).collect();
            result = match result {
                Ok(()) => file
                    .write_all_at(first.offset, &parts)
                    .map_err(JournalError::device("write to the log")),
                error => error,
            };
            let stage = if result.is_ok() { WRITTEN } else { WAITS };
            // Under the lock, so that nobody looks before and waits after.
            let _state = self.lock();
            run.iter().for_each(|frame| frame.stage.store(stage, Ordering::Release));
            self.changed.notify_all();
        }
        result
    }

    /// What a thread of the pool does.
    pub(crate) fn write_as_helper(&self, file: &dyn File, frames: Vec<Arc<Frame>>) {
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.active += 1;
        }
        let result = self.write(file, &frames);
        // Before anyone is told: whoever waits wants to use their memory again.
        drop(frames);
        let mut state = self.lock();
        state.active -= 1;
        if let Err(error) = result {
            state.failed.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Returns when none of the frames is being written by someone else.
    pub(crate) fn wait(&self, frames: &[Arc<Frame>]) {
        let mut state = self.lock();
        while frames.iter().any(|frame| !frame.is_written() && !frame.waits()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What a job failed with since the last call.
    pub(crate) fn take_failure(&self) -> Option<JournalError> {
        self.lock().failed.take()
    }

    /// Returns when no job writes, and none ever will: a late write would hit the log that the next
    /// opening has recovered.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        while state.active > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
