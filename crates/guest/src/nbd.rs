//! The kernel's NBD driver as a client of a server on this machine.

use crate::{Guest, GuestError, Spec};

/// This machine's loopback interface, as the guest reaches it.
pub(crate) const HOST: &str = "10.0.2.2";

impl Spec {
    /// What [`Guest::attach_nbd`] needs.
    #[must_use]
    pub fn nbd(self) -> Self {
        self.module("nbd").program("nbd-client")
    }
}

impl Guest {
    /// Connects the guest's `device` (for example `/dev/nbd0`) to the export of the NBD server that
    /// listens on this machine's loopback interface. `options` are further words for `nbd-client`,
    /// for example `-C 4` for four connections, or `-persist`.
    ///
    /// # Errors
    /// [`GuestError::Failed`] with what `nbd-client` said.
    pub fn attach_nbd(
        &mut self,
        device: &str,
        port: u16,
        export: &str,
        options: &str,
    ) -> Result<(), GuestError> {
        let script = format!("nbd-client {HOST} {port} {device} -N '{export}' {options}");
        self.run(&script).map(drop)
    }

    /// Disconnects `device`, after everything that was written to it has been sent.
    ///
    /// # Errors
    /// [`GuestError::Failed`] with what `nbd-client` said.
    pub fn detach_nbd(&mut self, device: &str) -> Result<(), GuestError> {
        self.run(&format!("blockdev --flushbufs {device}; nbd-client -d {device}")).map(drop)
    }
}
