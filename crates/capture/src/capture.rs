use crate::disk::Disk;
use crate::layout::{self, control, counters, target};
use crate::maps::Maps;
use crate::open::{Opened, Pinned};
use crate::options::{Options, Target};
use crate::record::{Captured, CapturedKind, Loss};
use crate::ring::{Found, Reader};
use crate::{CaptureError, LostReason, Mode, Origin, Quiet};
use landfall_types::{ByteRange, DiskIndex, Incarnation};
use libbpf_rs::Link;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether bytes are being captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Every write to every disk is captured with its bytes.
    Data,
    /// Not any more for at least one disk; this is the first loss.
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

/// A running capture of some disks. Dropping it detaches everything, unless it is pinned.
pub struct Capture {
    /// First, so that it is dropped first: no program runs any more when the maps go. Empty where
    /// the capture was taken over: then the pins alone hold the programs.
    links: Vec<Link>,
    pub(crate) maps: Maps,
    pub(crate) disks: Vec<(DiskIndex, Disk)>,
    pub(crate) options: Options,
    /// What the first barrier found, and how many writes were untracked then.
    pub(crate) settled: Mutex<Option<(u64, Quiet)>>,
    origin: Origin,
    incarnation: Incarnation,
    /// A packed loss that ends the ring as a whole, or 0.
    broken: AtomicU64,
    reading: Mutex<Reader>,
    working: Mutex<Working>,
    pinned: Option<Pinned>,
}

/// What the loader itself remembers.
pub(crate) struct Working {
    /// For each slot, ranges that became pending after the newest collect.
    pub(crate) late: Vec<Vec<ByteRange>>,
    /// Ranges that have to be read again, and are in no record.
    pub(crate) unknown: Vec<(DiskIndex, ByteRange)>,
    /// When the generation was last changed, or given up.
    pub(crate) rotated_at: Instant,
    /// How often a disk came back into data mode.
    pub(crate) returned: u64,
    /// Writes taken for ended.
    pub(crate) given_up: u64,
    /// Overlaps whose blocks are no longer suspect.
    pub(crate) suspects_forgotten: u64,
    /// The ring was empty at the last look.
    idle: bool,
}

impl Capture {
    /// Runs the self-test, then captures the writes of `targets`; or takes over what an earlier
    /// process has pinned ([`Options::pin`], [`Capture::origin`]).
    ///
    /// Writes that were submitted before may still be in flight: [`Capture::barrier`] waits for
    /// them, and must be called before the disks' content is read.
    ///
    /// # Errors
    /// [`CaptureError`]: the kernel or a disk can't be captured, the self-test failed, or another
    /// process has the pins.
    pub fn start(targets: &[Target], options: Options) -> Result<Self, CaptureError> {
        crate::open::open(targets, options)
    }

    pub(crate) fn new(opened: Opened) -> Self {
        let Opened { links, maps, disks, options, origin, pinned } = opened;
        let key = maps.get(control::KEY);
        let tail = maps.get(control::TAIL);
        let reader = Reader::new(maps.get(control::SEGMENTS), key, tail, options.stuck_after);
        // The guard was armed by the process before us, when it had waited for what came before it.
        let armed = maps.get(control::GUARD_BESIDE) != 0;
        let settled = armed.then(|| (maps.get(control::UNTRACKED), Quiet::Guarded));
        let working = Working {
            late: vec![Vec::new(); disks.len()],
            unknown: Vec::new(),
            rotated_at: Instant::now(),
            returned: 0,
            given_up: 0,
            suspects_forgotten: 0,
            idle: false,
        };
        Self {
            links,
            maps,
            disks,
            options,
            settled: Mutex::new(settled),
            origin,
            incarnation: Incarnation::new(key),
            broken: AtomicU64::new(0),
            reading: Mutex::new(reader),
            working: Mutex::new(working),
            pinned,
        }
    }

    /// Where this capture comes from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
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
        self.maps.get(control::HEAD)
    }

    /// The ring's position behind the last record that was handed out by [`Capture::drain`].
    #[must_use]
    pub fn drained(&self) -> u64 {
        self.reading().position()
    }

    /// The ring's position up to which it was released.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.maps.get(control::TAIL)
    }

    /// Goes on reading at `position`: where the receiver says that it has everything before.
    ///
    /// # Errors
    /// [`CaptureError::Position`] when the ring does not hold it any more, or never has, or when no
    /// record begins there.
    pub fn seek(&self, position: u64) -> Result<(), CaptureError> {
        let mut reader = self.reading();
        let (tail, head) = (self.tail(), self.head());
        let begins = position == head || reader.begins_at(&self.maps.ring, position);
        if position < tail || position > head || !position.is_multiple_of(8) || !begins {
            return Err(CaptureError::Position { position, tail, head });
        }
        reader.seek(position);
        Ok(())
    }

    /// Takes records in ring order, at least one if there is any, then until `bytes_max` bytes of
    /// data are reached. Stops at the first that is not complete yet, and before the position of a
    /// loss that was not taken ([`Capture::take_loss`]).
    #[must_use]
    pub fn drain(&self, bytes_max: usize) -> Vec<Captured> {
        let mut reader = self.reading();
        let mut records = Vec::new();
        let mut bytes = 0;
        // The losses are read after the head: records before a loss are in the ring when it is set.
        let head = self.head();
        let limit = self.next_loss().map_or(head, |loss| loss.at.min(head));
        while records.is_empty() || bytes < bytes_max {
            let begun = records.len();
            match reader.next(&self.maps.ring, limit, self.disks.len(), bytes_max, &mut records) {
                Found::Records(taken) => bytes += taken,
                Found::Nothing => break,
                Found::Broken(reason) => {
                    self.break_at(reason, reader.position());
                    break;
                }
            }
            for record in &mut records[begun..] {
                self.name(record);
            }
        }
        let mut working = self.working();
        working.idle = records.is_empty();
        for (disk, range) in std::mem::take(&mut working.unknown) {
            let ring_position = reader.position();
            let (offset, length) = (range.start, range.len());
            let kind = CapturedKind::Failed;
            records.push(Captured { disk, kind, offset, length, ring_position, time_ns: 0 });
        }
        records
    }

    /// Gives a record its disk's index, and keeps a range that became unknown pending: the agent
    /// may die before it has read it again.
    fn name(&self, record: &mut Captured) {
        let slot = usize::from(record.disk.0);
        record.disk = self.disks[slot].0;
        if record.kind == CapturedKind::Failed {
            let range = ByteRange { start: record.offset, end: record.offset + record.length };
            self.make_pending(&mut self.working(), slot, range);
        }
    }

    /// Frees the ring up to `position`: what lies before needs it no more.
    ///
    /// # Panics
    /// Beyond what was drained: the ring would overwrite records that nobody has read.
    pub fn release(&self, position: u64) {
        let reader = self.reading();
        assert!(position <= reader.position(), "only what was drained can be released");
        if position > self.tail() {
            self.maps.word(control::TAIL).store(position, Ordering::Release);
        }
    }

    /// Waits until there are records, or a loss, or the time is over; true when there is something
    /// to do. Right after the ring was found empty it rests for [`Options::rest`] first, unless
    /// [`Options::wake_bytes`] come.
    #[must_use]
    pub fn wait_readable(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        let idle = self.working().idle;
        if !idle && self.something_to_do() {
            return true;
        }
        let rest = self.options.rest.min(timeout);
        self.sleep_until(self.drained() + self.options.wake_bytes.max(1), rest);
        while !self.something_to_do() && begun.elapsed() < timeout {
            self.sleep_until(self.drained() + 1, timeout.saturating_sub(begun.elapsed()));
        }
        self.something_to_do()
    }

    /// Sleeps until the head is there, or something is lost, or the time is over.
    fn sleep_until(&self, head: u64, timeout: Duration) {
        // The word before the look: a record that is reserved in between either is seen by that
        // look, or its writer sees the word and wakes us.
        self.maps.set(control::WAKE_AT, head);
        if self.head() < head && self.next_loss().is_none() && !timeout.is_zero() {
            self.maps.wake.wait(timeout);
        }
        self.maps.set(control::WAKE_AT, 0);
    }

    fn something_to_do(&self) -> bool {
        let reader = self.reading();
        self.next_loss().is_some()
            || reader.position() < self.head() && reader.ready(&self.maps.ring)
    }

    /// What is captured of one disk now.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn mode(&self, disk: DiskIndex) -> Mode {
        let slot = self.slot(disk);
        match self.broken().map(|loss| loss.reason).or(self.loss_of(slot).map(|(why, _)| why)) {
            Some(reason) => Mode::Bitmap(reason),
            None => Mode::Data,
        }
    }

    /// A loss whose position the reader has reached: once for each, and [`Capture::drain`] goes on
    /// behind it only afterwards. The caller opens a window at this place of its log.
    #[must_use]
    pub fn take_loss(&self) -> Option<Loss> {
        let position = self.drained();
        let loss = self.next_loss().filter(|loss| position >= loss.at)?;
        for slot in 0..self.disks.len() {
            if loss.disk.is_none_or(|disk| disk == self.disks[slot].0) {
                self.maps.target_set(slot, target::TAKEN, 1);
            }
        }
        Some(loss)
    }

    /// The first loss that was not taken.
    fn next_loss(&self) -> Option<Loss> {
        let taken = |slot| self.maps.target_get(slot, target::TAKEN) != 0;
        let slots = 0..self.disks.len();
        if let Some(loss) = self.broken() {
            // It lies before anything that was not read yet.
            return slots.clone().any(|slot| !taken(slot)).then_some(loss);
        }
        self.losses().filter(|(slot, _)| !taken(*slot)).map(|(_, loss)| loss).min_by_key(|l| l.at)
    }

    fn losses(&self) -> impl Iterator<Item = (usize, Loss)> {
        self.disks.iter().enumerate().filter_map(|(slot, (disk, _))| {
            let (reason, at) = self.loss_of(slot)?;
            Some((slot, Loss { reason, disk: Some(*disk), at }))
        })
    }

    pub(crate) fn loss_of(&self, slot: usize) -> Option<(LostReason, u64)> {
        layout::unpack_lost(self.maps.target_get(slot, target::LOST))
    }

    /// Whether bytes of all disks are being captured. After a loss, records before its position can
    /// still be drained.
    #[must_use]
    pub fn state(&self) -> State {
        let first = || self.losses().map(|(_, loss)| loss).min_by_key(|loss| loss.at);
        self.broken().or_else(first).map_or(State::Data, State::Lost)
    }

    /// True when bytes of a disk are not captured any more, and everything before that was drained.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        match self.state() {
            State::Data => false,
            State::Lost(loss) => self.drained() >= loss.at,
        }
    }

    /// Ends data mode of all disks, with this reason.
    pub fn stop(&self, reason: LostReason) {
        for (disk, _) in &self.disks {
            self.fall_back(*disk, reason);
        }
    }

    /// The ring can't be read any further: only a new load can capture bytes. Marking goes on.
    fn break_at(&self, reason: LostReason, at: u64) {
        self.broken.store(layout::pack_lost(reason, at), Ordering::SeqCst);
        for slot in 0..self.disks.len() {
            self.maps.target_set(slot, target::TAKEN, 0);
            self.maps.target_set(slot, target::LOST, layout::pack_lost(reason, at));
            self.maps.target_set(slot, target::MODE, layout::MODE_BITMAP);
        }
    }

    pub(crate) fn broken(&self) -> Option<Loss> {
        let (reason, at) = layout::unpack_lost(self.broken.load(Ordering::SeqCst))?;
        Some(Loss { reason, disk: None, at })
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken().is_some()
    }

    /// Whether a target is still the same disk.
    ///
    /// # Panics
    /// When `disk` is no target.
    #[must_use]
    pub fn disk_state(&self, disk: DiskIndex) -> DiskState {
        let slot = self.slot(disk);
        let replaced = self.maps.count(slot, counters::REPLACED) != 0;
        if replaced || !self.disks[slot].1.is_present() {
            DiskState::Replaced
        } else {
            DiskState::Present
        }
    }

    /// How often a disk came back into data mode, in this process.
    #[must_use]
    pub fn returns(&self) -> u64 {
        self.working().returned
    }

    /// Ends the capture and removes its pins: nothing is marked any more.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn detach(mut self) -> Result<(), CaptureError> {
        self.maps.set(control::GUARD_MISSED, 0);
        self.maps.set(control::MODE, 0);
        self.links.clear();
        match self.pinned.take() {
            Some(pinned) => pinned.pins.remove_all(),
            None => Ok(()),
        }
    }

    pub(crate) fn slot(&self, disk: DiskIndex) -> usize {
        self.disks.iter().position(|(index, _)| *index == disk).expect("the disk is a target")
    }

    fn reading(&self) -> MutexGuard<'_, Reader> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn working(&self) -> MutexGuard<'_, Working> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.pinned.is_none() {
            // The hooks go one by one: none may note what another one will not see ending.
            self.maps.set(control::GUARD_MISSED, 0);
            self.maps.set(control::MODE, 0);
        }
    }
}
