//! The receiving end of a route.

use super::{Asking, Route, State, blocking, spool};
use crate::error::unavailable;
use landfall_journal::{JournalError, Log, Stamp};
use landfall_repl::{
    Batch, Durable, HashReply, HashRequest, ImageCopyPosition, ImageData, ReceiverPosition,
    Refusal, RelayStanding, SenderPhase, SessionToken, SourceIdentity, Upstream, admit_upstream,
};
use landfall_types::Class;
use std::sync::Arc;
use std::time::Duration;

/// How long a sender waits for the next hop to be asked; it tries again after that.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a sender waits for the next hop's word on a first copy before it is sent back to the
/// copy's beginning.
const IMAGE_COPY_TIMEOUT: Duration = Duration::from_secs(1);

impl Route {
    pub(crate) async fn open(
        self: &Arc<Self>,
        identity: &SourceIdentity,
    ) -> Result<(SessionToken, ReceiverPosition), Refusal> {
        let _turn = self.opening.lock().await;
        let first = self.state().admit(identity)?;
        if first == Upstream::AskTarget {
            self.ask_target(identity).await?;
        }
        self.wait_for_image_copy().await;
        // Nothing of an older session goes in any more, and what did go in is made durable: it was
        // received.
        let appending = Arc::clone(&self.appending).lock_owned().await;
        let (serial, log) = {
            let mut state = self.state();
            // Once more: were the epoch fenced while we waited, nobody would end this session.
            if state.admit(identity)? == Upstream::AskTarget {
                return Err(no_spool());
            }
            let log = state.log.clone().ok_or_else(no_spool)?;
            state.session += 1;
            state.connected = true;
            (state.session, log)
        };
        let (route, incarnation) = (Arc::clone(self), identity.incarnation);
        let position = blocking(move || {
            let _appending = appending;
            log.flush().map_err(|error| route.failed(&error))?;
            route
                .change(|file| {
                    if let Some(served) = &mut file.served {
                        served.incarnation = incarnation;
                    }
                })
                .map_err(|error| unavailable(&error))?;
            Ok(route.state().position(&log))
        })
        .await?;
        let sender = self.sender();
        if sender.status().borrow().phase == SenderPhase::Stopped {
            // Refused for good earlier: if that still holds, this session hears of it.
            sender.restart().await;
        }
        let position = position.ok_or_else(no_spool)?;
        Ok((SessionToken { replica: self.replica, serial }, position))
    }

    /// Announces the sender to the next hop and waits for what it says.
    async fn ask_target(self: &Arc<Self>, identity: &SourceIdentity) -> Result<(), Refusal> {
        self.state().asking = Some(Asking { identity: identity.clone(), answer: None });
        // Dropped at the timeout, and when the sender goes away while it waits.
        let asked = Asked(Arc::clone(self));
        self.sender().restart().await;
        let answer = self.until(|state| state.asking.as_mut()?.answer.take());
        let answer = tokio::time::timeout(ASK_TIMEOUT, answer).await;
        drop(asked);
        answer.unwrap_or_else(|_| {
            let reason = "the next hop has not said where it stands".into();
            Err(Refusal::Unavailable { reason })
        })
    }

    /// After a start only the next hop knows how far a first copy is.
    async fn wait_for_image_copy(self: &Arc<Self>) {
        let unknown = |state: &State| {
            let open = state.log.as_ref().is_some_and(|log| !state.windows(log).is_empty());
            !state.heard && open
        };
        if unknown(&self.state()) {
            self.sender();
            let heard = self.until(|state| state.heard.then_some(()));
            let _ = tokio::time::timeout(IMAGE_COPY_TIMEOUT, heard).await;
        }
    }

    pub(crate) async fn append(
        self: &Arc<Self>,
        session: u64,
        batch: Batch,
    ) -> Result<(), Refusal> {
        loop {
            self.until(|state| match state.check(session) {
                Err(refusal) => Some(Err(refusal)),
                Ok(()) => (!self.cache.pressed()).then_some(Ok(())),
            })
            .await?;
            let appending = Arc::clone(&self.appending).lock_owned().await;
            if self.cache.pressed() {
                continue;
            }
            let log = {
                let state = self.state();
                state.check(session)?;
                state.log.clone().ok_or_else(no_spool)?
            };
            let route = Arc::clone(self);
            return blocking(move || {
                let _appending = appending;
                let Some(batch) = new_records(&log, batch)? else { return Ok(()) };
                let stamp = Stamp {
                    epoch: batch.epoch,
                    incarnation: batch.incarnation,
                    source_position: batch.source_position,
                };
                log.append(stamp, &batch.records).map_err(|error| route.failed(&error))?;
                let bytes = batch.bytes() as u64;
                route.cache.add(bytes);
                let records = batch.records.len() as u64;
                route.state().undelivered.push(batch.last(), bytes, records);
                Ok(())
            })
            .await;
        }
    }

    pub(crate) async fn flush(self: &Arc<Self>, session: u64) -> Result<Durable, Refusal> {
        let log = {
            let state = self.state();
            state.check(session)?;
            state.log.clone().ok_or_else(no_spool)?
        };
        let route = Arc::clone(self);
        blocking(move || {
            log.flush().map_err(|error| route.failed(&error))?;
            // The spool may have been replaced meanwhile: then this session is over, and
            // acknowledges nothing.
            let state = route.state();
            state.check(session)?;
            Ok(state.durable())
        })
        .await
    }

    pub(crate) async fn durable_beyond(
        &self,
        session: u64,
        seen: Durable,
    ) -> Result<Durable, Refusal> {
        self.until(|state| match state.check(session) {
            Err(refusal) => Some(Err(refusal)),
            Ok(()) => {
                let durable = state.durable();
                let more = durable.here > seen.here || durable.at_target > seen.at_target;
                more.then_some(Ok(durable))
            }
        })
        .await
    }

    /// Passed through: a first copy is not spooled (it would fill any cache), and is answered when
    /// it is at the target.
    pub(crate) async fn image(
        self: &Arc<Self>,
        session: u64,
        piece: ImageData,
    ) -> Result<(), Refusal> {
        self.state().check(session)?;
        let (window, disk) = (piece.window, piece.disk);
        let (start, end) = (piece.offset, piece.offset + piece.length);
        self.sender().image(piece).await?;
        let mut state = self.state();
        let fresh = ImageCopyPosition { window, durable_bytes: vec![] };
        let copy = state.image_copy.get_or_insert(fresh);
        if copy.window == window {
            match copy.durable_bytes.iter_mut().find(|(of, _)| *of == disk) {
                Some((_, bytes)) if *bytes == start => *bytes = end,
                Some(_) => {}
                None if start == 0 => copy.durable_bytes.push((disk, end)),
                None => {}
            }
        }
        Ok(())
    }

    /// Passed through: only the target knows what it would read.
    pub(crate) async fn hash(
        self: &Arc<Self>,
        session: u64,
        request: HashRequest,
    ) -> Result<HashReply, Refusal> {
        self.state().check(session)?;
        self.sender().hash(request).await
    }

    pub(crate) fn close(&self, session: u64) {
        let mut state = self.state();
        if state.session == session {
            state.connected = false;
        }
    }

    /// What a sender is told when the spool failed. One that can't be used any more is opened anew.
    pub(super) fn failed(self: &Arc<Self>, error: &JournalError) -> Refusal {
        if let JournalError::Fenced { offered, current } = error {
            return Refusal::Fenced { offered: *offered, current: *current };
        }
        let refusal = unavailable(error);
        if !matches!(error.class(), Class::Transient | Class::Bug) {
            tracing::error!(replica = %self.replica, %error, "the spool failed");
            self.reopen(refusal.clone());
        }
        refusal
    }
}

impl State {
    fn admit(&self, identity: &SourceIdentity) -> Result<Upstream, Refusal> {
        if self.file.draining {
            return Err(Refusal::NotReplicating { state: "draining".into() });
        }
        let spool = self.log.as_ref().zip(self.file.served.as_ref());
        let fenced_by = self.fenced_by.filter(|epoch| epoch.number > self.file.floor.number);
        let standing = RelayStanding {
            instance: self.file.instance,
            fenced_by: Some(fenced_by.unwrap_or(self.file.floor)),
            spool: spool.map(|(log, served)| (&served.lineage, log.tail().lsn)),
        };
        admit_upstream(identity, &standing)
    }

    pub(super) fn windows(&self, log: &Log) -> Vec<landfall_types::WindowId> {
        let Some(file) = &self.file.spool else { return vec![] };
        spool::windows_at(log, file.windows_at, &file.windows, log.tail().lsn)
    }

    /// `None` when the spool is another one by now.
    fn position(&self, log: &Arc<Log>) -> Option<ReceiverPosition> {
        let (file, served) = (self.file.spool.as_ref()?, self.file.served.as_ref()?);
        if !self.log.as_ref().is_some_and(|current| Arc::ptr_eq(current, log)) {
            return None;
        }
        let durable = log.durable();
        let fresh = durable.lsn == log.base().0;
        Some(ReceiverPosition {
            lineage: served.lineage.clone(),
            incarnation: if fresh { file.base_incarnation } else { durable.incarnation },
            durable: durable.lsn,
            chain: durable.chain,
            source_position: match fresh {
                true => file.base_source_position,
                false => durable.source_position,
            },
            durable_at_target: self.at_target.min(durable.lsn),
            image_copy: self.image_copy.clone(),
            open_windows: self.windows(log),
            rotten: self.rotten.clone(),
        })
    }
}

/// Whoever asks no longer does.
struct Asked(Arc<Route>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.state().asking = None;
        self.0.return_to_spool();
    }
}

fn no_spool() -> Refusal {
    Refusal::Unavailable { reason: "the spool is not there yet".into() }
}

/// The part of a batch that the spool does not have: exactly the next record and what follows.
/// Records that are there must be the same (trap T-1); for those that were delivered and forgotten
/// nobody can tell any more.
fn new_records(log: &Log, mut batch: Batch) -> Result<Option<Batch>, Refusal> {
    let tail = log.tail();
    let expected = tail.lsn.next();
    if batch.first() > expected {
        return Err(Refusal::Gap { expected, found: batch.first() });
    }
    if batch.first() == expected && batch.chain_before != tail.chain {
        return Err(Refusal::ChainMismatch { lsn: tail.lsn });
    }
    if batch.first() == expected {
        return Ok(Some(batch));
    }
    let last_known = batch.last().min(tail.lsn);
    let there = log.position_at(last_known);
    let there = there.map_err(|error| Refusal::Unavailable { reason: error.to_string() })?;
    let Some(there) = there else {
        return Err(Refusal::Gap { expected, found: batch.first() });
    };
    let count = usize::try_from(last_known.next().records_since(batch.first()));
    let known = batch.records.drain(..count.unwrap_or(usize::MAX).min(batch.records.len()));
    let chain = known.fold(batch.chain_before, |chain, record| record.chain(chain));
    if chain != there.chain {
        return Err(Refusal::ChainMismatch { lsn: last_known });
    }
    batch.chain_before = chain;
    Ok((!batch.records.is_empty()).then_some(batch))
}
