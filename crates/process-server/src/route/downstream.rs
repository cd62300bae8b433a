//! The sending end of a route.

use super::{Route, State, blocking, spool};
use crate::RelayError;
use crate::error::unavailable;
use crate::store::{Divergence, RouteFile, Served, SpoolFile};
use async_trait::async_trait;
use landfall_journal::{Log, LogConfig};
use landfall_repl::{
    Batch, Downstream, Durable, LogSource, ReceiverPosition, Refusal, SourceIdentity, SpoolView,
    epoch_at, follow_target,
};
use landfall_types::{Class, Incarnation, Lineage, LogId, Lsn};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The route as a source.
pub(super) struct Downlink(pub(super) Arc<Route>);

#[async_trait]
impl LogSource for Downlink {
    fn identity(&self) -> SourceIdentity {
        let mut state = self.0.state();
        let identity = state.identity(self.0.replica);
        state.announced = Some(identity.clone());
        identity
    }

    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal> {
        let appending = Arc::clone(&self.0.appending).lock_owned().await;
        let (route, position) = (Arc::clone(&self.0), position.clone());
        blocking(move || {
            let _appending = appending;
            route.follow(&position).map_err(|error| unavailable(&error))
        })
        .await
    }

    async fn read(&self, from: Lsn, bytes_max: usize) -> Result<Batch, Refusal> {
        loop {
            let log = self
                .0
                .until(|state| {
                    let log = state.log.as_ref()?;
                    (log.durable().lsn >= from).then(|| Arc::clone(log))
                })
                .await;
            let route = Arc::clone(&self.0);
            let read =
                blocking(move || log.batch(from, bytes_max).map_err(|error| route.failed(&error)));
            if let Some(batch) = read.await? {
                return Ok(Batch {
                    epoch: batch.stamp.epoch,
                    incarnation: batch.stamp.incarnation,
                    chain_before: batch.chain_before,
                    source_position: batch.stamp.source_position,
                    records: batch.records,
                });
            }
        }
    }

    fn acknowledged(&self, durable: Durable) {
        self.0.delivered(durable);
        self.0.trim();
    }

    fn refused(&self, refusal: &Refusal) {
        self.0.refused(refusal);
    }
}

impl State {
    /// As whom to send: for a sender that asks, else for the one that was served last.
    fn identity(&self, replica: landfall_types::ReplicaId) -> SourceIdentity {
        if let Some(asking) = self.asking.as_ref().filter(|asking| asking.answer.is_none()) {
            return asking.identity.clone();
        }
        let nobody = || (Lineage::root(self.file.floor), Incarnation::NONE);
        let served = self.file.served.as_ref();
        let (lineage, incarnation) =
            served.map_or_else(nobody, |served| (served.lineage.clone(), served.incarnation));
        SourceIdentity { replica, lineage, incarnation, instance: self.file.instance }
    }

    /// The present downstream session delivers the spool, and is not a question in somebody's name.
    fn about_spool(&self) -> bool {
        let served = self.file.served.as_ref().map(|served| &served.lineage);
        served.is_some() && served == self.announced.as_ref().map(|identity| &identity.lineage)
    }

    /// The next hop has answered the present session; who asks hears of it only if it was opened in
    /// its name.
    fn answer(&mut self, result: Result<(), Refusal>) {
        if let Some(asking) = &mut self.asking
            && Some(&asking.identity) == self.announced.as_ref()
        {
            asking.answer = Some(result);
        }
    }
}

impl Route {
    /// The next hop stands at `position`: goes on from there, or begins anew there. Blocks on the
    /// disk; the caller holds `appending`.
    fn follow(self: &Arc<Self>, position: &ReceiverPosition) -> Result<(), RelayError> {
        let (identity, log, served, delivered) = {
            let state = self.state();
            let identity = state.announced.clone().unwrap_or_else(|| state.identity(self.replica));
            let served = state.file.served.as_ref().map(|served| served.lineage.clone());
            (identity, state.log.clone(), served, state.delivered)
        };
        // What can't be read is unknown, not different: a spool must not be set aside for that.
        let there = log.as_ref().map(|log| log.position_at(position.durable)).transpose();
        let there = there.map_err(RelayError::Spool)?;
        let view = log.as_ref().zip(served.as_ref()).map(|(log, lineage)| SpoolView {
            lineage,
            tail: log.tail().lsn,
            delivered,
            chain_there: there.flatten().map(|there| there.chain),
        });
        match follow_target(&identity.lineage, view.as_ref(), position) {
            Downstream::Continue => {
                if let Some(old) = served.filter(|old| *old != identity.lineage) {
                    self.adopt(&old, &identity)?;
                }
            }
            Downstream::Restart { set_aside } => self.begin_anew(&identity, position, set_aside)?,
        }
        let mut state = self.state();
        state.heard = true;
        state.image_copy = position.image_copy.clone();
        if state.rotten != position.rotten {
            state.rotten.clone_from(&position.rotten);
            // A source hears of it where it asks for the position: its next session does.
            let reason = "the target says anew what has rotted there".into();
            state.end_sessions(Refusal::Unavailable { reason });
        }
        state.answer(Ok(()));
        drop(state);
        let (here, at_target) = (position.durable, position.durable_at_target);
        self.delivered(Durable { here, at_target });
        Ok(())
    }

    /// The spool goes on in a newer epoch. Durable first: were a session of the old one to go on
    /// after a crash, its records would follow in the new epoch's spool.
    fn adopt(&self, old: &Lineage, identity: &SourceIdentity) -> Result<(), RelayError> {
        let (lineage, incarnation) = (identity.lineage.clone(), identity.incarnation);
        let (offered, current) = (old.epoch(), lineage.epoch());
        let file = self.change(|file| {
            file.raise_floor(&lineage);
            file.served = Some(Served { lineage, incarnation });
        })?;
        let replica = file.replica;
        tracing::info!(%replica, epoch = %current, "the spool goes on in a newer epoch");
        self.state().end_sessions(Refusal::Fenced { offered, current });
        self.announce_change();
        Ok(())
    }

    /// The spool can't follow on the next hop's position: a new one begins there. What the old one
    /// held beyond it is kept as divergence (trap T-14), never sent and never skipped.
    fn begin_anew(
        self: &Arc<Self>,
        identity: &SourceIdentity,
        position: &ReceiverPosition,
        set_aside: bool,
    ) -> Result<(), RelayError> {
        let name = format!("spool-{}", self.state().file.next_spool);
        let failed = |source| RelayError::Store { doing: "make a spool", source };
        let dir = self.store.dir.subdir(&name).map_err(failed)?;
        self.store.dir.sync().map_err(failed)?;
        let config = LogConfig {
            log: LogId::generate(),
            replica: self.replica,
            epoch: epoch_at(&identity.lineage, position.durable.next()),
            base: position.durable,
            base_chain: position.chain,
            segment_bytes: self.network.segment_bytes,
        };
        let log = Arc::new(Log::create(dir, config).map_err(RelayError::Spool)?);
        let (old, delivered) = {
            let state = self.state();
            (state.log.clone(), state.delivered)
        };
        let mut left_over = None;
        self.change(|file| {
            left_over =
                file.replace_spool(name, identity, position, old.as_ref(), delivered, set_aside);
        })?;
        self.listen(&log);
        {
            let mut state = self.state();
            let undelivered = std::mem::take(&mut state.undelivered);
            self.cache.remove(undelivered.bytes());
            state.log = Some(log);
            state.delivered = position.durable;
            state.at_target = position.durable_at_target;
            let reason = "the spool began anew at the next hop's position".into();
            state.end_sessions(Refusal::Unavailable { reason });
        }
        tracing::warn!(replica = %self.replica, at = %position.durable, set_aside, "new spool");
        self.announce_change();
        if let Some(name) = left_over {
            // Only after the file no longer names it; were this cut off, the next start sweeps it
            // away.
            self.store.dir.remove_subdir(&name).map_err(failed)?;
        }
        Ok(())
    }

    fn delivered(&self, durable: Durable) {
        let mut state = self.state();
        state.delivered = state.delivered.max(durable.here);
        state.at_target = durable.at_target;
        let freed = state.undelivered.delivered(durable.here);
        drop(state);
        self.cache.remove(freed);
        self.announce_change();
    }

    /// Forgets segments that the next hop has, in the background; one at a time.
    fn trim(self: &Arc<Self>) {
        let (log, delivered) = {
            let state = self.state();
            let Some(log) = state.log.clone() else { return };
            (log, state.delivered)
        };
        let segments = log.stat().segments;
        let due = segments.len() > 1 && segments[0].last <= delivered;
        if !due || self.trimming.swap(true, Ordering::AcqRel) {
            return;
        }
        let route = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = route.trim_through(&log, delivered) {
                tracing::error!(replica = %route.replica, %error, "trim the spool");
            }
            route.trimming.store(false, Ordering::Release);
        });
    }

    fn trim_through(&self, log: &Arc<Log>, through: Lsn) -> Result<(), RelayError> {
        // The windows first: their records are about to be forgotten.
        self.change(|file| {
            if let Some(spool) = &mut file.spool
                && spool.windows_at < through
            {
                let open = spool::windows_at(log, spool.windows_at, &spool.windows, through);
                (spool.windows, spool.windows_at) = (open, through);
            }
        })?;
        log.trim(through).map(drop).map_err(RelayError::Spool)
    }

    fn refused(self: &Arc<Self>, refusal: &Refusal) {
        let about_spool = {
            let mut state = self.state();
            let about_spool = state.about_spool();
            if let Refusal::Fenced { current, .. } = refusal
                && state.fenced_by.is_none_or(|known| known.number < current.number)
            {
                state.fenced_by = Some(*current);
            }
            // Nothing that they send could be delivered. (Superseded passes: the sender tries
            // again.)
            let final_word = refusal.class() == Class::Fenced && *refusal != Refusal::Superseded;
            if about_spool && final_word {
                state.end_sessions(refusal.clone());
            }
            state.answer(Err(refusal.clone()));
            about_spool
        };
        self.announce_change();
        if let Refusal::Fenced { current, .. } = refusal {
            let (route, current) = (Arc::clone(self), *current);
            tokio::task::spawn_blocking(move || {
                let raised = route.change(|file| {
                    if file.floor.number < current.number {
                        file.floor = current;
                    }
                });
                if let Err(error) = raised {
                    let replica = route.replica;
                    tracing::error!(%replica, %error, "keep the epoch that fenced us");
                }
            });
        }
        if !about_spool {
            self.return_to_spool();
        }
    }

    /// What was refused, or has gone, was somebody who asked; the spool still has to be delivered.
    pub(super) fn return_to_spool(self: &Arc<Self>) {
        let deserted = {
            let state = self.state();
            state.log.is_some() && state.asking.is_none() && !state.about_spool()
        };
        if deserted {
            let sender = self.sender();
            tokio::spawn(async move { sender.restart().await });
        }
    }

    /// The spool can't be used any more: ends the sessions and opens it anew, or finds it lost.
    pub(super) fn reopen(self: &Arc<Self>, reason: Refusal) {
        let route = Arc::clone(self);
        tokio::spawn(async move {
            let appending = Arc::clone(&route.appending).lock_owned().await;
            {
                let mut state = route.state();
                state.log = None;
                state.end_sessions(reason);
            }
            route.announce_change();
            let work = {
                let route = Arc::clone(&route);
                move || {
                    let _appending = appending;
                    let _serial = super::lock(&route.saving);
                    let file = route.state().file.clone();
                    let (file, log) =
                        spool::open(&route.store, file).map_err(|e| unavailable(&e))?;
                    if let Some(log) = &log {
                        route.listen(log);
                    }
                    let mut state = route.state();
                    (state.file, state.log) = (file, log);
                    Ok(())
                }
            };
            if let Err(refusal) = blocking(work).await {
                let replica = route.replica;
                tracing::error!(%replica, %refusal, "the spool can't be opened anew");
            }
            route.announce_change();
            route.sender().restart().await;
        });
    }
}

impl RouteFile {
    pub(super) fn raise_floor(&mut self, lineage: &Lineage) {
        if self.floor.number < lineage.epoch().number {
            self.floor = lineage.epoch();
        }
    }

    /// Names a new spool; returns the directory of the old one when nothing speaks of it any more.
    fn replace_spool(
        &mut self,
        dir: String,
        identity: &SourceIdentity,
        position: &ReceiverPosition,
        old: Option<&Arc<Log>>,
        delivered: Lsn,
        set_aside: bool,
    ) -> Option<String> {
        let old_dir = self.spool.take().map(|spool| spool.dir);
        let left_over = match (old_dir, old) {
            (Some(dir), Some(old)) if set_aside => {
                let (epoch, through) = (old.tail().epoch, old.tail().lsn);
                self.divergence.push(Divergence { dir, epoch, delivered, through });
                None
            }
            (left_over, _) => left_over,
        };
        self.raise_floor(&identity.lineage);
        self.next_spool += 1;
        self.served =
            Some(Served { lineage: identity.lineage.clone(), incarnation: identity.incarnation });
        self.spool = Some(SpoolFile {
            dir,
            windows_at: position.durable,
            windows: position.open_windows.clone(),
            base_incarnation: position.incarnation,
            base_source_position: position.source_position,
        });
        left_over
    }
}
