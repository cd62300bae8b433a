//! The one binary: every role, every command.

use std::process::ExitCode;

fn main() -> ExitCode {
    landfall_cli::main()
}
