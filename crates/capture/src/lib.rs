//! Captures the writes of a machine's disks, with their bytes and in one order, without a kernel
//! module.
//!
//! An eBPF program (`bpf/capture.bpf.c`) sits where the block layer queues a write. It marks the
//! blocks in a bitmap, and copies the bytes into a ring that this crate maps, before the write goes
//! to the driver:
//!
//! ```text
//!   submitter ──► block_bio_queue ──► mark, reserve a place in the ring, copy, commit ──► driver
//!                                        │                                                  │
//!                 Capture::drain ◄── ring, bitmap (memory shared with the kernel)           │
//!                 Capture::release ──► tail                                                 │
//!                 Capture::mode   ◄── a disk's loss: where, because … ◄── rq_issue, complete┘
//! ```
//!
//! Each disk is in one of two [`Mode`]s. In *data* every write is in the ring. In *bitmap* only the
//! blocks are known, because the ring was full or something could not be captured; other disks go
//! on. The bitmap is kept beneath data mode too.
//!
//! # Invariants
//! * The order of reservation is the order of the log, across all disks and processors.
//! * Records of a disk before the position of its loss are a consistent prefix.
//! * A block that is not durable at the target has a bit, or a record that is still in the ring
//!   (trap T-3). A write that can't be marked makes the whole disk dirty.
//! * Production is never delayed: a full ring ends data mode ([`LostReason::Overflow`]), it does
//!   not wait.
//! * Bytes are trusted only after the [`self_test`] has compared them: [`Capture::start`] runs it
//!   before it loads.
//! * A target is a disk, not a number: device number *and* disk sequence (trap T-8).
//! * With [`Options::pin`] everything outlives the process; a new program is active before the old
//!   one is detached (decision 0015). Without it the end of the process detaches everything.
//!
//! # How an agent uses it
//! ```text
//!   Capture::start(targets, options)   options.pin: where it survives the agent's death
//!     origin()
//!       Fresh     no disk has a baseline: first copy or comparison, then settled_all()
//!       Resumed   the receiver names incarnation(), and tail() ≤ its ring position ≤ head():
//!                 seek() there and go on; a catch-up only of disks that are not is_in_step().
//!                 Else as Replaced.
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
//! Keeping the bitmap over a reboot (the agent does, trap T-16: [`boot`] is what it needs), and any
//! way to make a write wait. Zoned and DAX disks, and members of arrays, are refused:
//! [`Disk::inspect`].

mod adopt;
mod barrier;
mod bitmap;
pub mod boot;
mod capture;
mod counters;
pub mod disk;
mod error;
mod kernel;
mod layout;
pub mod loopdev;
mod mapping;
mod maps;
mod mode;
mod open;
mod options;
mod pins;
mod probe;
mod program;
mod record;
mod ring;
mod self_test;

pub use barrier::Quiet;
pub use capture::{Capture, DiskState, State};
pub use counters::Counters;
pub use disk::Disk;
pub use error::{CaptureError, LostReason, SelfTestFailure, Unfit};
pub use mapping::AlignedBuffer;
pub use mode::{Dirty, Mode, Origin};
pub use options::{Fallback, Options, RING_BYTES_MIN, Target};
pub use pins::detach;
pub use probe::{DiskOffer, Finding, Offer, Probe, probe, probe_disk};
pub use record::{Captured, CapturedKind, Loss};
pub use self_test::{SelfTestReport, self_test};
