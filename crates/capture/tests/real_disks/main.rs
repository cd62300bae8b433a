//! Capture on loop devices: what is replayed is what the disks hold, and what can't be captured is
//! noticed.
#![allow(clippy::unwrap_used)]

mod equality;
mod file_systems;
mod losses;
mod modes;
mod order;
mod replica;
mod rig;
mod survival;
