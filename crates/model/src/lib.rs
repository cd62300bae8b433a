//! Protected machines and their authority as state machines: pure transition functions, no input or
//! output.
//!
//! * [`next`]: where a machine stands in the cycle and what it accepts there (design section
//!   14.10). The literal table is `docs/states.md`; a test compares every pair of state and input
//!   with it.
//! * [`authority`]: who may write (design section 7, trap T-17). A model checker in `tests/`
//!   explores it with crashes, a stale controller and repeated messages, calling the same function
//!   as the product.
//! * [`barrier`]: points of several machines at once (trap T-19).
//! * [`rpo`]: how much would be lost now (trap T-18); [`rpo_by_stage`]: where the time goes.
//!
//! # Invariants
//! * A machine's state changes by [`next`] only, authority by [`authority::next`] only.
//! * An epoch is reserved before anything is promoted in it, and never given a second time.

pub mod authority;
mod bandwidth;
pub mod barrier;
mod input;
mod rpo;
mod stages;
mod state;
mod transition;

pub use bandwidth::{BANDWIDTH_BYTES_MIN, BANDWIDTH_WINDOWS_MAX, BandwidthError, BandwidthPlan};
pub use input::{Command, Event, Input};
pub use rpo::rpo;
pub use stages::{Passed, Stage, StageTime, TimedLsn, Timeline, is_rising, most, rpo_by_stage};
pub use state::MachineState;
pub use transition::{Illegal, NextStep, accepts, next};
