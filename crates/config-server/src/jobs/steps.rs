use super::kind::Step;
use super::orders::{Cx, Done, Failure};

/// Carries a step out. After a crash it is carried out again from its beginning.
// tidy: table
pub(super) async fn carry_out(cx: &mut Cx<'_>, step: Step) -> Result<Done, Failure> {
    match step {
        Step::InspectSource => cx.inspect_source().await,
        Step::CreateReplica => cx.create_replica().await,
        Step::RouteForward => cx.route_forward().await,
        Step::StartAgent => cx.start_agent().await,
        Step::CheckPoint => cx.check_point().await,
        Step::Attest => cx.attest(),
        Step::DrainForward => cx.drain_forward().await,
        Step::FreezeTarget => cx.freeze_target().await,
        Step::ReserveEpoch => cx.reserve_epoch(),
        Step::Promote => cx.promote().await,
        Step::FenceSource => cx.fence_source().await,
        Step::CommitBranch => cx.commit_branch().await,
        Step::DropHome => cx.drop_home().await,
        Step::UnrouteReverse => cx.unroute_reverse().await,
        Step::InspectHome => cx.inspect_home().await,
        Step::ReverseBase => cx.reverse_base().await,
        Step::CreateHome => cx.create_home().await,
        Step::RouteHome => cx.route_home().await,
        Step::StartReverse => cx.start_reverse().await,
        Step::DiscardNamed => cx.discard_named().await,
        Step::StopReverse => cx.stop_reverse().await,
        Step::CheckHome => cx.check_home().await,
        Step::Demote => cx.demote().await,
        Step::AwaitHome => cx.await_home().await,
        Step::DrainReverse => cx.drain_reverse().await,
        Step::FreezeHome => cx.freeze_home().await,
        Step::Release => cx.release().await,
        Step::Follow => cx.follow().await,
        Step::StopAgent => cx.stop_agent().await,
        Step::UnrouteForward => cx.unroute_forward().await,
        Step::RemoveReplica => cx.remove_replica().await,
        Step::MakeTestBranch => cx.make_test_branch().await,
        Step::DropTestBranch => cx.drop_test_branch().await,
        Step::PutMark => cx.put_mark().await,
    }
}
