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
//! # How an agent uses it
//! ```text
//!   Capture::start(targets, options)   options.pin: where it survives the agent's death
//!     origin()
//!       Fresh     no disk has a baseline: first copy or comparison, then set_baseline()
//!       Resumed   the receiver names incarnation(), and tail() ≤ its ring position ≤ head():
//!                 seek() there and go on, without a catch-up. Else as Replaced.
//!       Replaced  disks with has_baseline(): collect(), copy what is dirty; compare the others
//!
//!   pump, again and again:
//!     drain()            into the log; stops before the position of a loss that was not taken
//!     take_loss()        Some(loss): open a window for loss.disk here (None: every disk)
//!     release(position)  frees the ring; what was not durable by then is found by its dirty bits
//!                        if the agent dies
//!     durable(position)  the *target* has every record before it: older dirty bits go
//!
//!   catch-up of a disk in bitmap mode, its window open ("back to data mode", decision 0015):
//!     1 drain up to head()
//!     2 return_to_data(disk, max)   mode data; writes in flight have ended
//!     3 collect(disk, max)          live bits move into the pending bits, and are handed out
//!     4 read these ranges with O_DIRECT; drain up to head() as of then; append what is pending
//!     5 close the window; when that is durable at the target: settled(disk, ranges)
//!     A loss in between starts again at 1: nothing is forgotten, bits are pending until `settled`.
//!   A pass in bitmap mode is the same without 2, and closes into no recovery point (trap T-5).
//! ```
//!
//! # Where to start
//! [`Capture`], then `bpf/capture.bpf.c`, then [`disk`] for what can't be captured.
//!
//! # Deliberately absent
//! A bitmap beneath data mode and programs that outlive the agent: [`Options::pin`] is not used
//! yet, every origin is `Fresh` and every disk dirty as a whole, which is slow and never wrong.
//! Every loss is answered by a new load, which is a new incarnation, and a catch-up of the whole
//! disks in compare mode. Two writes of the same place that are in flight at once (trap T-22) are
//! not detected yet.

mod barrier;
mod bitmap;
mod capture;
pub mod disk;
mod error;
mod kernel;
mod layout;
pub mod loopdev;
mod mapping;
mod mode;
mod program;
mod record;
mod ring;
mod self_test;

pub use barrier::Quiet;
pub use bitmap::detach;
pub use capture::{Capture, Counters, DiskState, Options, RING_BYTES_MIN, State, Target};
pub use disk::Disk;
pub use error::{CaptureError, LostReason, SelfTestFailure};
pub use mapping::AlignedBuffer;
pub use mode::{Dirty, Mode, Origin};
pub use record::{Captured, CapturedKind, Loss};
pub use self_test::{SelfTestReport, self_test};
