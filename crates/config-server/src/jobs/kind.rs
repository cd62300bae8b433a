use landfall_api_types::request::{
    ChangePoint, DiscardDivergence, Failover, Mark, Protect, Reprotect, TestCleanUp, TestFailover,
};
use landfall_model::Event;
use serde::{Deserialize, Serialize};

/// What kind of job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Protect,
    TestFailover,
    TestCleanUp,
    Failover,
    ChangePoint,
    Commit,
    /// Commit after failback.
    CommitHome,
    Reprotect,
    /// Begun by a reconciler when the window towards home has closed.
    CloseReprotect,
    /// Gives up a reprotect whose job has ended.
    CancelReprotect,
    Failback,
    Disable,
    Mark,
    DiscardDivergence,
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", content = "body", rename_all = "kebab-case")]
pub(crate) enum Params {
    Nothing,
    Protect(Protect),
    TestFailover(TestFailover),
    TestCleanUp(TestCleanUp),
    Failover(Failover),
    ChangePoint(ChangePoint),
    Reprotect(Reprotect),
    Mark(Mark),
    DiscardDivergence(DiscardDivergence),
}

/// One step. Its name in the API is in kebab case and stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    InspectSource,
    CreateReplica,
    RouteForward,
    StartAgent,
    CheckPoint,
    Attest,
    DrainForward,
    FreezeTarget,
    ReserveEpoch,
    Promote,
    FenceSource,
    CommitBranch,
    DropHome,
    UnrouteReverse,
    InspectHome,
    ReverseBase,
    CreateHome,
    RouteHome,
    StartReverse,
    DiscardNamed,
    StopReverse,
    CheckHome,
    Demote,
    AwaitHome,
    DrainReverse,
    FreezeHome,
    Release,
    Follow,
    StopAgent,
    UnrouteForward,
    RemoveReplica,
    MakeTestBranch,
    DropTestBranch,
    PutMark,
}

impl Kind {
    /// Its steps, in order. The order is part of what is durable: a released kind's list never
    /// changes.
    // tidy: table
    pub(crate) const fn steps(self) -> &'static [Step] {
        use Step::*;
        match self {
            Self::Protect => &[InspectSource, CreateReplica, RouteForward, StartAgent],
            Self::TestFailover => &[MakeTestBranch],
            Self::TestCleanUp => &[DropTestBranch],
            // The relay is fenced and drained before the target is frozen, or what it acknowledged
            // would be lost (trap T-14). The epoch is durable before the promotion is ordered, or a
            // crash in between could order a second one (trap T-17).
            Self::Failover => &[
                CheckPoint,
                Attest,
                DrainForward,
                FreezeTarget,
                ReserveEpoch,
                Promote,
                FenceSource,
            ],
            Self::ChangePoint => &[CheckPoint, ReserveEpoch, Promote],
            Self::Commit => &[CommitBranch],
            Self::CommitHome => &[DropHome, UnrouteReverse],
            // The base is asked for before home's replica is made on it; sending begins last.
            Self::Reprotect => &[InspectHome, ReverseBase, CreateHome, RouteHome, StartReverse],
            Self::CloseReprotect => &[DiscardNamed],
            Self::CancelReprotect => &[StopReverse, UnrouteReverse, DropHome],
            // Demote, drain, promote. The recovery site follows before home's log is routed to it,
            // and the agent captures before anybody is told that the disks are the machine's.
            Self::Failback => &[
                CheckHome,
                Demote,
                AwaitHome,
                DrainReverse,
                FreezeHome,
                ReserveEpoch,
                Release,
                Follow,
                RouteForward,
                StartAgent,
            ],
            Self::Disable => {
                &[StopReverse, UnrouteReverse, DropHome, StopAgent, UnrouteForward, RemoveReplica]
            }
            Self::Mark => &[PutMark],
            Self::DiscardDivergence => &[DiscardNamed],
        }
    }

    /// Up to this step, a failure for good is undone without asking: nothing has been changed that
    /// an operator would want to keep.
    pub(crate) fn backs_out(self, step: Step) -> bool {
        match self {
            Self::Protect
            | Self::TestFailover
            | Self::TestCleanUp
            | Self::Commit
            | Self::Reprotect
            | Self::Mark
            | Self::DiscardDivergence => true,
            Self::Failover | Self::ChangePoint | Self::Failback => {
                matches!(step, Step::CheckPoint | Step::CheckHome)
            }
            Self::CommitHome | Self::CloseReprotect | Self::CancelReprotect | Self::Disable => {
                false
            }
        }
    }

    /// What has happened to the machine when it has succeeded.
    pub(crate) const fn success(self) -> Option<Event> {
        match self {
            Self::Failover => Some(Event::Promoted),
            Self::Commit | Self::CommitHome => Some(Event::Committed),
            Self::CloseReprotect => Some(Event::HomePointDurable),
            Self::CancelReprotect => Some(Event::ReprotectGivenUp),
            Self::Failback => Some(Event::Released),
            Self::Disable => Some(Event::Disabled),
            Self::Protect
            | Self::TestFailover
            | Self::TestCleanUp
            | Self::ChangePoint
            | Self::Reprotect
            | Self::Mark
            | Self::DiscardDivergence => None,
        }
    }

    /// What has happened to the machine when it was rolled back.
    pub(crate) const fn rolled_back(self) -> Option<Event> {
        match self {
            Self::Protect => Some(Event::Disabled),
            Self::Failover => Some(Event::FailoverGivenUp),
            Self::Reprotect => Some(Event::ReprotectGivenUp),
            Self::Failback => Some(Event::FailbackGivenUp),
            Self::TestFailover
            | Self::TestCleanUp
            | Self::ChangePoint
            | Self::Commit
            | Self::CommitHome
            | Self::CloseReprotect
            | Self::CancelReprotect
            | Self::Disable
            | Self::Mark
            | Self::DiscardDivergence => None,
        }
    }

    /// An operator may give it up: the machine's way out of a state that only this job ends.
    pub(crate) const fn may_be_given_up(self) -> bool {
        matches!(
            self,
            Self::Protect
                | Self::TestFailover
                | Self::Failover
                | Self::ChangePoint
                | Self::Reprotect
                | Self::Failback
        )
    }
}
