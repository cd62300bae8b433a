//! What a log has promised holds after every power cut, every failed operation and every rotten
//! sector.
//!
//! `model.rs` runs a workload on a simulated medium and notes each promise; the other files break
//! the medium in their way and let the model check what is found.

mod bugs;
mod cuts;
mod faults;
mod model;
mod rot;
mod salvage;
mod sealed;
