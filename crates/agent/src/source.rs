//! The log between the capture, the catch-up and the session: [`landfall_repl::LogSource`] around a
//! [`SourceLog`].

mod rotten;
mod session;
mod waiting;

use crate::image::ImageProgress;
use crate::log::{CopyWindow, SourceLog, Tip};
use crate::plan::{Bitmap, DiskWork, Knowledge, Plan};
use crate::ranges::RangeSet;
use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_capture::{Capture, Captured, Loss, LostReason};
use landfall_model::{TimedLsn, Timeline};
use landfall_repl::{Durable, ImageCopyPosition, SourceIdentity};
use landfall_types::control::Geometry;
use landfall_types::{
    ByteRange, Control, DiskIndex, Incarnation, Lsn, Marker, UnixNanos, WindowId, WindowMode,
    WindowReason,
};
use rotten::Rotten;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// A catch-up stops adding here, so that captured writes find room.
pub const QUEUE_BYTES_CATCH_UP: usize = 32 << 20;
/// Markers remembered until they are durable at the target; beyond that some are passed over, which
/// only keeps dirty bits for longer.
const MARKERS_MAX: usize = 4096;
/// Markers in a report.
const TIMELINE_SHOWN: usize = 64;

/// How a load of the capture takes the log up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begin {
    /// Where the receiver stands; what to do follows from that.
    AtReceiver,
    /// The disks stand exactly here, and nothing has been written since.
    At(Tip),
    /// Behind our own newest record, with a window: the former load was lost.
    Behind(Plan),
}

/// Why the log can't be continued where the receiver stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// In words.
    pub why: String,
    /// The bitmap knows what the receiver lacks: a window in this load is enough. Else a new load,
    /// and everything is compared.
    pub bits_suffice: bool,
}

/// A place of the log that is a recovery point: where, and how far the ring was in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled {
    /// The marker.
    pub lsn: Lsn,
    /// The ring's position in the log there.
    pub ring: u64,
}

/// What earlier processes have left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// What the target had durable when dirty bits were dropped last.
    pub durable: Lsn,
    /// The incarnations that the bits know of, where they are of a life of the machine before this
    /// one; `None`: they are of this one.
    pub ancestry: Option<Vec<Incarnation>>,
}

struct State {
    log: Option<SourceLog>,
    /// The load that is active.
    capture: Option<Arc<Capture>>,
    plan: Option<(Plan, WindowId)>,
    broken: Option<Broken>,
    waits_for_receiver: bool,
    /// Disks whose work some window was opened for and none has done.
    unfinished: BTreeSet<DiskIndex>,
    rotten: Rotten,
    /// Markers that may not be durable at the target yet.
    markers: VecDeque<Settled>,
    settled: Option<Settled>,
    /// The target had this durable when dirty bits were dropped last.
    bits_since: Lsn,
    /// See [`Past::ancestry`].
    ancestry: Option<Vec<Incarnation>>,
    /// The receiver lost what was forgotten here, and the bitmap has it: why the log begins anew.
    lost_position: bool,
    /// Newest markers with their times.
    timeline: Timeline,
}

/// See the module.
pub struct Source {
    identity: SourceIdentity,
    disks: Vec<Disk>,
    queue_bytes_max: usize,
    /// How far the first copy is.
    pub(crate) image: ImageProgress,
    state: Mutex<State>,
    /// Records were appended: a waiting session reads on.
    appended: Notify,
    /// The session decided something: the run looks.
    decided: Notify,
    /// Room in the queue: the pump, which is a thread, goes on.
    room: Condvar,
    /// The same for tasks; also when more is durable.
    room_async: Notify,
    /// How far the ring has been put into the log.
    drained: watch::Sender<u64>,
}

impl Source {
    /// For the log of these disks; `identity.incarnation` is replaced by that of each load. At most
    /// `queue_bytes_max` bytes of records are kept in memory; beyond, the ring is not emptied, and
    /// what comes then is its overflow.
    #[must_use]
    pub fn new(
        identity: SourceIdentity,
        disks: Vec<Disk>,
        queue_bytes_max: usize,
        past: Past,
    ) -> Self {
        let state = State {
            log: None,
            capture: None,
            plan: None,
            broken: None,
            waits_for_receiver: false,
            unfinished: BTreeSet::new(),
            rotten: Rotten::default(),
            markers: VecDeque::new(),
            settled: None,
            bits_since: past.durable,
            ancestry: past.ancestry,
            lost_position: false,
            timeline: Timeline::default(),
        };
        Self {
            identity,
            disks,
            queue_bytes_max,
            image: ImageProgress::default(),
            state: Mutex::new(state),
            appended: Notify::new(),
            decided: Notify::new(),
            room: Condvar::new(),
            room_async: Notify::new(),
            drained: watch::channel(0).0,
        }
    }

    /// The capture is active: records of this incarnation follow.
    pub fn begin(&self, capture: Arc<Capture>, begin: Begin) {
        let mut state = self.lock();
        state.broken = None;
        state.plan = None;
        state.waits_for_receiver = false;
        state.markers.clear();
        state.settled = None;
        state.lost_position = false;
        state.timeline.clear();
        let (incarnation, ring) = (capture.incarnation(), capture.drained());
        state.ancestry.iter_mut().for_each(|all| all.push(incarnation));
        state.capture = Some(capture);
        self.drained.send_replace(ring);
        match begin {
            Begin::AtReceiver => {
                state.log = None;
                state.waits_for_receiver = true;
            }
            Begin::At(tip) => {
                let mut log = SourceLog::new(self.identity.lineage.epoch(), tip, &[]);
                log.begin_incarnation(incarnation, ring);
                state.log = Some(log);
            }
            Begin::Behind(plan) => {
                let log = state.log.as_mut().expect("a log was begun before it is gone on with");
                log.begin_incarnation(incarnation, ring);
                self.open(&mut state, plan);
            }
        }
        drop(state);
        self.appended.notify_waiters();
        self.decided.notify_one();
    }

    /// The capture has ended.
    pub fn end(&self) {
        self.lock().capture = None;
    }

    /// The disks as the capture knows them; none while it is being loaded.
    #[must_use]
    pub fn captured_disks(&self) -> Vec<landfall_capture::Disk> {
        let capture = self.lock().capture.clone();
        capture
            .map_or_else(Vec::new, |one| one.disks().iter().map(|(_, disk)| disk.clone()).collect())
    }

    /// True when there is a log to put records into.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.lock().log.is_some()
    }

    /// Opens the window of a plan, and says what the disks are like.
    fn open(&self, state: &mut State, mut plan: Plan) {
        let Some(log) = &mut state.log else { return };
        plan.ranges = state.rotten.waiting();
        let copy = match &plan.image {
            None => CopyWindow::None,
            Some(image) => image.window.map_or(CopyWindow::This, CopyWindow::GoesOn),
        };
        let mode = if plan.compares() { WindowMode::Compare } else { WindowMode::Copy };
        let mut ranges: BTreeMap<DiskIndex, RangeSet> =
            self.disks.iter().map(|disk| (disk.index, RangeSet::new())).collect();
        for disk in &self.disks {
            // Of a disk with a bitmap the ranges are known later: see `Source::extend_window`.
            if plan.disks.contains(&(disk.index, DiskWork::Compare)) {
                ranges.insert(disk.index, RangeSet::of(whole(disk)));
            }
        }
        state.unfinished.extend(plan.disks.iter().map(|(disk, _)| *disk));
        let window = log.open_window(plan.reason, mode, copy, ranges);
        if let Some(image) = &plan.image {
            let incarnation = state.capture.as_ref().map(|capture| capture.incarnation());
            // A copy that goes on without anything to be made up for was captured all along.
            let ours = incarnation.is_some_and(|one| self.image.is_of(one));
            let since =
                incarnation.filter(|_| ours || copy == CopyWindow::This || plan.disks.is_empty());
            let window = image.window.unwrap_or(window);
            let durable_bytes = image.durable_bytes.clone();
            self.image.set(ImageCopyPosition { window, durable_bytes }, since);
        }
        for disk in &self.disks {
            log.control(&Control::Geometry(Geometry {
                disk: disk.index.0,
                id: *disk.id.as_bytes(),
                size_bytes: disk.geometry.size_bytes,
                sector_bytes: disk.geometry.sector_bytes,
            }));
        }
        state.plan = Some((plan, window));
    }

    /// Takes records of the ring, up to position `drained`.
    pub fn captured(&self, records: Vec<Captured>, drained: u64) {
        let any = !records.is_empty();
        let mut state = self.lock();
        for record in records {
            let Some(log) = &mut state.log else { break };
            log.captured(record);
            if !log.unknown().is_empty() && log.catch_up_window().is_none() {
                // At once: a receiver that stood behind the failed write, and before the window,
                // would be gone on with by another process, which knows of no failure.
                let disks = Vec::new();
                let (image, ranges) = (None, Vec::new());
                let plan = Plan { reason: WindowReason::CaptureGap, image, disks, ranges };
                self.open(&mut state, plan);
                self.decided.notify_one();
            }
        }
        drop(state);
        self.drained.send_if_modified(|now| std::mem::replace(now, drained) != drained);
        if any {
            self.appended.notify_waiters();
        }
    }

    /// Data mode ended here: a window opens at this place, and what it needs is planned.
    pub fn lost(&self, loss: &Loss) {
        let mut state = self.lock();
        let every = || self.disks.iter().map(|disk| disk.index).collect();
        state.unfinished.extend(loss.disk.map_or_else(every, |disk| vec![disk]));
        let plan = self.plan_of_unfinished(&state, reason_of(loss.reason));
        self.open(&mut state, plan);
        drop(state);
        self.appended.notify_waiters();
        self.decided.notify_one();
    }

    /// Opens another window for what no window has done so far; for all disks where a pass is to be
    /// repeated because the last one closed inexactly.
    pub fn open_again(&self, reason: WindowReason) {
        let mut state = self.lock();
        if state.log.as_ref().is_some_and(|log| log.catch_up_window().is_none() && log.legal()) {
            return;
        }
        let plan = self.plan_of_unfinished(&state, reason);
        self.open(&mut state, plan);
        drop(state);
        self.appended.notify_waiters();
        self.decided.notify_one();
    }

    /// The work that windows which were given up have left, and the rest of a first copy.
    fn plan_of_unfinished(&self, state: &State, reason: WindowReason) -> Plan {
        let unfinished = state.unfinished.iter().copied();
        let mut plan = Plan::compare(reason, self.image.unfinished().as_ref(), unfinished);
        if let Some(capture) = &state.capture {
            // A first copy that began under this load: the bits since then are all that it lacks.
            let ours = self.image.is_of(capture.incarnation());
            for (disk, work) in &mut plan.disks {
                if ours || capture.has_baseline(*disk) {
                    *work = DiskWork::Dirty;
                }
            }
        }
        plan
    }

    /// Opens a window over every disk, by comparison: nothing is known of the past.
    #[must_use]
    pub fn plan_everything(&self, reason: WindowReason) -> Plan {
        let all = self.disks.iter().map(|disk| disk.index);
        Plan::compare(reason, self.image.unfinished().as_ref(), all)
    }

    fn knowledge(&self, capture: &Capture, state: &State) -> Knowledge {
        let (bits_since, ancestry) = (state.bits_since, state.ancestry.clone());
        let bitmap = |disk: &Disk| {
            let known = match capture.has_baseline(disk.index) {
                false => Bitmap::Nothing,
                true if capture.is_in_step(disk.index) => Bitmap::InStep,
                true => Bitmap::Dirty,
            };
            (disk.index, known)
        };
        Knowledge {
            incarnation: capture.incarnation(),
            origin: capture.origin(),
            ring: (capture.tail(), capture.head()),
            disks: self.disks.iter().map(bitmap).collect(),
            settled: bits_since,
            ancestry,
        }
    }

    /// Puts a marker into the log; `None` where the position is no recovery point, or nothing was
    /// begun.
    pub fn mark(&self, marker: Marker) -> Option<Lsn> {
        let mut state = self.lock();
        let log = state.log.as_mut()?;
        let time = UnixNanos(marker.time_unix_ns);
        let lsn = log.mark(marker)?;
        let ring = log.ring_position();
        // A write that failed is unknown until a window has covered it: no place to forget bits.
        if log.unknown().is_empty() && state.markers.len() < MARKERS_MAX {
            state.markers.push_back(Settled { lsn, ring });
        }
        state.timeline.push(lsn, time);
        drop(state);
        self.appended.notify_waiters();
        Some(lsn)
    }

    /// Newest markers with their times, from the one that the target has on: some of them.
    #[must_use]
    pub fn timeline(&self) -> Vec<TimedLsn> {
        self.lock().timeline.thinned(TIMELINE_SHOWN)
    }

    /// The newest recovery point that is durable at the target, once each.
    pub fn take_settled(&self) -> Option<Settled> {
        self.lock().settled.take()
    }

    /// What has to be done first, and in which window; handed out once.
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

    /// What the bitmap says is dirty is to be sent for `window`.
    pub fn extend_window(&self, window: WindowId, disk: DiskIndex, ranges: &[ByteRange]) {
        if let Some(log) = &mut self.lock().log {
            log.extend_window(window, disk, ranges);
        }
    }

    /// Appends what was read from a disk for `window`, where it is still pending (trap T-2); gives
    /// the bytes appended. The ring must have been drained up to its head at the end of the read
    /// ([`Source::drained_to`]).
    pub fn append_read(&self, window: WindowId, disk: DiskIndex, offset: u64, data: &Bytes) -> u64 {
        let appended =
            self.lock().log.as_mut().map_or(0, |log| log.append_read(window, disk, offset, data));
        self.appended.notify_waiters();
        appended
    }

    /// Bytes of a range that are still to be sent for `window`.
    #[must_use]
    pub fn pending_bytes(&self, window: WindowId, disk: DiskIndex, range: ByteRange) -> u64 {
        let state = self.lock();
        let log = state.log.as_ref();
        let pending = log.map_or_else(Vec::new, |log| log.pending(window, disk, range));
        pending.iter().map(ByteRange::len).sum()
    }

    /// A range was found equal.
    pub fn settle(&self, window: WindowId, disk: DiskIndex, range: ByteRange) {
        if let Some(log) = &mut self.lock().log {
            log.settle(window, disk, range);
        }
    }

    /// The ranges of failed writes, which are to be read again for `window`.
    pub fn take_unknown(&self, window: WindowId) -> BTreeMap<DiskIndex, RangeSet> {
        let mut state = self.lock();
        state.log.as_mut().map_or_else(BTreeMap::new, |log| log.take_unknown(window))
    }

    /// Closes the window that is being caught up; gives the LSN of its closing, `None` when another
    /// one has taken its place, or while ranges of failed writes are unknown.
    pub fn close_window(&self, window: WindowId, exact: bool) -> Option<Lsn> {
        let mut state = self.lock();
        let lsn = state.log.as_mut()?.close_window(window, exact)?;
        state.rotten.sent(lsn);
        if exact {
            state.unfinished.clear();
        }
        drop(state);
        self.appended.notify_waiters();
        Some(lsn)
    }

    /// True while `window` is the one that is being caught up.
    #[must_use]
    pub fn catches_up(&self, window: WindowId) -> bool {
        self.lock().log.as_ref().and_then(SourceLog::catch_up_window) == Some(window)
    }

    /// True while the content of some range is unknown, because a write to it failed.
    #[must_use]
    pub fn any_unknown(&self) -> bool {
        self.lock().log.as_ref().is_some_and(|log| !log.unknown().is_empty())
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

    /// True when the newest position is a recovery point.
    #[must_use]
    pub fn legal(&self) -> bool {
        self.lock().log.as_ref().is_some_and(SourceLog::legal)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the window of a loss is opened, in the words of the log.
fn reason_of(reason: LostReason) -> WindowReason {
    match reason {
        LostReason::Overflow => WindowReason::RingOverflow,
        LostReason::NoData => WindowReason::SelfTestFailed,
        LostReason::Asked => WindowReason::Requested,
        _ => WindowReason::CaptureGap,
    }
}

fn queued(state: &State) -> usize {
    state.log.as_ref().map_or(0, SourceLog::queued_bytes)
}

/// All of a disk.
fn whole(disk: &Disk) -> ByteRange {
    ByteRange { start: 0, end: disk.geometry.size_bytes }
}
