//! Loads and attaches the eBPF program, and maps the memory shared with it.

use crate::disk::Disk;
use crate::kernel::Bases;
use crate::layout::{self, control};
use crate::mapping::Mapping;
use crate::{CaptureError, Options};
use libbpf_rs::{Link, MapCore, MapHandle, Object, ObjectBuilder};
use rustix::mm::ProtFlags;
use std::sync::Once;
use std::sync::atomic::Ordering;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/capture.bpf.o"));

/// The loaded program. Dropping it detaches it: nothing is pinned.
pub(crate) struct Program {
    /// First, so that it is dropped first: no program runs any more when the maps go.
    links: Vec<Link>,
    object: Object,
    pub(crate) control: Mapping,
    pub(crate) flights: MapHandle,
    pub(crate) wake: Wake,
}

impl Program {
    /// Loads it for `disks`; it captures nothing before [`Program::attach`]. Gives the mapped ring
    /// as well.
    pub(crate) fn load(
        disks: &[Disk],
        key: u64,
        options: &Options,
    ) -> Result<(Self, Mapping, u64), CaptureError> {
        route_messages();
        let step = |step| move |source| CaptureError::Program { step, source };
        let mut builder = ObjectBuilder::default();
        let mut open = builder.open_memory(OBJECT).map_err(step("open"))?;
        let segments = options.ring_bytes.div_ceil(layout::SEGMENT_BYTES).max(1);
        let entries = u32::try_from(segments)
            .map_err(|_| CaptureError::Targets("the ring is too large".to_owned()))?;
        for mut map in open.maps_mut() {
            if map.name() == "ring" {
                map.set_max_entries(entries).map_err(step("size the ring"))?;
            }
        }
        let object = open.load().map_err(step("load"))?;
        let ring_bytes = usize::try_from(segments * layout::SEGMENT_VALUE)
            .map_err(|_| CaptureError::Targets("the ring is too large".to_owned()))?;
        let ring = map_of(&object, "ring")?;
        let ring =
            Mapping::of_map(&ring, 0, ring_bytes, ProtFlags::READ).map_err(CaptureError::Map)?;
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        let control_map = map_of(&object, "control")?;
        let control = Mapping::of_map(&control_map, 0, layout::CONTROL_BYTES, read_write)
            .map_err(CaptureError::Map)?;
        let flights = map_of(&object, "flights")?;
        let wake = Wake::new(map_of(&object, "wake")?)?;
        let program = Self { links: Vec::new(), object, control, flights, wake };
        program.configure(disks, key, segments, options)?;
        Ok((program, ring, segments))
    }

    fn configure(
        &self,
        disks: &[Disk],
        key: u64,
        segments: u64,
        options: &Options,
    ) -> Result<(), CaptureError> {
        let set = |offset, value| self.control.word(offset).store(value, Ordering::SeqCst);
        set(control::KEY, key);
        set(control::SEGMENTS, segments);
        set(control::RING_BYTES, segments * layout::SEGMENT_BYTES);
        for (slot, disk) in disks.iter().enumerate() {
            let at = control::TARGETS + slot * layout::TARGET_BYTES;
            set(at, u64::from(disk.major) | u64::from(disk.minor) << 32);
            set(at + 8, disk.diskseq);
        }
        set(control::TARGETS_COUNT, disks.len() as u64);
        self.run_read_bases()?;
        let fallback = Bases::fallback();
        let known = |offset, otherwise| match self.control.load(offset) {
            0 => otherwise,
            base => base,
        };
        let page_offset = known(control::PAGE_OFFSET_BASE, fallback.page_offset);
        let vmemmap = known(control::VMEMMAP_BASE, fallback.vmemmap);
        set(control::PAGE_OFFSET_BASE, page_offset.wrapping_add(options.page_offset_error));
        set(control::VMEMMAP_BASE, vmemmap);
        Ok(())
    }

    fn run_read_bases(&self) -> Result<(), CaptureError> {
        let program = self
            .object
            .progs_mut()
            .find(|program| program.name() == "read_bases")
            .expect("the object has this program");
        program.test_run(libbpf_rs::ProgramInput::default()).map(|_| ()).map_err(|source| {
            CaptureError::Program { step: "ask the kernel for its bases with", source }
        })
    }

    /// Attaches the programs and switches data mode on.
    pub(crate) fn attach(&mut self) -> Result<(), CaptureError> {
        // on_missed must run after on_queue on the same hook, so it is attached after it; the
        // others come before data mode is on, so that every write that on_queue sees is also seen
        // ending.
        for name in ["on_request_complete", "on_bio_complete", "on_queue", "on_missed"] {
            let program = self
                .object
                .progs_mut()
                .find(|program| program.name() == name)
                .expect("the object has this program");
            let link = program
                .attach_trace()
                .map_err(|source| CaptureError::Program { step: "attach", source })?;
            self.links.push(link);
        }
        self.control.word(control::MODE).store(layout::MODE_DATA, Ordering::SeqCst);
        // A hook that runs right now may have seen the old mode in on_queue and would see the new
        // one in on_missed: a false alarm. After this call every such run has ended.
        membarrier();
        self.control.word(control::GUARD_MISSED).store(1, Ordering::SeqCst);
        Ok(())
    }

    /// Stops capturing; what is in the ring stays readable.
    pub(crate) fn stop(&self) {
        self.control.word(control::MODE).store(layout::MODE_LOST, Ordering::SeqCst);
    }
}

fn map_of(object: &Object, name: &'static str) -> Result<MapHandle, CaptureError> {
    let map = object.maps().find(|map| map.name() == name).expect("the object has this map");
    MapHandle::try_from(&map)
        .map_err(|source| CaptureError::Program { step: "share a map", source })
}

/// Waits until every program that runs now has ended.
#[allow(unsafe_code)]
fn membarrier() {
    const CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers; a kernel without it answers ENOSYS.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, CMD_GLOBAL, 0, 0) };
    if answer != 0 {
        // Without it a false alarm is possible, which costs one more catch-up and loses nothing.
        tracing::debug!("membarrier is not available");
    }
}

/// libbpf writes to standard error unless told otherwise.
fn route_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, |level, message| {
            let message = message.trim_end();
            match level {
                libbpf_rs::PrintLevel::Warn => tracing::warn!(target: "libbpf", "{message}"),
                libbpf_rs::PrintLevel::Info | libbpf_rs::PrintLevel::Debug => {
                    tracing::trace!(target: "libbpf", "{message}");
                }
            }
        })));
    });
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
    pub(crate) fn wait(&self, timeout: std::time::Duration) {
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
