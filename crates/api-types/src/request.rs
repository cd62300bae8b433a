//! What people ask for. Paths: see the routes in the config-server crate.

use landfall_types::{Lsn, UnixNanos};
use serde::{Deserialize, Serialize};

/// `POST /v1/disk-clients`: a certificate for a program that uses disks over NBD; answered by
/// [`DiskClient`](crate::resource::DiskClient).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDiskClient {
    /// PKCS #10 request, PEM.
    pub csr_pem: String,
}

/// `POST /v1/machines`: protect a machine (RQ-RP-1, RQ-RP-3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// Unique name.
    pub name: String,
    /// Name or ID of the registered agent.
    pub agent: String,
    /// Name or ID of the process server near the machine.
    pub process_server: String,
    /// Name or ID of the master target at the recovery site.
    pub master_target: String,
    /// Paths of the disks on the machine, in the order of their indexes.
    pub disks: Vec<String>,
    /// Paths of the images at the master target, one per disk; empty: raw files in its image
    /// folder.
    #[serde(default)]
    pub images: Vec<String>,
    /// Milliseconds between crash-consistent markers, 100 to 3 600 000; default 5 000.
    #[serde(default)]
    pub marker_interval_ms: Option<u64>,
    /// Name of the policy that holds for it; default `default`.
    #[serde(default)]
    pub policy: Option<String>,
    /// Encrypts the replica at the recovery site with a data key that this key wraps: `file:PATH`,
    /// `keyring:DESCRIPTION` or `command:PATH ARGUMENTS` on the master target's host; default: as
    /// the master target is set. Whoever loses the key loses the replica.
    #[serde(default)]
    pub encrypt: Option<String>,
}

/// `POST /v1/servers/{name}/bandwidth`: limit what a process server uses of its link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBandwidth {
    /// For instance `20MiB/s, mon-fri 08:00-18:00 5MiB/s`; in the process server's local time.
    pub plan: String,
}

/// Which recovery point (RQ-FO-1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointChoice {
    /// Newest recoverable position, after what is on its way has been drained: lowest RPO.
    Latest,
    /// Newest recoverable position that is durable now.
    LatestProcessed,
    /// Any recoverable LSN.
    Lsn(Lsn),
    /// The newest marker not later than this.
    Time(UnixNanos),
    /// A marker's name.
    Name(String),
}

/// `POST /v1/machines/{name}/test-failover` (RQ-FO-5).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFailover {
    /// Which point.
    pub point: PointChoice,
    /// Name of the test branch; default `test-N`.
    #[serde(default)]
    pub name: Option<String>,
}

/// `POST /v1/machines/{name}/test-failover/clean-up`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCleanUp {
    /// Which test branch.
    pub name: String,
}

/// `POST /v1/machines/{name}/failover`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// Which point.
    pub point: PointChoice,
    /// The operator's recorded word that the source can't write any more, in words (design section
    /// 7).
    #[serde(default)]
    pub source_is_dead: Option<String>,
    /// Do not wait for relays within reach (trap T-14): what they hold becomes divergence.
    #[serde(default)]
    pub skip_drain: bool,
}

/// `POST /v1/machines/{name}/change-point` (RQ-FO-3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePoint {
    /// Which point of the log that was replicated.
    pub point: PointChoice,
}

/// `POST /v1/machines/{name}/commit` (RQ-FO-4).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {}

/// `POST /v1/machines/{name}/reprotect` (RQ-RE-1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reprotect {
    /// Process server at the recovery site.
    pub process_server: String,
    /// Master target at home.
    pub master_target: String,
    /// The original disks as the master target at home sees them; empty: the paths they were
    /// protected by (RQ-RE-2).
    #[serde(default)]
    pub disks: Vec<String>,
    /// Names of divergence that may be discarded (trap T-15).
    #[serde(default)]
    pub discard_divergence: Vec<String>,
    /// Tell the estimate and what diverged; change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to a reprotect with `dry_run` (RQ-RE-4).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReprotectEstimate {
    /// Bytes that are expected to be sent: the blocks known to differ.
    pub estimate_bytes: u64,
    /// Sum of the disks' sizes.
    pub total_bytes: u64,
    /// What the estimate does not know, in a sentence.
    pub uncertainty: String,
    /// What would be lost at home.
    pub divergence: Vec<crate::resource::Divergence>,
}

/// `POST /v1/machines/{name}/failback` (RQ-FO-6).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failback {}

/// `POST /v1/machines/{name}/divergence/discard`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscardDivergence {
    /// By name.
    pub names: Vec<String>,
}

/// What a recovery point promises about the machine's file systems and programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a power cut.
    #[default]
    Crash,
    /// All mounted file systems of the protected disks are frozen at this moment.
    FileSystem,
    /// That, and the agent's hooks were called around it.
    Application,
}

/// `POST /v1/group-points`: a point of several machines at once (RQ-RP-8, trap T-19).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkGroup {
    /// 1 to 128 bytes.
    pub name: String,
    /// Names of the machines, at least two.
    pub machines: Vec<String>,
    /// What it promises of each: frozen file systems at least.
    pub consistency: Consistency,
}

/// `POST /v1/machines/{name}/mark`: a named recovery point.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// 1 to 128 bytes.
    pub name: String,
    /// What it promises.
    #[serde(default)]
    pub consistency: Consistency,
}
