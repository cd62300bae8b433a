//! What can go wrong with a guest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a guest did not do what it was told.
#[derive(thiserror::Error)]
pub enum GuestError {
    /// A file of this machine could not be used.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program of this machine that goes into the guest, or that prepares it, is missing.
    #[error("the program {0} is not on this machine")]
    NoProgram(String),
    /// A program that prepares the guest failed.
    #[error("{program} failed: {message}")]
    Tool {
        /// Its name.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// The kernel has no such module, neither as a file nor built in.
    #[error("the kernel {release} has no module {module}")]
    NoModule {
        /// The kernel.
        release: String,
        /// What was asked for.
        module: String,
    },
    /// A script ended with another status than 0.
    #[error("the guest's script ended with status {status}:\n{script}\n--- its output\n{output}")]
    Failed {
        /// What was run.
        script: String,
        /// Its exit status.
        status: i32,
        /// What it printed, on both outputs.
        output: String,
    },
    /// No answer within the limit.
    #[error("no answer of the guest within {limit:?} while it should {doing}; console:\n{console}")]
    Late {
        /// How long was waited.
        limit: Duration,
        /// For what.
        doing: String,
        /// The end of the console log.
        console: String,
    },
    /// QEMU ended although it should go on.
    #[error("QEMU ended while the guest should {doing}: {message}\nconsole:\n{console}")]
    Ended {
        /// What was waited for.
        doing: String,
        /// What QEMU printed.
        message: String,
        /// The end of the console log.
        console: String,
    },
    /// The guest started again without being told to: its kernel panicked.
    #[error("the guest restarted by itself; console:\n{console}")]
    Restarted {
        /// The end of the console log.
        console: String,
    },
    /// The guest is switched off.
    #[error("the guest is off")]
    Off,
    /// An answer on the control channel or of QMP that makes no sense.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {message}")]
    Qmp {
        /// The QMP command.
        command: String,
        /// QEMU's reason.
        message: String,
    },
}

/// As [`std::fmt::Display`]: what a test unwraps is printed in this way, and console logs have line
/// feeds.
impl std::fmt::Debug for GuestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Adds what was tried to an error of the system.
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> GuestError {
    let path = path.into();
    move |source| GuestError::Io { action, path, source }
}
