//! A test that runs another test of its own binary in a guest.
//!
//! The inner test is an ordinary `#[test]` with `#[ignore = "runs inside a guest"]`: it needs no
//! program of its own, and is compiled and checked with the rest.

use crate::{Guest, GuestError, Spec};

/// Where the binary is in the guest.
pub(crate) const PLACE: &str = "/usr/local/bin/this-test";

impl Spec {
    /// The running test binary goes into the guest, for [`Guest::run_test`].
    #[must_use]
    pub fn this_test(mut self) -> Self {
        self.this_test = true;
        self
    }
}

impl Guest {
    /// Runs the ignored test `name` of this test binary in the guest, with `environment`
    /// (`KEY=value` words) and the seed that the environment of this process sets, and gives what
    /// it printed.
    ///
    /// # Errors
    /// As [`Guest::run`]; [`GuestError::Protocol`] when there is no test of this name.
    pub fn run_test(&mut self, name: &str, environment: &str) -> Result<String, GuestError> {
        let mut words = environment.to_owned();
        for key in ["SEED", "CI"] {
            if let Ok(value) = std::env::var(key) {
                words += &format!(" {key}='{value}'");
            }
        }
        let script =
            format!("RUST_BACKTRACE=1 {words} {PLACE} --exact '{name}' --ignored --nocapture");
        let output = self.run(&script)?;
        // With a name that fits nothing the harness succeeds, having run nothing.
        if output.contains("test result: ok. 1 passed") {
            return Ok(output);
        }
        Err(GuestError::Protocol(format!("{name} did not run:\n{output}")))
    }
}
