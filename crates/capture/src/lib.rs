//! Captures the writes of a machine's disks, with their bytes and in one order, without a kernel
//! module.
//!
//! An eBPF program (`bpf/capture.bpf.c`) sits where the block layer queues a write. It copies the
//! bytes into a ring that this crate maps, before the write goes to the driver:
//!
//! ```text
//!   submitter ──► block_bio_queue ──► reserve a place in the ring, copy, commit ──► driver
//!                                        │                                            │
//!                 Capture::drain ◄── ring (memory shared with the kernel)             │
//!                 Capture::release ──► tail                                           │
//!                 Capture::state  ◄── lost at … because …  ◄── block_bio_complete ◄───┘
//! ```
//!
//! # Invariants
//! * The order of reservation is the order of the log, across all disks and processors.
//! * Everything before the position of a loss is a consistent prefix; nothing behind it is ever
//!   handed out.
//! * Production is never delayed: a full ring ends data mode ([`LostReason::Overflow`]), it does
//!   not wait.
//! * Bytes are trusted only after the [`self_test`] has compared them: [`Capture::start`] runs it
//!   first.
//! * A target is a disk, not a number: device number *and* disk sequence (trap T-8).
//! * No program is pinned: the end of the process, however it comes, detaches everything.
//!
//! # Where to start
//! [`Capture`], then `bpf/capture.bpf.c`, then [`disk`] for what can't be captured.
//!
//! # Deliberately absent
//! A bitmap beneath data mode and programs that outlive the agent. Until then every loss is
//! answered by a new load, which is a new incarnation, and a catch-up of the whole disks in compare
//! mode. Two writes of the same place that are in flight at once (trap T-22) are not detected yet.

mod barrier;
mod capture;
pub mod disk;
mod error;
mod kernel;
mod layout;
pub mod loopdev;
mod mapping;
mod program;
mod record;
mod ring;
mod self_test;

pub use barrier::Quiet;
pub use capture::{Capture, Counters, DiskState, Options, RING_BYTES_MIN, State, Target};
pub use disk::Disk;
pub use error::{CaptureError, LostReason, SelfTestFailure};
pub use mapping::AlignedBuffer;
pub use record::{Captured, CapturedKind, Loss};
pub use self_test::{SelfTestReport, self_test};
