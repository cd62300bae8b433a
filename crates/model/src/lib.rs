//! Protected machines as state machines: pure transition tables, no input or output.

mod state;

pub use state::MachineState;
