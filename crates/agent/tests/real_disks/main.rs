//! The agent on loop devices, with a target in memory: what the target holds is what the disks
//! hold.
#![allow(clippy::unwrap_used)]

mod cycle;
mod freezing;
mod survival;
mod target;
mod wire;
