use crate::barrier::Armed;
use crate::disk::Disk;
use crate::kernel;
use crate::layout::{self, control, counters};
use crate::program::Program;
use crate::record::{Captured, Loss};
use crate::ring::{Found, Reader};
use crate::{CaptureError, LostReason, Mode, Origin, self_test};
use landfall_types::{DiskIndex, Incarnation};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Smallest ring: one segment.
pub const RING_BYTES_MIN: u64 = layout::SEGMENT_BYTES;

/// A disk to capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// How the records name it.
    pub disk: DiskIndex,
    /// Its device, for example `/dev/vda`.
    pub path: PathBuf,
}

/// How capture is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring in bytes, rounded up to segments of 2 MiB. It is locked memory.
    pub ring_bytes: u64,
    /// A record that is reserved but not completed for so long never will be.
    pub stuck_after: Duration,
    /// How long a first [`Capture::barrier`] waits for a moment without any write in flight.
    pub settle_max: Duration,
    /// Directory in a bpffs where programs and maps are pinned, so that capture outlives this
    /// process; `None`: it ends with it. One for each installation, for example
    /// `/sys/fs/bpf/landfall/ID`.
    pub pin: Option<PathBuf>,
    /// What the bitmaps are relative to: any number that names the replica. A pinned capture of
    /// another owner is replaced, and its bitmaps are not used.
    pub owner: u128,
    /// Added to the address of the kernel's direct map. Only tests use other values than 0: it
    /// makes the self-test fail.
    pub page_offset_error: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 20,
            stuck_after: Duration::from_secs(5),
            settle_max: Duration::from_secs(2),
            pin: None,
            owner: 0,
            page_offset_error: 0,
        }
    }
}

/// Whether bytes are being captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Every write is captured with its bytes.
    Data,
    /// Not any more; what lies before the loss is a consistent prefix.
    Lost(Loss),
}

/// Whether a target is still the disk that capture began with (trap T-8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskState {
    /// It is.
    Present,
    /// It is gone, or another disk has its number. Its session is over; the other disks go on.
    Replaced,
}

/// Counts of one disk since the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Writes that the hook saw.
    pub submitted: u64,
    /// Of those, the ones that have ended.
    pub completed: u64,
    /// Of those, the ones that ended with an error.
    pub failed: u64,
    /// Writes that ended without having been seen: those in flight when capture began, or trap T-7.
    pub beside: u64,
    /// Writes for which the kernel skipped the hook.
    pub missed: u64,
    /// Bytes of data captured.
    pub bytes: u64,
}

/// A running capture of some disks. Dropping it detaches everything.
pub struct Capture {
    pub(crate) program: Program,
    pub(crate) disks: Vec<(DiskIndex, Disk)>,
    pub(crate) options: Options,
    pub(crate) armed: Mutex<Armed>,
    incarnation: Incarnation,
    reading: Mutex<Reading>,
}

struct Reading {
    reader: Reader,
    released: u64,
    /// A loss that the loader itself found.
    loss: Option<Loss>,
    /// The loss was handed out by [`Capture::take_loss`].
    loss_taken: bool,
}

impl Capture {
    /// Runs the self-test, then captures the writes of `targets`.
    ///
    /// Writes that were submitted before may still be in flight: [`Capture::barrier`] waits for
    /// them, and must be called before the disks' content is read.
    ///
    /// # Errors
    /// [`CaptureError`]: the kernel or a disk can't be captured, or the self-test failed.
    pub fn start(targets: &[Target], options: Options) -> Result<Self, CaptureError> {
        kernel::check()?;
        let report = self_test::self_test(&options)?;
        tracing::debug!(bytes = report.bytes, records = report.records, "capture self-test passed");
        Self::start_untested(targets, options)
    }

    /// Without the self-test, which needs it itself.
    pub(crate) fn start_untested(
        targets: &[Target],
        options: Options,
    ) -> Result<Self, CaptureError> {
        let disks = inspect(targets)?;
        let key = random()?;
        let bare: Vec<Disk> = disks.iter().map(|(_, disk)| disk.clone()).collect();
        let (mut program, ring, segments) = Program::load(&bare, key, &options)?;
        program.attach()?;
        // Between the look at the disk and the load another one can have come: then the filter
        // matches nothing.
        for (index, disk) in &disks {
            if !disk.is_present() {
                return Err(CaptureError::DiskReplaced(*index));
            }
        }
        let reader = Reader::new(ring, segments, key, options.stuck_after);
        let reading = Mutex::new(Reading { reader, released: 0, loss: None, loss_taken: false });
        let armed = Mutex::new(Armed::No);
        let incarnation = Incarnation::new(key);
        Ok(Self { program, disks, options, armed, incarnation, reading })
    }

    /// Where this capture comes from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        Origin::Fresh
    }

    /// What is captured of one disk now.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn mode(&self, disk: DiskIndex) -> Mode {
        let _target = self.slot(disk);
        match self.state() {
            State::Data => Mode::Data,
            State::Lost(loss) => Mode::Bitmap(loss.reason),
        }
    }

    /// A loss whose position the reader has reached: once for each, and [`Capture::drain`] goes on
    /// behind it only afterwards. The caller opens a window at this place of its log.
    #[must_use]
    pub fn take_loss(&self) -> Option<Loss> {
        let mut reading = self.reading();
        let loss = self.loss(&reading)?;
        if reading.loss_taken || reading.reader.position() < loss.at {
            return None;
        }
        reading.loss_taken = true;
        Some(loss)
    }

    /// The ring's position up to which it was released.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.reading().released
    }

    /// Goes on reading at `position`: where the receiver says that it has everything before.
    ///
    /// # Errors
    /// [`CaptureError::Position`] when the ring does not hold it any more, or never has.
    pub fn seek(&self, position: u64) -> Result<(), CaptureError> {
        let (tail, head) = (self.tail(), self.head());
        if position == self.drained() {
            return Ok(());
        }
        Err(CaptureError::Position { position, tail, head })
    }

    /// Names this load; a new one always begins with a catch-up (trap T-1).
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The disks and their identity, in the order of the targets.
    #[must_use]
    pub fn disks(&self) -> &[(DiskIndex, Disk)] {
        &self.disks
    }

    /// The ring's position behind the newest record: every write submitted before this call lies
    /// before it.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.program.control.word(control::HEAD).load(Ordering::SeqCst)
    }

    /// The ring's position behind the last record that was handed out by [`Capture::drain`].
    #[must_use]
    pub fn drained(&self) -> u64 {
        self.reading().reader.position()
    }

    /// Takes records in ring order, at least one if there is any, then until `bytes_max` bytes of
    /// data are reached. Stops at the first that is not complete yet, and before the position of a
    /// loss.
    #[must_use]
    pub fn drain(&self, bytes_max: usize) -> Vec<Captured> {
        let mut reading = self.reading();
        let mut records = Vec::new();
        let mut bytes = 0;
        // The loss is read after the head: records before a loss are in the ring when it is set.
        let head = self.head();
        let limit = self.loss(&reading).map_or(head, |loss| loss.at.min(head));
        while records.is_empty() || bytes < bytes_max {
            match reading.reader.next(limit, self.disks.len()) {
                Found::Record(mut record) => {
                    bytes += payload_bytes(&record);
                    record.disk = self.disks[usize::from(record.disk.0)].0;
                    records.push(record);
                }
                Found::Nothing => break,
                Found::Loss(reason) => {
                    let at = reading.reader.position();
                    self.program.stop();
                    reading.loss.get_or_insert(Loss { reason, disk: None, at });
                    break;
                }
            }
        }
        records
    }

    /// Frees the ring up to `position`: what lies before is durable elsewhere.
    ///
    /// # Panics
    /// Beyond what was drained: the ring would overwrite records that nobody has read.
    pub fn release(&self, position: u64) {
        let mut reading = self.reading();
        assert!(position <= reading.reader.position(), "only what was drained can be released");
        if position > reading.released {
            reading.released = position;
            self.program.control.word(control::TAIL).store(position, Ordering::Release);
        }
    }

    /// Waits until a record is ready, or capture ends, or the time is over; true when there is
    /// something to do.
    #[must_use]
    pub fn wait_readable(&self, timeout: Duration) -> bool {
        if self.something_to_do() {
            return true;
        }
        // The flag before the second look: a record that is committed in between either is seen by
        // that look, or its writer sees the flag and wakes us.
        self.program.control.word(control::WAITING).store(1, Ordering::SeqCst);
        if !self.something_to_do() {
            self.program.wake.wait(timeout);
        }
        self.program.control.word(control::WAITING).store(0, Ordering::SeqCst);
        self.something_to_do()
    }

    fn something_to_do(&self) -> bool {
        let reading = self.reading();
        match self.loss(&reading) {
            Some(_) => true,
            None => reading.reader.position() < self.head() && reading.reader.ready(),
        }
    }

    /// Whether bytes are being captured. After a loss, records before its position can still be
    /// drained.
    #[must_use]
    pub fn state(&self) -> State {
        self.loss(&self.reading()).map_or(State::Data, State::Lost)
    }

    /// True when capture has ended and everything before the loss was drained.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let reading = self.reading();
        self.loss(&reading).is_some_and(|loss| reading.reader.position() >= loss.at)
    }

    fn loss(&self, reading: &Reading) -> Option<Loss> {
        // What the loader found lies before anything that it has not read yet.
        if let Some(loss) = reading.loss {
            return Some(loss);
        }
        let lost = self.program.control.word(control::LOST).load(Ordering::SeqCst);
        let (reason, slot, at) = layout::unpack_lost(lost)?;
        let disk = self.disks.get(usize::from(slot)).map(|(index, _)| *index);
        Some(Loss { reason, disk, at })
    }

    /// Ends capture for good, with this reason.
    pub fn stop(&self, reason: LostReason) {
        let mut reading = self.reading();
        self.program.stop();
        if self.loss(&reading).is_none() {
            reading.loss = Some(Loss { reason, disk: None, at: self.head() });
        }
    }

    /// Whether a target is still the same disk.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn disk_state(&self, disk: DiskIndex) -> DiskState {
        let slot = self.slot(disk);
        let replaced = self.counter(slot, counters::REPLACED) != 0;
        if replaced || !self.disks[slot].1.is_present() {
            DiskState::Replaced
        } else {
            DiskState::Present
        }
    }

    /// Counts of one disk.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn counters(&self, disk: DiskIndex) -> Counters {
        let slot = self.slot(disk);
        Counters {
            submitted: self.counter(slot, counters::SUBMITTED),
            completed: self.counter(slot, counters::COMPLETED),
            failed: self.counter(slot, counters::FAILED),
            beside: self.counter(slot, counters::BESIDE),
            missed: self.counter(slot, counters::MISSED),
            bytes: self.counter(slot, counters::BYTES),
        }
    }

    pub(crate) fn slot(&self, disk: DiskIndex) -> usize {
        self.disks.iter().position(|(index, _)| *index == disk).expect("the disk is a target")
    }

    fn counter(&self, slot: usize, offset: usize) -> u64 {
        let at = control::COUNTERS + slot * layout::COUNTERS_BYTES + offset;
        self.program.control.word(at).load(Ordering::Relaxed)
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn payload_bytes(record: &Captured) -> usize {
    match &record.kind {
        crate::CapturedKind::Write(data) => data.len(),
        crate::CapturedKind::Zero | crate::CapturedKind::Discard | crate::CapturedKind::Failed => 0,
    }
}

fn inspect(targets: &[Target]) -> Result<Vec<(DiskIndex, Disk)>, CaptureError> {
    if targets.is_empty() || targets.len() > layout::TARGETS_MAX {
        let count = targets.len();
        let most = layout::TARGETS_MAX;
        return Err(CaptureError::Targets(format!(
            "{count} disks, where 1 to {most} are possible"
        )));
    }
    let mut disks: Vec<(DiskIndex, Disk)> = Vec::with_capacity(targets.len());
    for target in targets {
        let disk = Disk::inspect(&target.path)?;
        let twice = disks.iter().find(|(index, other)| {
            *index == target.disk || (other.major, other.minor) == (disk.major, disk.minor)
        });
        if let Some((_, other)) = twice {
            let (a, b) = (other.path.display(), disk.path.display());
            return Err(CaptureError::Targets(format!("{a} and {b} are the same disk or index")));
        }
        disks.push((target.disk, disk));
    }
    Ok(disks)
}

/// A load key: random, so that bytes of an earlier load never look committed, and never 0 ("no
/// incarnation").
fn random() -> Result<u64, CaptureError> {
    loop {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(CaptureError::Random)?;
        match u64::from_ne_bytes(bytes) {
            0 => {}
            key => return Ok(key),
        }
    }
}
