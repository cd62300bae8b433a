//! The maps that loader and program share, mapped into this process.

use crate::CaptureError;
use crate::layout::{self, control, target};
use crate::mapping::Mapping;
use libbpf_rs::{MapCore, MapHandle};
use rustix::mm::ProtFlags;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Names of the maps that outlive the loader, as in `bpf/`.
pub(crate) const PINNED: [&str; 7] =
    ["control", "ring", "counts", "bits", "sky", "flights", "wake"];

/// Which bits: the live ones of two generations, and those that wait to be settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plane {
    Live(u64),
    Pending,
}

/// The shared memory of one load.
pub(crate) struct Maps {
    pub(crate) control: Mapping,
    pub(crate) ring: Mapping,
    pub(crate) counts: Mapping,
    pub(crate) bits: Mapping,
    pub(crate) sky: Mapping,
    pub(crate) flights: Mapping,
    pub(crate) wake: Wake,
    pub(crate) processors: usize,
}

impl Maps {
    /// Maps what `get` finds by name.
    pub(crate) fn new(
        get: impl Fn(&'static str) -> Result<MapHandle, CaptureError>,
    ) -> Result<Self, CaptureError> {
        let map = |name, protection| {
            let handle = get(name)?;
            let bytes = u64::from(handle.value_size()) * u64::from(handle.max_entries());
            let bytes = usize::try_from(bytes).map_err(|_| CaptureError::TooLarge)?;
            Mapping::of_map(&handle, 0, bytes.next_multiple_of(4096), protection)
                .map_err(CaptureError::Map)
        };
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        let entries = get("counts")?.max_entries() as usize;
        Ok(Self {
            control: map("control", read_write)?,
            ring: map("ring", ProtFlags::READ)?,
            counts: map("counts", ProtFlags::READ)?,
            bits: map("bits", read_write)?,
            sky: map("sky", read_write)?,
            flights: map("flights", read_write)?,
            wake: Wake::new(get("wake")?)?,
            processors: entries / layout::TARGETS_MAX,
        })
    }

    /// A word of the control page.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        self.control.word(offset)
    }

    pub(crate) fn get(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::SeqCst);
    }

    /// A word of the target in this slot.
    pub(crate) fn target(&self, slot: usize, offset: usize) -> &AtomicU64 {
        assert!(slot < layout::TARGETS_MAX, "there are no more slots");
        self.control.word(control::TARGETS + slot * layout::TARGET_BYTES + offset)
    }

    pub(crate) fn target_get(&self, slot: usize, offset: usize) -> u64 {
        self.target(slot, offset).load(Ordering::SeqCst)
    }

    pub(crate) fn target_set(&self, slot: usize, offset: usize, value: u64) {
        self.target(slot, offset).store(value, Ordering::SeqCst);
    }

    /// A count of one target, over all processors.
    pub(crate) fn count(&self, slot: usize, offset: usize) -> u64 {
        let at = |cpu: usize| (cpu * layout::TARGETS_MAX + slot) * layout::COUNTERS_BYTES + offset;
        (0..self.processors).map(|cpu| self.counts.load(at(cpu))).sum()
    }

    /// How many words of bits a target has in each plane.
    pub(crate) fn words(&self, slot: usize) -> u64 {
        self.target_get(slot, target::BLOCKS).div_ceil(64)
    }

    /// A word of a target's bits.
    pub(crate) fn bits(&self, plane: Plane, slot: usize, word: u64) -> &AtomicU64 {
        let plane = match plane {
            Plane::Live(generation) => generation & 1,
            Plane::Pending => 2,
        };
        let first = self.target_get(slot, target::FIRST_WORD);
        let at = plane * self.get(control::PLANE_WORDS) + first + word;
        self.bits.word(usize::try_from(at * 8).expect("the map is mapped, so offsets fit"))
    }
}

/// Waits until every program that runs now has ended.
#[allow(unsafe_code)]
pub(crate) fn membarrier() {
    const CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers; a kernel without it answers ENOSYS.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, CMD_GLOBAL, 0, 0) };
    if answer != 0 {
        // Programs run for microseconds, never asleep.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The map that wakes a sleeping loader: only its readiness matters, its content is thrown away.
pub(crate) struct Wake {
    map: MapHandle,
    consumer: Mapping,
    producer: Mapping,
}

impl Wake {
    fn new(map: MapHandle) -> Result<Self, CaptureError> {
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        let consumer = Mapping::of_map(&map, 0, 4096, read_write).map_err(CaptureError::Map)?;
        let producer =
            Mapping::of_map(&map, 4096, 4096, ProtFlags::READ).map_err(CaptureError::Map)?;
        Ok(Self { map, consumer, producer })
    }

    /// Sleeps until woken, or until the time is over.
    pub(crate) fn wait(&self, timeout: Duration) {
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut fds = [rustix::event::PollFd::new(&self.map, rustix::event::PollFlags::IN)];
        // An interrupted wait is as good as a short one: the caller looks again.
        let _interrupted = rustix::event::poll(&mut fds, Some(&timeout));
        let produced = self.producer.word(0).load(Ordering::Acquire);
        self.consumer.word(0).store(produced, Ordering::Release);
    }
}
