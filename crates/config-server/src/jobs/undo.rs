//! Undoing steps, last first.

use super::kind::Step;
use super::orders::{Cx, Done, Failure};
use landfall_api_types::codes;
use landfall_api_types::order::Order;
use landfall_model::authority::{Authority, Change};
use landfall_types::NodeId;

/// Undoes a step that was done, or perhaps half done.
// tidy: table
pub(super) async fn undo(cx: &mut Cx<'_>, step: Step) -> Result<Done, Failure> {
    match step {
        Step::CreateReplica => {
            let replica = cx.machine.body.replica;
            let order = Order::MtRemove { replica, images: true };
            cx.take_back(cx.machine.body.master_target, "remove", &order).await
        }
        Step::RouteForward => {
            let replica = cx.machine.body.replica;
            let order = Order::PsUnroute { replica, discard: true };
            cx.take_back(cx.machine.body.process_server, "unroute", &order).await
        }
        Step::StartAgent => {
            let order = Order::AgentStop { machine: cx.machine.row.id };
            cx.take_back(cx.machine.body.agent, "stop", &order).await
        }
        Step::Attest => cx.give_authority_back(),
        // The relay takes from upstream again.
        Step::DrainForward => cx.reopen_forward().await,
        Step::FreezeTarget => {
            let order = Order::MtThaw { replica: cx.machine.body.replica };
            cx.take_back(cx.machine.body.master_target, "thaw", &order).await
        }
        Step::ReserveEpoch => cx.refuse_reservation(),
        Step::CreateHome => match cx.machine.body.reverse.clone() {
            Some(reverse) => {
                let order = Order::MtRemove { replica: reverse.replica, images: false };
                cx.take_back(reverse.master_target, "remove", &order).await
            }
            None => Done::skipped("there is none"),
        },
        Step::RouteHome => match cx.machine.body.reverse.clone() {
            Some(reverse) => {
                let order = Order::PsUnroute { replica: reverse.replica, discard: true };
                cx.take_back(reverse.process_server, "unroute", &order).await
            }
            None => Done::skipped("there is none"),
        },
        Step::StartReverse => {
            let order = Order::MtReverseStop { replica: cx.machine.body.replica };
            cx.take_back(cx.machine.body.master_target, "stop", &order).await
        }
        Step::InspectHome => {
            cx.machine.body.reverse = None;
            Done::with("")
        }
        Step::Demote => {
            let order = Order::MtUndemote { replica: cx.machine.body.replica };
            let done = cx.take_back(cx.machine.body.master_target, "undemote", &order).await?;
            // Only after the branch has answered that it serves again: authority follows what is
            // so.
            cx.give_authority_back()?;
            Ok(done)
        }
        Step::DrainReverse => cx.reopen_reverse().await,
        Step::FreezeHome => match cx.machine.body.reverse.clone() {
            Some(reverse) => {
                let order = Order::MtThaw { replica: reverse.replica };
                cx.take_back(reverse.master_target, "thaw", &order).await
            }
            None => Done::skipped("there is none"),
        },
        Step::MakeTestBranch => cx.undo_test_branch().await,
        Step::InspectSource
        | Step::CheckPoint
        | Step::Promote
        | Step::FenceSource
        | Step::CommitBranch
        | Step::DropHome
        | Step::UnrouteReverse
        | Step::ReverseBase
        | Step::DiscardNamed
        | Step::StopReverse
        | Step::CheckHome
        | Step::AwaitHome
        | Step::Release
        | Step::Follow
        | Step::StopAgent
        | Step::UnrouteForward
        | Step::RemoveReplica
        | Step::DropTestBranch
        | Step::PutMark => Done::skipped("nothing to undo"),
    }
}

impl Cx<'_> {
    /// An order that undoes. That there is nothing to undo is no failure: the step may have been
    /// cut off before it reached the node.
    pub(super) async fn take_back(
        &self,
        node: NodeId,
        name: &str,
        order: &Order,
    ) -> Result<Done, Failure> {
        let nothing = [
            codes::WRONG_STATE.name,
            codes::NOT_FOUND.name,
            codes::UNKNOWN_MACHINE.name,
            codes::UNKNOWN_BRANCH.name,
        ];
        match self.order(node, name, order).await {
            Ok(_) => Done::with("undone"),
            Err(Failure::Refused(error)) if nothing.contains(&error.code.as_str()) => {
                Done::skipped(format!("nothing to undo: {}", error.cause))
            }
            Err(failure) => Err(failure),
        }
    }

    fn give_authority_back(&mut self) -> Result<Done, Failure> {
        match self.machine.authority.authority {
            Authority::Vacant { .. } => self.change_authority(&Change::GivenUp)?,
            Authority::Held { .. } | Authority::Promoting { .. } => {}
        }
        Done::with("authority is where it was")
    }

    fn refuse_reservation(&mut self) -> Result<Done, Failure> {
        if let Authority::Promoting { holder, .. } = self.machine.authority.authority {
            self.change_authority(&Change::Refused { epoch: holder.epoch.id })?;
        }
        Done::with("the epoch is given up for good")
    }
}
