//! What the kernel says is there: mounts, loop devices, processes.
//!
//! The kernel's own lists can't be out of step with what exists, so they are what cleaning up goes
//! by: nothing that was made between two lines of the demo can be missed, whenever it was killed.

mod loops;
mod mounts;
mod processes;

pub(crate) use loops::{Loop, attach, detach, flush_buffers, loops, loops_under};
pub(crate) use mounts::{mounts_under, unmount, unmount_lazily};
pub(crate) use processes::{Process, RUN_VARIABLE, kill, processes_of, start_time, terminate};
