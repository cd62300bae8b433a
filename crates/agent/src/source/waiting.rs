//! What others wait for in a [`Source`]: room, records that are durable, the ring's position.

use super::{QUEUE_BYTES_CATCH_UP, Source, State, queued};
use crate::log::SourceLog;
use landfall_types::Lsn;
use std::sync::PoisonError;
use std::time::Duration;

impl Source {
    /// Ends when the ring was put into the log up to `position`.
    pub async fn drained_to(&self, position: u64) {
        let mut drained = self.drained.subscribe();
        drained.wait_for(|drained| *drained >= position).await.expect("the sender is part of self");
    }

    /// How far the ring was put into the log.
    #[must_use]
    pub fn drained(&self) -> u64 {
        *self.drained.borrow()
    }

    /// How far the ring is durable at the next hop.
    #[must_use]
    pub fn acknowledged_ring(&self) -> u64 {
        self.lock().log.as_ref().map_or(0, SourceLog::acknowledged_ring)
    }

    /// Ends when a catch-up may add to the queue.
    pub async fn room_for_catch_up(&self) {
        self.changed_until(|source| source.queued_bytes() < QUEUE_BYTES_CATCH_UP).await;
    }

    /// Waits for room in the queue; false when the time is over.
    #[must_use]
    pub fn wait_room(&self, timeout: Duration) -> bool {
        let state = self.lock();
        let full = |state: &mut State| queued(state) >= self.queue_bytes_max;
        let (_state, result) = self
            .room
            .wait_timeout_while(state, timeout, full)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Ends when the next hop has everything up to `lsn` durable.
    pub async fn durable_to(&self, lsn: Lsn) {
        self.changed_until(|source| source.durable().here >= lsn).await;
    }

    /// Ends when the target has everything up to `lsn` durable.
    pub async fn durable_at_target(&self, lsn: Lsn) {
        self.changed_until(|source| source.durable().at_target >= lsn).await;
    }

    async fn changed_until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            // Registered before the look: a change in between is not missed.
            let changed = self.room_async.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }
}
