//! The agent: captures the writes of one machine, gives them their place in one log, and sends it.
//!
//! ```text
//!   Capture (ring) ──► pump thread ──► SourceLog ──► session ──► process server
//!                                        ▲   ▲
//!            markers, windows ───────────┘   └── blocks that a catch-up has read and that are still pending
//!
//!   orders (start, stop, fence, mark) ──► Agent ──► Run ──► loads of the capture, one after the other
//! ```
//!
//! # Invariants
//! * The LSNs of a log follow the ring's order; a new load of the capture is a new incarnation and
//!   begins with a window.
//! * What was read from a disk never lands in the log behind a newer write of the same place (trap
//!   T-2).
//! * A receiver that holds other records than ours under the same positions is never continued
//!   (trap T-1).
//! * A marker is placed only where no window is open, and after everything that was written before
//!   its time.
//! * Authority belongs to an instance (trap T-11); an epoch that is over never starts again here.
//! * Without the configuration server replication goes on: what it takes is in the state directory.
//!
//! * Dirty bits are forgotten only behind a recovery point that the target has (trap T-3).
//! * Nothing stays frozen: not beyond its limit, and not when a process is killed.
//!
//! # Where to start
//! [`log::SourceLog`] and [`plan::Plan`] (pure), then [`run`](mod@run), then [`Agent`];
//! [`freeze`] and [`point`] stand beside it.
//!
//! # Deliberately absent
//! Sources that the capture refuses.

mod agent;
mod barrier;
mod clock;
mod differences;
pub mod doctor;
pub mod freeze;
pub mod hooks;
mod image;
pub mod instance;
pub mod log;
mod network;
pub mod plan;
pub mod point;
mod progress;
pub mod ranges;
pub mod reboot;
pub mod run;
mod serials;
mod service;
mod settings;
pub mod settled;
pub mod source;
pub mod state;
pub mod status;
mod swap;
pub mod uplink;

pub use agent::Agent;
pub use network::FleetNetwork;
pub use service::{AgentConfig, AgentError, run};
pub use settings::{HOOKS_DIR, Limits, Settings};
