//! Jobs of one step.

use super::Params;
use super::orders::{Cx, Done, Failure, unexpected};
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::resource::JobOutcome;
use landfall_api_types::{ApiError, codes};
use landfall_types::{BranchId, NodeId, ReplicaId};

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
        let detail = format!("branch {} at LSN {}", branch.name, branch.fork);
        self.job.body.outcome = Some(JobOutcome::Branch(branch));
        Done::with(detail)
    }

    pub(super) async fn undo_test_branch(&mut self) -> Result<Done, Failure> {
        let Params::TestFailover(ask) = &self.job.body.params else {
            return Done::skipped("there is none");
        };
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
        self.order(node, "drop", &Order::MtDropBranch { replica, name }).await?;
        Done::with("")
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
        let order = Order::AgentMark { name: ask.name.clone() };
        self.order(self.machine.body.agent, "mark", &order).await?;
        Done::with(format!("{:?}", ask.name))
    }
}
