//! The log between the capture, the catch-up and the session: [`LogSource`] around a [`SourceLog`].

use crate::log::{SourceLog, Tip};
use crate::plan::Plan;
use crate::ranges::RangeSet;
use async_trait::async_trait;
use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_capture::Captured;
use landfall_repl::{Batch, Durable, LogSource, ReceiverPosition, Refusal, SourceIdentity};
use landfall_types::control::Geometry;
use landfall_types::{
    ByteRange, Control, DiskIndex, Incarnation, Lsn, Marker, WindowId, WindowMode, WindowReason,
};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Most bytes of records kept in memory; beyond it the ring is not emptied, and what comes then is
/// its overflow.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;
/// A catch-up stops adding here, so that captured writes find room.
pub const QUEUE_BYTES_CATCH_UP: usize = 32 << 20;

/// How a new load of the capture takes the log up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begin {
    /// Where the receiver stands; what to do follows from that. Until then nothing captured is
    /// kept: a window will be opened, and all that was written before its opening is read from the
    /// disks.
    AtReceiver,
    /// The disks stand exactly here, and nothing has been written since.
    At(Tip),
    /// Behind our own newest record, with a window: the former load was lost.
    Behind(Plan),
}

/// Why the log can't be continued with this load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken(pub String);

struct State {
    incarnation: Incarnation,
    log: Option<SourceLog>,
    /// The capture is active.
    active: bool,
    plan: Option<(Plan, WindowId)>,
    broken: Option<Broken>,
    waits_for_receiver: bool,
}

/// See the module.
pub struct Source {
    identity: SourceIdentity,
    disks: Vec<Disk>,
    state: Mutex<State>,
    /// Records were appended: a waiting session reads on.
    appended: Notify,
    /// The session decided something: the run looks.
    decided: Notify,
    /// Room in the queue: the pump, which is a thread, goes on.
    room: Condvar,
    /// The same for tasks.
    room_async: Notify,
    /// How far the ring has been put into the log.
    drained: watch::Sender<u64>,
}

impl Source {
    /// For the log of these disks; `identity.incarnation` is replaced by that of each load.
    #[must_use]
    pub fn new(identity: SourceIdentity, disks: Vec<Disk>) -> Self {
        let state = State {
            incarnation: identity.incarnation,
            log: None,
            active: false,
            plan: None,
            broken: None,
            waits_for_receiver: false,
        };
        Self {
            identity,
            disks,
            state: Mutex::new(state),
            appended: Notify::new(),
            decided: Notify::new(),
            room: Condvar::new(),
            room_async: Notify::new(),
            drained: watch::channel(0).0,
        }
    }

    /// The capture is active: records of this incarnation follow.
    pub fn begin(&self, incarnation: Incarnation, begin: Begin) {
        let mut state = self.lock();
        state.incarnation = incarnation;
        state.active = true;
        state.broken = None;
        state.plan = None;
        state.waits_for_receiver = false;
        self.drained.send_replace(0);
        match begin {
            Begin::AtReceiver => {
                state.log = None;
                state.waits_for_receiver = true;
            }
            Begin::At(tip) => {
                let mut log = SourceLog::new(self.identity.lineage.epoch(), tip, &[]);
                log.begin_incarnation(incarnation);
                state.log = Some(log);
            }
            Begin::Behind(plan) => {
                let log = state.log.as_mut().expect("a log was begun before it is gone on with");
                log.begin_incarnation(incarnation);
                let window = self.open(log, &plan);
                state.plan = Some((plan, window));
            }
        }
        drop(state);
        self.appended.notify_waiters();
        self.decided.notify_one();
    }

    /// The capture has ended.
    pub fn end(&self) {
        self.lock().active = false;
    }

    /// Opens the window of a plan, and says what the disks are like.
    fn open(&self, log: &mut SourceLog, plan: &Plan) -> WindowId {
        let fresh = plan.image.as_ref().is_some_and(|image| image.window.is_none());
        let mode = if plan.compare { WindowMode::Compare } else { WindowMode::Copy };
        let ranges =
            self.disks.iter().map(|disk| (disk.index, RangeSet::of(whole(disk)))).collect();
        let window = log.open_window(plan.reason, mode, fresh, ranges);
        for disk in &self.disks {
            log.control(&Control::Geometry(Geometry {
                disk: disk.index.0,
                id: *disk.id.as_bytes(),
                size_bytes: disk.geometry.size_bytes,
                sector_bytes: disk.geometry.sector_bytes,
            }));
        }
        window
    }

    /// Takes records of the ring, up to position `drained`.
    pub fn captured(&self, records: Vec<Captured>, drained: u64) {
        if let Some(log) = &mut self.lock().log {
            records.into_iter().for_each(|record| log.captured(record));
        }
        self.drained.send_replace(drained);
        self.appended.notify_waiters();
    }

    /// Puts a marker into the log; `None` while a window is open or nothing was begun.
    pub fn mark(&self, marker: Marker) -> Option<Lsn> {
        let lsn = self.lock().log.as_mut()?.mark(marker)?;
        self.appended.notify_waiters();
        Some(lsn)
    }

    /// What the new load has to do first, and in which window; handed out once.
    pub fn take_plan(&self) -> Option<(Plan, WindowId)> {
        self.lock().plan.take()
    }

    /// Why the log can't be continued with this load, if so.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        self.lock().broken.clone()
    }

    /// Ends when there may be something new to [`Source::take_plan`] or [`Source::broken`].
    pub async fn decided(&self) {
        self.decided.notified().await;
    }

    /// Appends what was read from a disk, where it is still pending (trap T-2); gives the bytes
    /// appended. The ring must have been drained up to its head at the end of the read
    /// ([`Source::drained_to`]).
    pub fn append_read(&self, disk: DiskIndex, offset: u64, data: &Bytes) -> u64 {
        let appended =
            self.lock().log.as_mut().map_or(0, |log| log.append_read(disk, offset, data));
        self.appended.notify_waiters();
        appended
    }

    /// Bytes of a range that are still to be sent.
    #[must_use]
    pub fn pending_bytes(&self, disk: DiskIndex, range: ByteRange) -> u64 {
        let state = self.lock();
        let pending = state.log.as_ref().map_or_else(Vec::new, |log| log.pending(disk, range));
        pending.iter().map(ByteRange::len).sum()
    }

    /// A range was found equal.
    pub fn settle(&self, disk: DiskIndex, range: ByteRange) {
        if let Some(log) = &mut self.lock().log {
            log.settle(disk, range);
        }
    }

    /// Opens a window over the ranges whose content became unknown by failed writes; `None` when
    /// there are none.
    pub fn open_for_unknown(&self) -> Option<(WindowId, BTreeMap<DiskIndex, RangeSet>)> {
        let mut state = self.lock();
        let log = state.log.as_mut()?;
        let ranges = log.unknown().clone();
        if ranges.is_empty() {
            return None;
        }
        let window =
            log.open_window(WindowReason::CaptureGap, WindowMode::Copy, false, ranges.clone());
        drop(state);
        self.appended.notify_waiters();
        Some((window, ranges))
    }

    /// Closes all windows; gives the LSN of the last closing.
    pub fn close_windows(&self) -> Lsn {
        let mut state = self.lock();
        let lsn = state.log.as_mut().map_or(Lsn::ZERO, |log| {
            log.close_windows();
            log.tail().lsn
        });
        drop(state);
        self.appended.notify_waiters();
        lsn
    }

    /// Ends when the ring was put into the log up to `position`.
    pub async fn drained_to(&self, position: u64) {
        let mut drained = self.drained.subscribe();
        drained.wait_for(|drained| *drained >= position).await.expect("the sender is part of self");
    }

    /// Ends when a catch-up may add to the queue.
    pub async fn room_for_catch_up(&self) {
        loop {
            let freed = self.room_async.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.queued_bytes() < QUEUE_BYTES_CATCH_UP {
                return;
            }
            freed.await;
        }
    }

    /// Waits for room in the queue; false when the time is over.
    #[must_use]
    pub fn wait_room(&self, timeout: Duration) -> bool {
        let state = self.lock();
        let full = |state: &mut State| queued(state) >= QUEUE_BYTES_MAX;
        let (_state, result) = self
            .room
            .wait_timeout_while(state, timeout, full)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Bytes kept in memory.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        queued(&self.lock())
    }

    /// The newest record; `None` before a log was begun.
    #[must_use]
    pub fn tail(&self) -> Option<Tip> {
        self.lock().log.as_ref().map(SourceLog::tail)
    }

    /// What is durable where.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.lock().log.as_ref().map_or_else(Durable::default, SourceLog::durable)
    }

    /// True when the newest position is no recovery point.
    #[must_use]
    pub fn any_window_open(&self) -> bool {
        self.lock().log.as_ref().is_none_or(SourceLog::any_window_open)
    }

    /// Ends when the next hop has everything up to `lsn` durable.
    pub async fn durable_to(&self, lsn: Lsn) {
        loop {
            let freed = self.room_async.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.durable().here >= lsn {
                return;
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn queued(state: &State) -> usize {
    state.log.as_ref().map_or(0, SourceLog::queued_bytes)
}

/// All of a disk.
fn whole(disk: &Disk) -> ByteRange {
    ByteRange { start: 0, end: disk.geometry.size_bytes }
}

fn unavailable(reason: impl Into<String>) -> Refusal {
    Refusal::Unavailable { reason: reason.into() }
}

#[async_trait]
impl LogSource for Source {
    fn identity(&self) -> SourceIdentity {
        SourceIdentity { incarnation: self.lock().incarnation, ..self.identity.clone() }
    }

    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal> {
        let mut state = self.lock();
        if !state.active {
            return Err(unavailable("the capture is being started"));
        }
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
        let base = Tip { lsn: position.durable, chain: position.chain };
        let mut log = SourceLog::new(self.identity.lineage.epoch(), base, &position.open_windows);
        log.begin_incarnation(state.incarnation);
        let plan = Plan::from_position(position);
        let window = self.open(&mut log, &plan);
        state.log = Some(log);
        state.plan = Some((plan, window));
        state.waits_for_receiver = false;
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
        if let Some(log) = &mut self.lock().log {
            log.acknowledged(durable);
        }
        self.room.notify_all();
        self.room_async.notify_waiters();
    }
}
