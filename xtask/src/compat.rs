//! Writes the table of kernels from what a test finds in their guests.

use anyhow::Result;

use crate::process;

/// Runs the test that tries every kernel that `cargo xtask guest-kernels` has fetched.
///
/// # Errors
/// When a guest does not start, or the table can't be written. A kernel on which bytes can't be
/// captured is no error: the table says it.
pub(crate) fn run() -> Result<()> {
    let page = process::root().join("docs/compatibility.md");
    let mut command =
        process::cargo(&["test", "--package", "landfall-capture", "--test", "guests"]);
    command.args(["--", "--ignored", "--exact", "compat::write_the_table", "--nocapture"]);
    process::run(command.env("LANDFALL_COMPATIBILITY", page))
}
