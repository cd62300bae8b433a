//! Jobs of one step.

use super::Params;
use super::orders::{Cx, Done, Failure, unexpected};
use crate::record::name_of;
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::resource::{JobOutcome, StepState};
use landfall_api_types::{ApiError, codes};
use landfall_types::{BranchId, NodeId, ReplicaId};
use std::time::{Duration, Instant};

/// How long a change may take to be reported: some reports long.
const REPORT_PATIENCE: Duration = Duration::from_secs(3);
/// How often reports are looked at meanwhile.
const REPORT_POLL: Duration = Duration::from_millis(20);

impl Cx<'_> {
    pub(super) async fn make_test_branch(&mut self) -> Result<Done, Failure> {
        let Params::TestFailover(ask) = &self.job.body.params else {
            return Err(Failure::Refused(ApiError::new(&codes::INTERNAL, "no test failover")));
        };
        let (node, replica) = self.machine.target();
        let order = Order::MtTestBranch {
            replica,
            // Chosen when the job was made: the repeated order makes the same branch.
            branch: self.job.body.vars.branch_id.unwrap_or_else(BranchId::generate),
            name: ask.name.clone().unwrap_or_default(),
            point: ask.point.clone(),
        };
        // A dead source makes no point any more: "not yet" is final for a test.
        let outcome = match self.order(node, "make", &order).await {
            Err(Failure::Wait(error)) if error.code == codes::NO_POINT_YET.name => {
                return Err(Failure::Refused(error));
            }
            other => other?,
        };
        let OrderOutcome::Branch(branch) = outcome else {
            return Err(unexpected(self.app, node, &outcome).into());
        };
        self.reported(node, replica, |names| names.contains(&branch.name.as_str())).await;
        let detail = format!("branch {} at LSN {}", branch.name, branch.fork);
        self.job.body.outcome = Some(JobOutcome::Branch(branch));
        Done::with(detail)
    }

    pub(super) async fn undo_test_branch(&mut self) -> Result<Done, Failure> {
        let Params::TestFailover(ask) = &self.job.body.params else {
            return Done::skipped("there is none");
        };
        // Refused: nothing was made, and a branch of this name is somebody else's.
        let failed = name_of(&StepState::Failed);
        if self.job.steps.get(self.job.body.position).is_some_and(|step| step.state == failed) {
            return Done::skipped("nothing was made");
        }
        let (node, replica) = self.machine.target();
        let name = ask.name.clone().unwrap_or_default();
        self.take_back(node, "drop", &Order::MtDropBranch { replica, name }).await
    }

    pub(super) async fn drop_test_branch(&mut self) -> Result<Done, Failure> {
        let Params::TestCleanUp(ask) = &self.job.body.params else {
            return Err(Failure::Refused(ApiError::new(&codes::INTERNAL, "no clean-up")));
        };
        let name = ask.name.clone();
        let (node, replica) = self.branch_place(&name);
        let order = Order::MtDropBranch { replica, name: name.clone() };
        self.order(node, "drop", &order).await?;
        self.reported(node, replica, |names| !names.contains(&name.as_str())).await;
        Done::with("")
    }

    /// What commands are checked against is what nodes report, once a second: a job that has ended
    /// must be seen there, or the next command is refused for a reason that is over. A target that
    /// falls silent just then is not waited for.
    async fn reported(&self, node: NodeId, replica: ReplicaId, is_so: impl Fn(&[&str]) -> bool) {
        let deadline = Instant::now() + REPORT_PATIENCE;
        while Instant::now() < deadline {
            let report = self.app.fleet.replica(node, replica);
            let seen = report.is_some_and(|report| {
                is_so(&report.branches.iter().map(|one| one.name.as_str()).collect::<Vec<_>>())
            });
            if seen {
                return;
            }
            tokio::time::sleep(REPORT_POLL).await;
        }
    }

    /// The replica that has a branch of this name: a test at home outlives the way back.
    fn branch_place(&self, name: &str) -> (NodeId, ReplicaId) {
        let body = &self.machine.body;
        if let Some(reverse) = &body.reverse {
            let (node, replica) = (reverse.master_target, reverse.replica);
            let report = self.app.fleet.replica(node, replica);
            if report.is_some_and(|report| report.branches.iter().any(|one| one.name == name)) {
                return (node, replica);
            }
        }
        (body.master_target, body.replica)
    }

    pub(super) async fn put_mark(&mut self) -> Result<Done, Failure> {
        let Params::Mark(ask) = &self.job.body.params else {
            return Err(Failure::Refused(ApiError::new(&codes::INTERNAL, "no mark")));
        };
        let order = Order::AgentMark { name: ask.name.clone(), consistency: ask.consistency };
        self.order(self.machine.body.agent, "mark", &order).await?;
        Done::with(format!("{:?}", ask.name))
    }
}
