//! The side of the [`Source`] that a session with the receiver sees.

use super::{Broken, Source, State};
use crate::log::{SourceLog, Tip};
use crate::plan::{DiskWork, Plan};
use async_trait::async_trait;
use landfall_capture::Capture;
use landfall_repl::{
    Batch, Durable, LogSource, ProducerResume, ReceiverPosition, Refusal, SourceIdentity,
};
use landfall_types::{Incarnation, Lsn, WindowReason};
use std::sync::Arc;

fn unavailable(reason: impl Into<String>) -> Refusal {
    Refusal::Unavailable { reason: reason.into() }
}

impl Source {
    /// The first session of a load whose log begins at the receiver.
    fn begin_at(&self, state: &mut State, capture: &Arc<Capture>, position: &ReceiverPosition) {
        let mut known = self.knowledge(capture, state);
        let lost = std::mem::take(&mut state.lost_position);
        if lost {
            // What the ring still holds is not what the receiver has lost.
            known.ring = (1, 0);
        }
        let mut start = Plan::from_position(position, &known);
        if let Some(plan) = start.plan.as_mut().filter(|_| lost) {
            plan.reason = WindowReason::PositionLost;
        }
        if let Some(ring) = start.seek
            && let Err(error) = capture.seek(ring)
        {
            tracing::warn!(%error, "the ring can't be gone on with: the bitmap says what is missing");
            known.ring = (1, 0);
            start = Plan::from_position(position, &known);
        }
        let works = start.plan.iter().flat_map(|plan| &plan.disks);
        for (disk, _) in works.filter(|(_, work)| *work == DiskWork::Compare) {
            // What the bits are relative to is not what the target has: a process that comes later
            // must not take them for more.
            capture.forget_baseline(*disk);
        }
        let base = Tip { lsn: position.durable, chain: position.chain };
        let mut log = SourceLog::new(self.identity.lineage.epoch(), base, &position.open_windows);
        log.begin_incarnation(capture.incarnation(), capture.drained());
        state.log = Some(log);
        state.rotten.begin_anew();
        let asked = state.rotten.ask(position);
        match start.plan {
            Some(plan) => self.open(state, plan),
            None if asked => self.open(state, Plan::rotten()),
            None => tracing::info!(lsn = %position.durable, "gone on with: nothing was missed"),
        }
        state.waits_for_receiver = false;
    }

    /// The receiver has lost records that were forgotten here, and the bitmap knows their blocks:
    /// the log begins anew where it stands, with the same load. What is captured until then has no
    /// place in a log; its blocks are dirty, too.
    ///
    /// Whoever works for a window of the former log must be gone: the next one may have the same
    /// ID.
    pub fn begin_behind_receiver(&self) {
        let mut state = self.lock();
        let log = state.log.take();
        let at_target = log.map_or(Lsn::ZERO, |log| log.durable().at_target);
        state.bits_since = state.bits_since.max(at_target);
        state.plan = None;
        state.broken = None;
        state.markers.clear();
        state.timeline.clear();
        state.settled = None;
        state.lost_position = true;
        state.waits_for_receiver = true;
    }

    /// Dirty bits of what the target has durable up to here are about to be dropped: a receiver
    /// that stands before it lacks more than the bitmap knows.
    pub fn bits_dropped(&self, durable_at_target: Lsn) {
        let mut state = self.lock();
        state.bits_since = state.bits_since.max(durable_at_target);
    }

    /// Whether the log can go on where the receiver stands; if not, the run is told why.
    fn check(&self, state: &mut State, position: &ReceiverPosition) -> Result<(), Refusal> {
        let Some(log) = &state.log else { return Ok(()) };
        let (why, bits_suffice) = match log.follow(position, state.bits_since) {
            ProducerResume::Continue => return Ok(()),
            ProducerResume::SendDirty => {
                let why = format!("the receiver lost its records behind {}", position.durable);
                (why, true)
            }
            // Trap T-1: never renumber. The run answers with a new load and a comparison of
            // everything.
            ProducerResume::Compare(mismatch) => (mismatch.to_string(), false),
        };
        state.broken = Some(Broken { why: why.clone(), bits_suffice });
        self.decided.notify_one();
        Err(unavailable(why))
    }

    /// Opens a window for what has rotted at the target, where that is not being answered already.
    fn answer_rot(&self, state: &mut State, position: &ReceiverPosition) {
        if !state.rotten.ask(position) {
            return;
        }
        tracing::warn!(ranges = ?position.rotten, "rotten at the target: sent again");
        let plan = self.plan_of_unfinished(state, WindowReason::Rotten);
        self.open(state, plan);
        self.appended.notify_waiters();
        self.decided.notify_one();
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
        if let Some(broken) = &state.broken {
            return Err(unavailable(broken.why.clone()));
        }
        if state.log.is_some() {
            self.check(&mut state, position)?;
            self.answer_rot(&mut state, position);
            return Ok(());
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

    async fn read(&self, from: Lsn, bytes_max: usize) -> Result<Batch, Refusal> {
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
            state.timeline.forget(at_target);
        }
        drop(state);
        self.room.notify_all();
        self.room_async.notify_waiters();
    }
}
