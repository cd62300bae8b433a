//! The thread that empties the ring into the log and puts markers there.

use crate::source::Source;
use landfall_api_types::{ApiError, codes};
use landfall_capture::{Capture, DiskState, Loss, State};
use landfall_types::{Lsn, Marker, MarkerKind};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Bytes taken from the ring at once.
const DRAIN_BYTES: usize = 1 << 20;
/// Longest sleep: orders and markers are looked at that often.
const NAP: Duration = Duration::from_millis(20);
/// How often it is checked that the disks are still the same (trap T-8).
const DISK_CHECK: Duration = Duration::from_millis(500);

const GO: u8 = 0;
const FINISH: u8 = 1;
const STOP: u8 = 2;

/// Why the thread ended.
pub(crate) enum PumpEnd {
    /// Everything before the loss is in the log.
    Lost(Loss),
    /// A disk is gone, or another one has its number.
    DiskReplaced,
    /// As asked.
    Stopped,
}

/// A marker that waits for the ring to be drained up to the head of its moment: all that was
/// written before belongs to it.
struct Due {
    head: u64,
    marker: Marker,
    reply: Option<oneshot::Sender<Result<Lsn, ApiError>>>,
}

struct Shared {
    order: AtomicU8,
    marks: Mutex<VecDeque<Due>>,
    capture: Arc<Capture>,
}

/// Steers the thread.
pub(crate) struct Pump(Arc<Shared>);

impl Pump {
    /// Starts the thread.
    pub(crate) fn spawn(
        capture: Arc<Capture>,
        source: Arc<Source>,
        marker_interval: Duration,
    ) -> (Self, oneshot::Receiver<PumpEnd>) {
        let marks = Mutex::new(VecDeque::new());
        let shared = Arc::new(Shared { order: AtomicU8::new(GO), marks, capture });
        let (ended, end) = oneshot::channel();
        let pump = Self(Arc::clone(&shared));
        let now = Instant::now();
        let mut worker = Worker {
            shared,
            source,
            marker_interval,
            next_marker: now + marker_interval,
            next_disk_check: now + DISK_CHECK,
        };
        std::thread::spawn(move || {
            let why = worker.run();
            // Before the end is told: whoever hears of it may load another capture at once.
            drop(worker);
            let _gone = ended.send(why);
        });
        (pump, end)
    }

    /// Puts a named marker into the log.
    pub(crate) fn mark(&self, name: String, reply: oneshot::Sender<Result<Lsn, ApiError>>) {
        self.0.due(MarkerKind::User, Some(name), Some(reply));
    }

    /// Empties the ring up to its head of now, puts a last marker into the log, and ends.
    pub(crate) fn finish(&self) {
        self.0.due(MarkerKind::CrashConsistent, None, None);
        self.0.order.store(FINISH, Ordering::SeqCst);
    }

    /// Ends at once.
    pub(crate) fn stop(&self) {
        self.0.order.store(STOP, Ordering::SeqCst);
    }
}

impl Shared {
    fn due(
        &self,
        kind: MarkerKind,
        name: Option<String>,
        reply: Option<oneshot::Sender<Result<Lsn, ApiError>>>,
    ) {
        // The time before the head: whatever ended before this time lies before that head.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_unix_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let marker = Marker { kind, time_unix_ns, name, group: None };
        let head = self.capture.head();
        let due = Due { head, marker, reply };
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push_back(due);
    }
}

struct Worker {
    shared: Arc<Shared>,
    source: Arc<Source>,
    marker_interval: Duration,
    next_marker: Instant,
    next_disk_check: Instant,
}

impl Worker {
    fn run(&mut self) -> PumpEnd {
        loop {
            let capture = &self.shared.capture;
            let order = self.shared.order.load(Ordering::SeqCst);
            if order == STOP {
                return PumpEnd::Stopped;
            }
            let mut idle = true;
            if self.source.wait_room(NAP) {
                let records = capture.drain(DRAIN_BYTES);
                idle = records.is_empty();
                let drained = capture.drained();
                // Into the log before it is freed in the ring. That the log is memory too loses
                // nothing: without pinned programs the ring dies with this process as well.
                self.source.captured(records, drained);
                capture.release(drained);
            }
            self.place_markers();
            if capture.is_exhausted()
                && let State::Lost(loss) = capture.state()
            {
                return PumpEnd::Lost(loss);
            }
            if order == FINISH && self.marks_are_placed() {
                return PumpEnd::Stopped;
            }
            if let Some(end) = self.timed() {
                return end;
            }
            if idle {
                let until_marker = self.next_marker.saturating_duration_since(Instant::now());
                let _ready = self.shared.capture.wait_readable(until_marker.min(NAP));
            }
        }
    }

    /// What is done by the clock.
    fn timed(&mut self) -> Option<PumpEnd> {
        let now = Instant::now();
        if now >= self.next_marker {
            self.next_marker = now + self.marker_interval;
            self.shared.due(MarkerKind::CrashConsistent, None, None);
        }
        if now >= self.next_disk_check {
            self.next_disk_check = now + DISK_CHECK;
            let capture = &self.shared.capture;
            let replaced = |disk| capture.disk_state(disk) == DiskState::Replaced;
            if capture.disks().iter().any(|(disk, _)| replaced(*disk)) {
                return Some(PumpEnd::DiskReplaced);
            }
        }
        None
    }

    fn marks_are_placed(&self) -> bool {
        self.shared.marks.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn place_markers(&self) {
        let drained = self.shared.capture.drained();
        let mut marks = self.shared.marks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(due) = marks.pop_front_if(|due| due.head <= drained) {
            let placed = self.source.mark(due.marker);
            if let Some(reply) = due.reply {
                let answer = placed.ok_or_else(|| {
                    ApiError::new(&codes::NO_POINT_YET, "a first copy or a catch-up is under way")
                });
                let _gone = reply.send(answer);
            }
        }
    }
}
