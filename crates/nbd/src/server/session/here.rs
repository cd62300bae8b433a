//! Requests that are carried out on the client's own thread: reads of what lies in memory, and
//! changes, whose groups are then made durable together.

use super::{Done, Lane, Session, Waiting};
use crate::operation::Answer;
use crate::proto::{Operation, Request};
use crate::server::output::{Cost, Filled};
use crate::{Change, Content, ExportError, Ticket};
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Groups of changes that wait for the storage at a time: one is flushed while the next one is
/// written.
const SETTLING_MAX: usize = 2;
/// Data up to this size are put together with other answers; larger ones are sent from a buffer of
/// their own.
const COMPOSED_BYTES_MAX: usize = 32 * 1024;
/// A read that takes longer, and longer than [`SLOW_PER_KIB`] for its length, had to wait for the
/// storage.
const SLOW: Duration = Duration::from_micros(200);
const SLOW_PER_KIB: Duration = Duration::from_micros(2);
/// So many reads are handed to other threads after a slow one, before the next is tried here.
const READS_AWAY: u32 = 64;

/// Decides where a read is carried out.
///
/// What lies in memory is read faster than another thread is woken; what does not would keep all
/// the requests behind it waiting, where several threads could wait for the storage at once. Which
/// of the two it is shows only afterwards, so the last read decides for the next ones.
#[derive(Debug, Default)]
pub(super) struct Pace {
    away: u32,
}

impl Pace {
    /// True when the next read is to be carried out here. `alone`: no other request is there that
    /// it could keep waiting.
    pub(super) const fn here(&mut self, alone: bool) -> bool {
        if alone || self.away == 0 {
            return true;
        }
        self.away -= 1;
        false
    }

    /// Learns how long a read took here.
    pub(super) fn took(&mut self, time: Duration, length: u32) {
        let usual = SLOW.max(SLOW_PER_KIB * (length / 1024));
        self.away = if time > usual { READS_AWAY } else { 0 };
    }
}

/// Changes that were taken in and are not durable yet.
#[derive(Default)]
pub(super) struct Group {
    ticket: Option<Ticket>,
    waiting: Waiting,
}

/// Why a read is not answered with data from here.
enum NotHere {
    /// The export can't.
    Unable,
    Failed(ExportError),
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Carries a request out on this thread; false when it has to go another way.
    pub(super) fn carry_out_here(
        &mut self,
        request: &Request,
        operation: Operation,
        payload: &Bytes,
        cost: Cost,
    ) -> bool {
        if self.lane == Lane::Shared {
            return false;
        }
        let change = match operation {
            Operation::Read { offset, length } => {
                let alone = self.running.is_empty() && self.input.is_idle();
                return self.pace.here(alone) && self.read_here(request, offset, length, cost);
            }
            Operation::Write { offset, .. } => Change::Write { offset, data: payload.clone() },
            Operation::Zero { offset, length } => Change::Zero { offset, length: length.into() },
            Operation::Trim { offset, length } => Change::Trim { offset, length: length.into() },
            Operation::Flush | Operation::Cache { .. } | Operation::Status { .. } => return false,
        };
        match self.opened.export.change_here(&change) {
            None => return false,
            Some(Ok(ticket)) => {
                self.group.ticket = self.group.ticket.max(Some(ticket));
                self.group.waiting.push((request.cookie, operation, cost));
            }
            Some(Err(error)) => self.fail(request.cookie, operation.effect(), &error, cost),
        }
        true
    }

    fn read_here(&mut self, request: &Request, offset: u64, length: u32, cost: Cost) -> bool {
        let export = self.opened.export.clone();
        let read = |out: &mut [u8]| match export.read_here(offset, out) {
            None => Err(NotHere::Unable),
            Some(Err(error)) => Err(NotHere::Failed(error)),
            // Taken away while it was read: nothing is told.
            Some(Ok(_)) if export.revoked() => Err(NotHere::Failed(ExportError::Revoked)),
            Some(Ok(Content::Data)) => Ok(Filled::Yes),
            Some(Ok(Content::Zeroes)) if self.structured => Ok(Filled::Unneeded),
            Some(Ok(Content::Zeroes)) => {
                out.fill(0);
                Ok(Filled::Yes)
            }
        };
        let head = self.replies.data(request.cookie, offset, length);
        let began = Instant::now();
        let size = length as usize;
        let outcome = if size <= COMPOSED_BYTES_MAX {
            self.output.compose(&head, size, cost, read)
        } else {
            let mut buffer = self.buffers.take(size);
            let outcome = read(&mut buffer);
            if matches!(outcome, Ok(Filled::Yes)) {
                self.output.push(&head, Some(buffer.freeze()), cost);
            }
            outcome
        };
        self.pace.took(began.elapsed(), length);
        match outcome {
            Ok(Filled::Yes) => {}
            Ok(Filled::Unneeded) => {
                let head = self.replies.hole(request.cookie, offset, length);
                self.output.push(&head, None, cost);
            }
            Err(NotHere::Unable) => return false,
            Err(NotHere::Failed(error)) => {
                let effect = Operation::Read { offset, length }.effect();
                self.fail(request.cookie, effect, &error, cost);
            }
        }
        true
    }

    /// Has the changes made durable that were taken in since the last time. Called when no further
    /// request is in sight: the longer a group is, the fewer flushes there are.
    pub(super) fn settle(&mut self) {
        let Some(ticket) = self.group.ticket.filter(|_| self.settling < SETTLING_MAX) else {
            return;
        };
        let waiting = std::mem::take(&mut self.group).waiting;
        self.settling += 1;
        let export = self.opened.export.clone();
        self.running.push(Box::pin(async move {
            let outcome = export.settle(ticket).await;
            Done::Settled(waiting, outcome)
        }));
    }

    /// Answers a group of changes.
    pub(super) fn settled(&mut self, waiting: Waiting, outcome: Result<(), ExportError>) {
        self.settling -= 1;
        if self.revoked_by_now() {
            for (cookie, _, cost) in waiting {
                self.refuse_revoked(cookie, cost);
            }
            return;
        }
        for (cookie, operation, cost) in waiting {
            match &outcome {
                Ok(()) => self.answer(cookie, Answer::Done, cost),
                Err(error) => self.fail(cookie, operation.effect(), error, cost),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_reads_are_handed_on_and_fast_ones_come_back() {
        let mut pace = Pace::default();
        let (fast, slow) = (Duration::from_micros(5), Duration::from_millis(1));
        assert!(pace.here(false));
        pace.took(slow, 4096);
        assert!(pace.here(true), "alone it keeps nobody waiting");
        assert!((0..READS_AWAY).all(|_| !pace.here(false)));
        assert!(pace.here(false), "one is tried again");
        pace.took(fast, 4096);
        assert!(pace.here(false));
        // A large read takes its time also from memory.
        pace.took(slow, 1 << 20);
        assert!(pace.here(false));
    }
}
