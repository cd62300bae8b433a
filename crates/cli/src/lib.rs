//! The `landfall` command line: a client of the API, and the way to start the roles.
//!
//! ```text
//!   arguments ─► args ─► commands ─► landfall-api-client ─► configuration server
//!                           │
//!                           ├─► output (standard output: result as table or JSON)
//!                           ├─► screen (standard error: progress)
//!                           └─► failure, exit (standard error: code, cause, cure; exit status)
//! ```
//!
//! # Invariants
//! * Everything works unattended: no command asks a question.
//! * Standard output has the result and nothing else; with `--output json` one JSON value.
//! * What is refused says code, cause and cure (promise P9), and the exit status its class.
//!
//! Start with `args` for what there is, and `commands` for what it does.

mod args;
mod commands;
mod exit;
mod failure;
mod mounting;
mod output;
mod reference;
#[cfg(test)]
mod sample;
mod screen;

pub use args::Cli;
pub use commands::main;
pub use exit::Status;
pub use failure::Failure;
pub use output::Format;
pub use reference::reference;
