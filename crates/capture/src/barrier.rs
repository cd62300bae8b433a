//! Waits for writes in flight, without ever touching a queue (trap T-21).
//!
//! Two kinds are in flight when capture begins. Those that the hook has seen are tracked one by
//! one. Those submitted before it was attached are not: for them we wait for a moment in which the
//! kernel counts none. A disk that is never idle may have no such moment; after
//! [`crate::Options::settle_max`] we go on, and from then on a write that ends without having been
//! seen ends data mode ([`crate::LostReason::Beside`]): found, instead of lost.

use crate::layout::control;
use crate::{Capture, CaptureError, State};
use libbpf_rs::{MapCore, MapFlags};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Whether writes that the hook has not seen end data mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Armed {
    No,
    Yes(Quiet),
}

/// How it is known that no write from before the capture is in flight any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quiet {
    /// Each disk was seen without any.
    Seen,
    /// A disk was never idle; the guard watches.
    Guarded,
}

const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(2);

impl Capture {
    /// Waits until all writes that are in flight now have ended: what is read from the disks
    /// afterwards contains every write that is not in the ring behind the head of this moment.
    ///
    /// # Errors
    /// [`CaptureError::Barrier`] when a write has not ended within `max`; [`CaptureError::Lost`]
    /// when data mode ended.
    pub fn barrier(&self, max: Duration) -> Result<Quiet, CaptureError> {
        let begun = Instant::now();
        let through = self.program.control.word(control::SEQUENCE).load(Ordering::SeqCst);
        let mut pause = PAUSE_MIN;
        loop {
            let in_flight = self.in_flight_before(through)?;
            if in_flight == 0 {
                break;
            }
            let waited = begun.elapsed();
            if waited >= max {
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return Err(CaptureError::Barrier { in_flight, waited_ms });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        let quiet = self.settle()?;
        match self.state() {
            State::Data => Ok(quiet),
            State::Lost(loss) => Err(CaptureError::Lost(loss.reason)),
        }
    }

    /// Waits for the writes from before the capture; only the first time.
    fn settle(&self) -> Result<Quiet, CaptureError> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Armed::Yes(quiet) = *armed {
            return Ok(quiet);
        }
        let begun = Instant::now();
        let mut waiting: Vec<_> = self.disks.iter().map(|(_, disk)| disk).collect();
        let mut quiet = Quiet::Seen;
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for disk in waiting {
                if disk.in_flight()? != 0 {
                    still.push(disk);
                }
            }
            waiting = still;
            if !waiting.is_empty() {
                if begun.elapsed() >= self.options.settle_max {
                    quiet = Quiet::Guarded;
                    break;
                }
                std::thread::sleep(PAUSE_MIN);
            }
        }
        self.program.control.word(control::GUARD_BESIDE).store(1, Ordering::SeqCst);
        *armed = Armed::Yes(quiet);
        Ok(quiet)
    }

    /// Tracked writes that were submitted before the `through`th. Entries come and go while we
    /// look, which is harmless: one that comes is newer, and one that we see twice or not at all is
    /// looked for again.
    fn in_flight_before(&self, through: u64) -> Result<usize, CaptureError> {
        let flights = &self.program.flights;
        let mut count = 0;
        for key in flights.keys() {
            let value = flights
                .lookup(&key, MapFlags::ANY)
                .map_err(|source| CaptureError::Program { step: "look at the flights", source })?;
            let sequence = value.and_then(|value| value.first_chunk().copied());
            if sequence.is_some_and(|sequence| u64::from_ne_bytes(sequence) < through) {
                count += 1;
            }
        }
        Ok(count)
    }
}
