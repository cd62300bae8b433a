//! The registry of stable error codes: each has a page in `docs/errors/`.

use landfall_types::Class;

/// One stable code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// Kebab-case, never changes.
    pub name: &'static str,
    /// HTTP status that carries it.
    pub status: u16,
    /// What a client should do about it.
    pub class: Class,
    /// What an operator can do in most cases.
    pub cure: &'static str,
}

macro_rules! codes {
    ($(
        $(#[$doc:meta])*
        $name:ident = $text:literal, $status:literal, $class:ident, $cure:literal;
    )*) => {
        $($(#[$doc])* pub const $name: Code =
            Code { name: $text, status: $status, class: Class::$class, cure: $cure };)*
        /// Every code.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

// tidy: table
codes! {
    /// The machine's state does not accept the command (design section 14.10).
    WRONG_STATE = "wrong-state", 409, Permanent, "bring the machine into a state that accepts the command; `landfall status` shows what it accepts now";
    /// Another job of the machine is running.
    JOB_RUNNING = "job-running", 409, Transient, "wait for the running job (`landfall jobs`), or cancel it";
    /// An operator has given the job up, and what it had done was undone.
    GIVEN_UP = "given-up", 409, Permanent, "nothing is to be mended; begin it again when it is wanted";
    /// No such machine.
    UNKNOWN_MACHINE = "unknown-machine", 404, Permanent, "`landfall status` lists the machines";
    /// No such server, or not of the role that is needed.
    UNKNOWN_SERVER = "unknown-server", 404, Permanent, "`landfall servers` lists the registered servers and their roles";
    /// No such job.
    UNKNOWN_JOB = "unknown-job", 404, Permanent, "`landfall jobs` lists the jobs";
    /// No such branch.
    UNKNOWN_BRANCH = "unknown-branch", 404, Permanent, "`landfall status MACHINE` lists the branches";
    /// The name is taken.
    NAME_TAKEN = "name-taken", 409, Permanent, "choose another name";
    /// The point does not exist, is outside retention or lies in a window.
    NO_SUCH_POINT = "no-such-point", 409, Permanent, "`landfall points MACHINE` lists the recovery points";
    /// The position lies inside a window: it is no recovery point (trap T-4).
    POINT_IN_WINDOW = "point-in-window", 409, Permanent, "choose a point before the catch-up began or after it ended";
    /// There is no legal point yet (traps T-5, T-18).
    NO_POINT_YET = "no-point-yet", 409, Transient, "wait until the first copy or catch-up has ended; `landfall status` shows its progress";
    /// A point that promises more than a crash could not be made.
    POINT_FAILED = "point-failed", 409, Transient, "the cause names the file system or hook; crash-consistent points go on, try again when it is mended";
    /// A time that several points match, after a clock step (trap T-6).
    AMBIGUOUS_TIME = "ambiguous-time", 409, Permanent, "choose one of the listed candidates with --at-lsn";
    /// An unplanned failover without proof of fencing or an operator's word (trap T-17, design
    /// section 7).
    NO_FENCE_PROOF = "no-fence-proof", 409, Permanent, "make sure that the source can't write any more, then give --source-is-dead \"how you know\"";
    /// A relay within reach holds acknowledged data (trap T-14).
    RELAY_NOT_DRAINED = "relay-not-drained", 409, Transient, "retry to go on draining, or give --skip-drain to lose what is shown";
    /// The sender's epoch is over.
    FENCED = "fenced", 409, Fenced, "authority has moved on; what this side wrote since is divergence and stays readable until discarded";
    /// The instance has no authority (trap T-11).
    OTHER_INSTANCE = "other-instance", 409, Fenced, "this is not the machine that was given authority; protect it as a machine of its own, or remove it";
    /// Divergence was not discarded by name (trap T-15).
    DIVERGENCE_KEPT = "divergence-kept", 409, Permanent, "look at it (`landfall divergence MACHINE`), then name it with --discard-divergence";
    /// Change of point is not possible for attached disks that were written (trap T-13).
    POINT_CHANGE_REFUSED = "point-change-refused", 409, Permanent, "commit; to go back further, fail over to the other site";
    /// A node did not answer an order in time.
    NODE_SILENT = "node-silent", 504, Transient, "check that the server runs and reaches the configuration server (`landfall servers`); the job goes on when it answers";
    /// A node refused or failed an order.
    NODE_FAILED = "node-failed", 502, Permanent, "the cause names what failed there; mend it and retry the job";
    /// A disk can't be used.
    DISK_UNUSABLE = "disk-unusable", 422, Permanent, "name another disk, or free this one (unmount, detach)";
    /// Two disks have the same path or the disk is protected already.
    DISK_TAKEN = "disk-taken", 409, Permanent, "each disk belongs to one protected machine";
    /// The disks at home do not fit (number, size, sectors: trap T-9).
    DISK_MISMATCH = "disk-mismatch", 422, Permanent, "give disks of at least the same size and the same sector size";
    /// Under a protected disk's path there is another disk.
    DISK_REPLACED = "disk-replaced", 409, Permanent, "give the machine the disk back under its path (/dev/disk/by-id keeps it); to protect another disk, protect the machine anew";
    /// The capture can't work on this machine.
    CAPTURE_UNAVAILABLE = "capture-unavailable", 422, Permanent, "run the agent as root on x86-64 Linux 5.17 or newer with BTF; the cause names what is lacking";
    /// The retention volume is unfit (RQ-RV-1).
    RETENTION_UNFIT = "retention-unfit", 422, Permanent, "give a volume of its own that is not FAT and has room";
    /// No space left on the retention volume.
    RETENTION_FULL = "retention-full", 507, Transient, "make room on the retention volume or shorten retention; ingest goes on by itself";
    /// At the present rates the history that is asked for will not fit.
    RETENTION_SHORT = "retention-short", 507, Transient, "give the retention volume more room, raise the limit of size, or ask for a shorter retention (`landfall policy set`)";
    /// History had to go before its time.
    RETENTION_SHORTENED = "retention-shortened", 507, Transient, "give the retention volume more room, raise the limit of size, or ask for a shorter retention (`landfall policy set`); history grows back by itself";
    /// A test branch was thrown away so that the machine that runs from the same volume can write.
    TEST_BRANCH_DROPPED = "test-branch-dropped", 507, Permanent, "give the retention volume more room, then begin the test anew";
    /// A pinned point may expire, so that the machine that runs from the same volume can write.
    POINT_UNPINNED = "point-unpinned", 507, Permanent, "give the retention volume more room, then pin it again if it is still listed";
    /// The RPO is above the policy's threshold (RQ-RP-9).
    RPO_EXCEEDED = "rpo-exceeded", 409, Transient, "`landfall status MACHINE` shows what replication waits for";
    /// The RPO is on its way to the policy's threshold (RQ-RP-9).
    RPO_RISING = "rpo-rising", 409, Transient, "`landfall status MACHINE` shows the stage that is to blame";
    /// The cache of a process server is filling up (RQ-PS-6).
    CACHE_FILLING = "cache-filling", 507, Transient, "widen the bandwidth plan or the link to the next hop, or give the process server a larger cache";
    /// No such policy.
    UNKNOWN_POLICY = "unknown-policy", 404, Permanent, "`landfall policy list` lists the policies";
    /// Machines are protected with the policy.
    POLICY_IN_USE = "policy-in-use", 409, Permanent, "assign another policy to its machines first";
    /// The configuration server's database is older than what the fleet has seen (trap T-17).
    SERVER_RESTORED = "server-restored", 409, Fenced, "the database was restored from an old copy: wait until every server of the machine has reported, then `landfall status MACHINE` says what is known";
    /// Stored data is not what was written.
    CORRUPT = "corrupt", 500, Corrupt, "points in the named range can't be trusted; choose another point and run a catch-up";
    /// The key of an encrypted replica can't be had.
    KEY_MISSING = "key-missing", 503, Transient, "make the key-encryption key available where the master target runs; the replica is opened by itself when it is there";
    /// The key of an encrypted replica is another one.
    KEY_WRONG = "key-wrong", 409, Permanent, "give the key-encryption key that `landfall vault inspect` names for the replica; no other one can open it";
    /// Wrong passphrase.
    BAD_PASSPHRASE = "bad-passphrase", 401, Permanent, "an administrator can look the passphrase up on the configuration server (`landfall server passphrase`)";
    /// No or an unfit client certificate.
    NOT_AUTHORIZED = "not-authorized", 403, Permanent, "use credentials of the needed role; operators' credentials are made by `landfall server`";
    /// The request is not understood.
    BAD_REQUEST = "bad-request", 400, Permanent, "the cause names the field; `--help` shows what is accepted";
    /// No such path.
    NOT_FOUND = "not-found", 404, Permanent, "check the versions of CLI and configuration server";
    /// The configuration server can't be reached.
    SERVER_UNREACHABLE = "server-unreachable", 503, Transient, "check address, port and that `landfall server` runs; replication goes on meanwhile";
    /// The server's certificate is not the pinned one.
    FINGERPRINT_MISMATCH = "fingerprint-mismatch", 403, Permanent, "compare the fingerprint with the one that `landfall server` printed; a third party may answer in its place";
    /// The feature is not part of this version.
    NOT_SUPPORTED = "not-supported", 501, Permanent, "see the limits of this version in the README";
    /// Verification found a difference.
    VERIFY_FAILED = "verify-failed", 500, Corrupt, "do not start the machine; keep both sides and look at the named blocks";
    /// A defect of Landfall.
    INTERNAL = "internal", 500, Bug, "report it with the log of the server";
}

/// Finds a code by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Code> {
    ALL.iter().find(|code| code.name == name)
}
