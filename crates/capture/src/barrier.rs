//! Waits for writes in flight, without ever touching a queue (trap T-21).
//!
//! Two kinds are in flight when capture begins. Those that the hook has seen are tracked one by
//! one. Those submitted before it was attached are not: for them we wait for a moment in which the
//! kernel counts none. A disk that is never idle may have no such moment; after
//! [`crate::Options::settle_max`] we go on, and from then on a write that ends without having been
//! seen ends data mode ([`crate::LostReason::Beside`]): found, instead of lost.

use crate::disk::Disk;
use crate::layout::{self, SKY_WORDS, control, flight, target};
use crate::maps::membarrier;
use crate::{Capture, CaptureError};
use landfall_types::ByteRange;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// A tracked write: its place and its key, by which a later look knows it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flight {
    place: usize,
    key: u64,
}

impl Capture {
    /// Waits until all writes that are in flight now have ended: what is read from the disks
    /// afterwards contains every write that is not in the ring behind the head of this moment.
    ///
    /// A write whose end was not seen (the kernel skips a program that interrupts itself) would be
    /// waited for without an end. After [`crate::Options::give_up_after`], when the kernel counts
    /// nothing in flight on the disks, it is taken for ended, and its range for unknown.
    ///
    /// # Errors
    /// [`CaptureError::Barrier`] when a write has not ended within `max`; [`CaptureError::Lost`]
    /// when the ring is broken.
    pub fn barrier(&self, max: Duration) -> Result<Quiet, CaptureError> {
        let begun = Instant::now();
        let suspects = self.suspects();
        let epoch = self.maps.word(control::EPOCH).fetch_add(1, Ordering::SeqCst);
        // Whoever has read the former number has noted its write by then.
        membarrier();
        let mut pause = PAUSE_MIN;
        loop {
            let waiting = self.in_flight_since(epoch);
            if waiting.is_empty() {
                break;
            }
            let waited = begun.elapsed();
            if waited >= self.options.give_up_after && self.kernel_counts_none()? {
                self.give_up(&waiting);
                continue;
            }
            if waited >= max {
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return Err(CaptureError::Barrier { in_flight: waiting.len(), waited_ms });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.forget_suspects(&suspects);
        let quiet = self.settle()?;
        match self.broken() {
            None => Ok(quiet),
            Some(loss) => Err(CaptureError::Lost(loss.reason)),
        }
    }

    /// Waits for writes that are not tracked: those from before the capture, and those that found
    /// no place in the table.
    fn settle(&self) -> Result<Quiet, CaptureError> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let untracked = self.maps.get(control::UNTRACKED);
        if let Some((seen, quiet)) = *settled
            && seen == untracked
        {
            return Ok(quiet);
        }
        let begun = Instant::now();
        let mut waiting: Vec<&Disk> = self.disks.iter().map(|(_, disk)| disk).collect();
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
        self.maps.set(control::GUARD_BESIDE, 1);
        *settled = Some((untracked, quiet));
        Ok(quiet)
    }

    fn kernel_counts_none(&self) -> Result<bool, CaptureError> {
        for (_, disk) in &self.disks {
            if disk.is_present() && disk.in_flight()? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tracked writes of this epoch or an earlier one. Entries come and go while we look, which is
    /// harmless: one that comes is newer, and one that goes has ended.
    fn in_flight_since(&self, epoch: u64) -> Vec<Flight> {
        let mut found = Vec::new();
        for place in 0..layout::FLIGHTS {
            let key = self.flight(place, flight::KEY).load(Ordering::SeqCst);
            // What is being filled in is newer than the barrier.
            let noted = key > layout::KEY_BUSY;
            if noted && self.flight(place, flight::EPOCH).load(Ordering::SeqCst) <= epoch {
                found.push(Flight { place, key });
            }
        }
        found
    }

    fn flight(&self, place: usize, offset: usize) -> &AtomicU64 {
        self.maps.flights.word(place * layout::FLIGHT_BYTES + offset)
    }

    /// Takes writes for ended whose end was not seen. Whether they failed was not seen either.
    fn give_up(&self, flights: &[Flight]) {
        let mut working = self.working();
        for Flight { place, key } in flights {
            let get = |offset| self.flight(*place, offset).load(Ordering::SeqCst);
            let (sector, word) = (get(flight::SECTOR), get(flight::BYTES));
            let (bytes, slot) = (word & u64::from(u32::MAX), word >> 32);
            let word = self.flight(*place, flight::KEY);
            if word.compare_exchange(*key, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                continue; // It has ended after all.
            }
            working.given_up += 1;
            tracing::warn!(slot, sector, bytes, "the end of a write was not seen");
            let slot = usize::try_from(slot).unwrap_or(usize::MAX);
            if slot < self.disks.len() {
                let range = ByteRange { start: sector * 512, end: sector * 512 + bytes };
                self.make_pending(&mut working, slot, range);
                working.unknown.push((self.disks[slot].0, range));
            }
        }
    }

    /// How many overlaps there were, and where blocks are suspect because of them.
    fn suspects(&self) -> (u64, Vec<(usize, u64)>) {
        let count = self.suspects_count();
        if count == self.working().suspects_forgotten {
            return (count, Vec::new());
        }
        let mut found = Vec::new();
        for word in SKY_WORDS..2 * SKY_WORDS {
            let bits = self.maps.sky.load(word * 8);
            if bits != 0 {
                found.push((word, bits));
            }
        }
        (count, found)
    }

    fn suspects_count(&self) -> u64 {
        (0..self.disks.len()).map(|slot| self.maps.target_get(slot, target::SUSPECTS)).sum()
    }

    /// All writes of blocks that were suspect have ended, unless one came meanwhile: then they stay
    /// suspect, because the one that ended first has cleared the sign of the other (trap T-22).
    fn forget_suspects(&self, (count, words): &(u64, Vec<(usize, u64)>)) {
        if words.is_empty() || self.suspects_count() != *count {
            return;
        }
        // Before the bits: an overlap that comes meanwhile says so again.
        self.maps.set(control::SUSPICIOUS, 0);
        for (word, bits) in words {
            self.maps.sky.word(word * 8).fetch_and(!bits, Ordering::SeqCst);
        }
        if self.suspects_count() == *count {
            self.working().suspects_forgotten = *count;
            return;
        }
        for (word, bits) in words {
            self.maps.sky.word(word * 8).fetch_or(*bits, Ordering::SeqCst);
        }
        self.maps.set(control::SUSPICIOUS, 1);
    }
}
