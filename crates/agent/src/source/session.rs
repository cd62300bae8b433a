//! The side of the [`Source`] that a session with the receiver sees.

use super::{Broken, Source, State};
use crate::log::{SourceLog, Tip};
use crate::plan::Plan;
use async_trait::async_trait;
use landfall_capture::Capture;
use landfall_repl::{Batch, Durable, LogSource, ReceiverPosition, Refusal, SourceIdentity};
use landfall_types::Incarnation;
use std::sync::Arc;

fn unavailable(reason: impl Into<String>) -> Refusal {
    Refusal::Unavailable { reason: reason.into() }
}

impl Source {
    /// The first session of a load whose log begins at the receiver.
    fn begin_at(&self, state: &mut State, capture: &Arc<Capture>, position: &ReceiverPosition) {
        let mut start = Plan::from_position(position, &self.knowledge(capture));
        if let Some(ring) = start.seek
            && let Err(error) = capture.seek(ring)
        {
            tracing::warn!(%error, "the ring can't be gone on with: the bitmap says what is missing");
            let mut known = self.knowledge(capture);
            known.ring = (1, 0);
            start = Plan::from_position(position, &known);
        }
        let base = Tip { lsn: position.durable, chain: position.chain };
        let mut log = SourceLog::new(self.identity.lineage.epoch(), base, &position.open_windows);
        log.begin_incarnation(capture.incarnation(), capture.drained());
        state.log = Some(log);
        match start.plan {
            Some(plan) => self.open(state, plan),
            None => tracing::info!(lsn = %position.durable, "gone on with: nothing was missed"),
        }
        state.waits_for_receiver = false;
    }
}

#[async_trait]
impl LogSource for Source {
    fn identity(&self) -> SourceIdentity {
        let incarnation = self.lock().capture.as_ref().map(|capture| capture.incarnation());
        let incarnation = incarnation.unwrap_or(Incarnation::NONE);
        SourceIdentity { incarnation, ..self.identity.clone() }
    }

    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal> {
        let mut state = self.lock();
        let Some(capture) = state.capture.clone() else {
            return Err(unavailable("the capture is being started"));
        };
        if let Some(Broken(reason)) = &state.broken {
            return Err(unavailable(reason.clone()));
        }
        if let Some(log) = &state.log {
            return log.check(position).map_err(|mismatch| {
                // Trap T-1: never renumber. The run answers with a new load and a comparison of
                // everything.
                let reason = mismatch.to_string();
                state.broken = Some(Broken(reason.clone()));
                self.decided.notify_one();
                unavailable(reason)
            });
        }
        if !state.waits_for_receiver {
            return Err(unavailable("the log has not begun"));
        }
        self.begin_at(&mut state, &capture, position);
        drop(state);
        self.appended.notify_waiters();
        self.decided.notify_one();
        Ok(())
    }

    async fn read(&self, from: landfall_types::Lsn, bytes_max: usize) -> Result<Batch, Refusal> {
        loop {
            // Registered before the look: an append in between is not missed.
            let appended = self.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            let batch = match &self.lock().log {
                Some(log) => log.read(from, bytes_max).map_err(|m| unavailable(m.to_string()))?,
                None => return Err(unavailable("the log begins anew")),
            };
            if let Some(batch) = batch {
                return Ok(batch);
            }
            appended.await;
        }
    }

    fn acknowledged(&self, durable: Durable) {
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            log.acknowledged(durable);
            let at_target = log.durable().at_target;
            while let Some(settled) = state.markers.pop_front_if(|one| one.lsn <= at_target) {
                state.settled = Some(settled);
            }
        }
        drop(state);
        self.room.notify_all();
        self.room_async.notify_waiters();
    }
}
