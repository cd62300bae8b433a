use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a configuration server needs to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for everything it keeps; made if it is missing.
    pub state_dir: PathBuf,
    /// Address of the HTTPS listener; port 0 takes any.
    pub listen: SocketAddr,
    /// Limits of time; the default is right outside of tests.
    pub timing: Timing,
    /// Stops the server at a boundary of a database write, for tests of crashes.
    #[cfg(feature = "testing")]
    pub tripwire: Option<std::sync::Arc<landfall_store::Tripwire>>,
}

impl Config {
    /// With default timing.
    #[must_use]
    pub fn new(state_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            state_dir,
            listen,
            timing: Timing::default(),
            #[cfg(feature = "testing")]
            tripwire: None,
        }
    }
}

/// Limits of time.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A node that has not reported for this long is out of contact. Five reports long, so that one
    /// that is lost on the way counts for nothing.
    pub report_silence: Duration,
    /// A node without a waiting poll for this long is out of contact too: a process that was killed
    /// is noticed by its broken connection much earlier than by missing reports.
    pub poll_silence: Duration,
    /// How long a drain may make no progress before an operator is asked.
    pub drain_stall: Duration,
    /// How long one order to a relay or target waits there before it answers how far it is.
    pub order_wait: Duration,
    /// How often reconcilers look.
    pub reconcile_interval: Duration,
    /// How often a node's last report is written to the database.
    pub report_persist: Duration,
    /// How long a direct question to a node (points, estimate) may take.
    pub question: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            report_silence: Duration::from_secs(5),
            poll_silence: Duration::from_millis(1500),
            drain_stall: Duration::from_secs(30),
            order_wait: Duration::from_secs(2),
            reconcile_interval: Duration::from_millis(500),
            report_persist: Duration::from_secs(10),
            question: Duration::from_secs(20),
        }
    }
}
