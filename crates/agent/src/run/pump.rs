//! The thread that empties the ring into the log and puts markers there.

mod due;

pub(crate) use due::{Asking, Held, Verdict};

use super::limits::{Used, Watch, cpu_time};
use crate::settings::Limits;
use crate::source::Source;
use due::{Due, Marks};
use landfall_capture::{Capture, Captured, DiskState, Loss};
use landfall_types::{Marker, MarkerKind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

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
#[derive(Debug)]
pub(crate) enum PumpEnd {
    /// A disk is gone, or another one has its number.
    DiskReplaced,
    /// A disk has another size than it had (trap T-9).
    DiskResized,
    /// As asked.
    Stopped,
}

struct Shared {
    order: AtomicU8,
    marks: Marks,
    capture: Arc<Capture>,
}

/// Steers the thread.
pub(crate) struct Pump(Arc<Shared>);

/// What the thread works with.
pub(crate) struct PumpConfig {
    pub(crate) capture: Arc<Capture>,
    pub(crate) source: Arc<Source>,
    pub(crate) marker_interval: Duration,
    /// What the capture has lost is told here, when all that lies before is in the log.
    pub(crate) losses: mpsc::UnboundedSender<Loss>,
    /// Capture outlives this process: the ring is its memory.
    pub(crate) pinned: bool,
    /// Size of the ring in bytes.
    pub(crate) ring_bytes: u64,
    /// Beyond them bytes are not captured for a while.
    pub(crate) limits: Limits,
}

impl Pump {
    /// Starts the thread.
    pub(crate) fn spawn(config: PumpConfig) -> (Self, oneshot::Receiver<PumpEnd>) {
        let capture = Arc::clone(&config.capture);
        let shared =
            Arc::new(Shared { order: AtomicU8::new(GO), marks: Marks::default(), capture });
        let (ended, end) = oneshot::channel();
        let pump = Self(Arc::clone(&shared));
        let now = Instant::now();
        let mut worker = Worker {
            shared,
            next_marker: now + config.marker_interval,
            next_disk_check: now + DISK_CHECK,
            watch: Watch::new(config.limits, now, used(&config.capture)),
            carried: VecDeque::new(),
            reached: config.capture.drained(),
            config,
        };
        std::thread::spawn(move || {
            let why = worker.run();
            // Before the end is told: whoever hears of it may load another capture at once.
            drop(worker);
            let _gone = ended.send(why);
        });
        (pump, end)
    }

    /// Puts a marker into the log, at exactly this moment. With `held` it waits, and with it every
    /// later write, until the verdict is given.
    pub(crate) fn mark(&self, kind: MarkerKind, name: Option<String>, held: Held) {
        self.0.due(kind, name, held);
    }

    /// Empties the ring up to its head of now, puts a last marker into the log, and ends.
    pub(crate) fn finish(&self) {
        self.0.due(MarkerKind::CrashConsistent, None, Held::default());
        self.0.order.store(FINISH, Ordering::SeqCst);
    }

    /// Ends at once.
    pub(crate) fn stop(&self) {
        self.0.order.store(STOP, Ordering::SeqCst);
    }
}

impl Shared {
    fn due(&self, kind: MarkerKind, name: Option<String>, held: Held) {
        // The time before the head: whatever ended before this time lies before that head.
        let time_unix_ns = crate::clock::unix_ns();
        let group = held.group.map(|group| *group.as_bytes());
        let marker = Marker { kind, time_unix_ns, name, group };
        self.marks.push(Due::new(self.capture.head(), marker, held));
    }
}

fn used(capture: &Capture) -> Used {
    let bytes = capture.disks().iter().map(|(disk, _)| capture.counters(*disk).bytes).sum();
    Used { bytes, cpu: cpu_time() }
}

struct Worker {
    shared: Arc<Shared>,
    config: PumpConfig,
    next_marker: Instant,
    next_disk_check: Instant,
    watch: Watch,
    /// Taken from the ring, not yet in the log.
    carried: VecDeque<Captured>,
    /// The ring's position behind the last of them.
    reached: u64,
}

impl Worker {
    fn run(&mut self) -> PumpEnd {
        loop {
            let order = self.shared.order.load(Ordering::SeqCst);
            if order == STOP {
                return PumpEnd::Stopped;
            }
            let mut idle = true;
            let begun = self.config.source.begun();
            if begun && self.carried.is_empty() && self.config.source.wait_room(NAP) {
                let capture = &self.shared.capture;
                self.carried.extend(capture.drain(DRAIN_BYTES));
                idle = self.carried.is_empty();
                self.reached = capture.drained();
            }
            let held = !self.feed();
            self.release();
            if self.carried.is_empty() {
                while let Some(loss) = self.shared.capture.take_loss() {
                    self.config.source.lost(&loss);
                    let _ending = self.config.losses.send(loss);
                }
            }
            if order == FINISH && self.carried.is_empty() && self.shared.marks.is_empty() {
                return PumpEnd::Stopped;
            }
            if let Some(end) = self.timed() {
                return end;
            }
            if held || !begun {
                // A verdict or a receiver comes within moments, or not for long.
                std::thread::park_timeout(Duration::from_millis(1));
            } else if idle {
                let until_marker = self.next_marker.saturating_duration_since(Instant::now());
                let _ready = self.shared.capture.wait_readable(until_marker.min(NAP));
            }
        }
    }

    /// Puts what is carried into the log, each marker at its place; false when one waits for its
    /// verdict, and what lies behind it with it.
    fn feed(&mut self) -> bool {
        loop {
            let due = self.shared.marks.first_head();
            let until = due.unwrap_or(u64::MAX);
            let count = self.carried.partition_point(|record| record.ring_position <= until);
            let records: Vec<Captured> = self.carried.drain(..count).collect();
            let position = match self.carried.is_empty() {
                true => self.reached,
                // More is carried, and it lies behind the marker.
                false => until,
            };
            self.config.source.captured(records, position);
            match due {
                Some(head) if head <= position => {
                    if !self.shared.marks.place_first(&self.config.source) {
                        return false;
                    }
                }
                Some(_) | None => return true,
            }
        }
    }

    /// Frees the ring behind what is in the log.
    ///
    /// A pinned ring is the memory of an agent that dies: what the next hop does not have durable
    /// stays in it, so that the next agent goes on there without a catch-up. Only where half of the
    /// ring waits like that, what this process's memory holds is given up there: then a death means
    /// a short catch-up of what the bitmap has, and an overflow would mean one at once.
    fn release(&self) {
        let (capture, source) = (&self.shared.capture, &self.config.source);
        let position = source.drained();
        let held = capture.head().saturating_sub(capture.tail());
        if self.config.pinned && held < self.config.ring_bytes / 2 {
            capture.release(source.acknowledged_ring().min(position));
        } else {
            capture.release(position);
        }
    }

    /// What is done by the clock.
    fn timed(&mut self) -> Option<PumpEnd> {
        let now = Instant::now();
        if now >= self.next_marker {
            self.next_marker = now + self.config.marker_interval;
            self.shared.due(MarkerKind::CrashConsistent, None, Held::default());
        }
        let capture = &self.shared.capture;
        if let Some(reason) = self.watch.look(now, || used(capture)) {
            tracing::warn!(code = reason.code(), "a limit of this agent was passed");
            capture.stop(reason);
        }
        if now >= self.next_disk_check {
            self.next_disk_check = now + DISK_CHECK;
            let capture = &self.shared.capture;
            let replaced = |disk| capture.disk_state(disk) == DiskState::Replaced;
            if capture.disks().iter().any(|(disk, _)| replaced(*disk)) {
                return Some(PumpEnd::DiskReplaced);
            }
            let resized = |disk: &landfall_capture::Disk| {
                disk.size_bytes_now().is_ok_and(|now| now != disk.geometry.size_bytes)
            };
            if capture.disks().iter().any(|(_, disk)| resized(disk)) {
                return Some(PumpEnd::DiskResized);
            }
        }
        None
    }
}
