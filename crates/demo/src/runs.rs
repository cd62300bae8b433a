//! Runs of the demo on this machine, the ones that were killed included.
//!
//! A run is a directory and an ID. The record of it is written before the directory is made and
//! removed after it is gone, so a run can be found whenever it was killed. What belongs to it is
//! then read from the kernel: processes that carry its ID, mounts and loop devices in its
//! directory.

mod record;
mod sweep;

#[cfg(test)]
mod tests;

pub(crate) use record::{Record, Runs};
pub(crate) use sweep::{PATIENCE, sweep};
