//! Markers that wait for their place in the log.

use crate::source::Source;
use landfall_api_types::{ApiError, codes};
use landfall_types::{GroupPointId, Lsn, Marker};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

const OPEN: u8 = 0;
const GOOD: u8 = 1;
const VOID: u8 = 2;

/// Whether a marker says the truth: known only after its place in the ring was taken.
///
/// A marker that promises frozen file systems has its place taken while they are frozen. Only an
/// answer afterwards that they still are proves it (trap T-19); until then the log stops there.
#[derive(Clone, Debug)]
pub(crate) struct Verdict(Arc<AtomicU8>);

impl Verdict {
    /// Not known yet. Dropping the asker makes it void: see [`Asking`].
    pub(crate) fn open() -> (Asking, Self) {
        let verdict = Self(Arc::new(AtomicU8::new(OPEN)));
        (Asking(verdict.clone()), verdict)
    }

    fn is(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Gives the verdict; without a word it is void, so that the log never waits for ever.
#[derive(Debug)]
pub(crate) struct Asking(Verdict);

impl Asking {
    /// The marker says the truth.
    pub(crate) fn good(self) {
        self.0.0.store(GOOD, Ordering::SeqCst);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _given = self.0.0.compare_exchange(OPEN, VOID, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// How a marker is waited for.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The marker is placed only where this is good.
    pub(crate) verdict: Option<Verdict>,
    /// Where it stands, or why there is none.
    pub(crate) reply: Option<oneshot::Sender<Result<Lsn, ApiError>>>,
    /// The point of several machines that it belongs to.
    pub(crate) group: Option<GroupPointId>,
}

/// A marker, and the ring's head of its moment: all that was written before belongs to it, and
/// nothing that was written later.
pub(super) struct Due {
    head: u64,
    marker: Marker,
    held: Held,
}

impl Due {
    pub(super) const fn new(head: u64, marker: Marker, held: Held) -> Self {
        Self { head, marker, held }
    }

    fn place(self, source: &Source) {
        let answer = match self.held.verdict.as_ref().map_or(GOOD, Verdict::is) {
            GOOD => source.mark(self.marker).ok_or_else(|| {
                ApiError::new(&codes::NO_POINT_YET, "a first copy or a catch-up is under way")
            }),
            _ => Err(ApiError::new(&codes::POINT_FAILED, "its promise could not be kept")),
        };
        if let Some(reply) = self.held.reply {
            let _gone = reply.send(answer);
        }
    }
}

/// In the order of their moments.
#[derive(Default)]
pub(super) struct Marks(Mutex<VecDeque<Due>>);

impl Marks {
    pub(super) fn push(&self, due: Due) {
        let mut dues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may take their moments in one order and come here in the other.
        let at = dues.partition_point(|other| other.head <= due.head);
        dues.insert(at, due);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The ring's position of the first.
    pub(super) fn first_head(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).front().map(|due| due.head)
    }

    /// Puts the first into the log; false when its verdict is open.
    pub(super) fn place_first(&self, source: &Source) -> bool {
        let mut dues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |due: &Due| due.held.verdict.as_ref().is_some_and(|one| one.is() == OPEN);
        if dues.front().is_some_and(open) {
            return false;
        }
        let due = dues.pop_front();
        drop(dues);
        if let Some(due) = due {
            due.place(source);
        }
        true
    }
}
