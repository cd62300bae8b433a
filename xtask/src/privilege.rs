//! Whether this run may act as root.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

/// How a command can be run as root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// Through sudo.
    Sudo,
    /// Not at all.
    None,
}

impl Privilege {
    /// Finds out; asks for sudo's password only where a person can answer.
    pub(crate) fn find() -> Self {
        if landfall_testkit::missing(&["root"]).is_none() {
            return Self::Root;
        }
        if crate::process::succeeds("sudo", &["--non-interactive", "true"]) {
            return Self::Sudo;
        }
        let can_ask = std::io::stdin().is_terminal() && crate::process::exists("sudo");
        if can_ask && Command::new("sudo").arg("--validate").status().is_ok_and(|s| s.success()) {
            return Self::Sudo;
        }
        Self::None
    }

    /// `program`, run as root where possible.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Root | Self::None => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["--preserve-env", "--", program]);
                command
            }
        }
    }

    /// The capabilities (names as in `LANDFALL_REQUIRE`) that a program run as root would lack.
    pub(crate) fn missing_capabilities(self) -> Vec<landfall_testkit::Capability> {
        let all = landfall_testkit::ALL.iter().copied();
        if self != Self::Sudo {
            return all.filter(|capability| !capability.is_available()).collect();
        }
        let itself = std::env::current_exe().unwrap_or_default();
        let output = Command::new("sudo")
            .args(["--preserve-env", "--"])
            .arg(itself)
            .arg("probe")
            .stderr(Stdio::inherit())
            .output();
        let Ok(output) = output else { return all.collect() };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        all.filter(|capability| text.lines().any(|line| line == capability.name)).collect()
    }
}
