//! Capture in guests: other kernels, other buses, stacks of disks. The same promise everywhere:
//! what is replayed is what the disk holds, and what can't be captured is noticed.
//!
//! The tests in `inside` run in a guest, where one of the others has started this binary.
#![allow(clippy::unwrap_used)]

mod buses;
mod compat;
mod inside;
mod kernels;
mod loads;
mod stacks;
mod verdict;
