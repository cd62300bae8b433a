//! Mistakes that are built in, to see that the harness finds them.

/// One mistake; a history has at most one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    None,
    /// The target acknowledges what it has received but not flushed.
    AckOnReceive,
    /// The target resumes from what it had received before a crash, and stores whatever comes.
    NoGapCheck,
    /// The target names a position before its end, and stores again what it has.
    DuplicatesApplied,
    /// Nobody compares lineages and instances.
    EpochIgnored,
    /// Nobody compares instances (trap T-11).
    CloneAdmitted,
    /// A relay that lost its spool goes on where it was.
    SkipAfterLostSpool,
    /// A relay acknowledges what it has received but not flushed.
    RelayAckOnReceive,
    /// A relay forgets what it has sent, before the next hop has it.
    RelayForgetsWhenSent,
    /// A relay makes room by forgetting the oldest of what it acknowledged.
    RelayDropsWhenFull,
    /// The agent forgets dirty bits when the next hop has the blocks, not the target (trap T-3).
    BitsDroppedAtRelay,
    /// The agent sends the dirty ranges to a target that has lost more than those.
    BitsTrustedTooFar,
    /// The agent closes its window when it opens it (trap T-5).
    WindowClosedEarly,
    /// A promotion takes the image where it stands, whatever relays within reach hold (trap T-14).
    PromotedWithoutDrain,
    /// Home counts its old disks as a recovery point before its window has closed (trap T-15).
    HomeTakenAsItIs,
    /// Not a mistake of the protocol but of the agent (trap T-1): the protocol must contain it.
    NaiveRenumbering,
    /// A target that lost power with a failed flush behind it counts what was not flushed as there.
    FlushErrorForgotten,
}
