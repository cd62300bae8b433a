//! Protected machines as state machines: pure transition tables, no input or output, no clock.
//!
//! * [`MachineState`], [`on_command`], [`on_event`]: the cycle of design section 14.10, one function, one table.
//! * [`authority`]: who may write; explored exhaustively in its tests (trap T-17).
//! * [`rpo_ns`]: what would be lost now (trap T-18).
//!
//! # Invariants
//! * Health (`healthy`, `catching-up`, `no-contact`) is no state; a test failover changes none.
//! * `failing-over` and `failing-back` accept no command: their job moves them on.

pub mod authority;
mod rpo;
mod state;
mod transition;

pub use rpo::rpo_ns;
pub use state::MachineState;
pub use transition::{
    Command, Event, IllegalEvent, Refused, accepts, is_transient, on_command, on_event,
};
