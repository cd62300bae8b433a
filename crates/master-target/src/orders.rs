//! What the configuration server orders. Every order can be repeated: the second time it finds its
//! work done.

mod making;
mod moving;
mod reading;
mod retaining;

use crate::errors;
use crate::hosted::Hosted;
use crate::target::Target;
use landfall_api_client::OrderHandler;
use landfall_api_types::order::{Order, OrderOutcome, ReplicaPosition};
use landfall_api_types::request::PointChoice;
use landfall_api_types::{ApiError, codes};
use landfall_types::OrderId;
use landfall_volume::PointSelector;
use std::sync::Arc;
use tokio::sync::Notify;

/// Carries orders out on a target.
pub struct Handler {
    target: Arc<Target>,
    changed: Arc<Notify>,
}

impl Handler {
    /// On this target; `changed` is told after each order, so that the next report need not wait
    /// for its turn.
    #[must_use]
    pub const fn new(target: Arc<Target>, changed: Arc<Notify>) -> Self {
        Self { target, changed }
    }
}

type Outcome = Result<OrderOutcome, ApiError>;

impl OrderHandler for Handler {
    async fn carry_out(&self, id: OrderId, order: Order) -> Outcome {
        let target = &self.target;
        let told = format!("{order:?}");
        let outcome = Box::pin(target.carry_out(order)).await;
        match &outcome {
            Ok(_) => tracing::info!(%id, order = told, "order carried out"),
            Err(error) => tracing::warn!(%id, order = told, %error, "order refused"),
        }
        self.changed.notify_one();
        outcome
    }
}

impl Target {
    /// Carries one order out.
    ///
    /// # Errors
    /// [`ApiError`] with code, cause and cure.
    pub async fn carry_out(self: &Arc<Self>, order: Order) -> Outcome {
        match order {
            Order::MtInspect { disks } => self.inspect(disks).await,
            Order::MtCreate(create) => self.create(create).await,
            Order::MtRemove { replica, images } => self.remove(replica, images).await,
            Order::MtPoints { replica } => self.points(replica).await,
            Order::MtPolicy { replica, policy } => self.policy(replica, policy).await,
            Order::MtNote { replica, lsn, note, by } => self.note(replica, lsn, note, by).await,
            Order::MtHolds { replica } => self.holds(replica).await,
            Order::MtEstimate { replica } => self.estimate(replica).await,
            Order::MtReverseBase { replica } => self.reverse_base(replica).await,
            Order::MtAwait { replica, lsn, wait_ms } => self.wait_for(replica, lsn, wait_ms).await,
            Order::MtTestBranch { replica, branch, name, point } => {
                self.test_branch(replica, branch, name, point).await
            }
            Order::MtDropBranch { replica, name } => self.drop_branch(replica, name).await,
            Order::MtDiscardDivergence { replica, names } => self.discard(replica, names).await,
            Order::MtFreeze { replica } => self.freeze(replica).await,
            Order::MtThaw { replica } => self.thaw(replica).await,
            Order::MtPromote { replica, branch, name, point, epoch } => {
                let new = landfall_volume::NewAuthority {
                    id: branch,
                    name,
                    point: selector(point),
                    epoch,
                };
                self.promote(replica, new).await
            }
            Order::MtCommit { replica } => self.commit(replica).await,
            Order::MtDemote { replica } => self.demote(replica).await,
            Order::MtUndemote { replica } => self.undemote(replica).await,
            Order::MtRelease { replica, lsn, chain, epoch } => {
                self.release(replica, lsn, chain, epoch).await
            }
            Order::MtUnrelease { replica } => self.unrelease(replica).await,
            Order::MtFollow { replica, epoch, fork, instance } => {
                self.follow(replica, epoch, fork, instance).await
            }
            Order::MtReverseStart { replica, to, next_hop, instance } => {
                let spec = crate::reverse::ReverseSpec { to, next_hop, instance, compared: false };
                self.reverse_start(replica, spec).await
            }
            Order::MtReverseStop { replica } => self.reverse_stop(replica).await,
            other => {
                let cause = format!("a master target can't carry out {other:?}");
                Err(ApiError::new(&codes::BAD_REQUEST, cause))
            }
        }
    }
}

/// The choice in the volume's words. *Latest* and *latest processed* differ in what is drained
/// before the order.
fn selector(choice: PointChoice) -> PointSelector {
    match choice {
        PointChoice::Latest | PointChoice::LatestProcessed => PointSelector::Newest,
        PointChoice::Lsn(lsn) => PointSelector::Lsn(lsn),
        PointChoice::Time(time) => PointSelector::Time(time),
        PointChoice::Name(name) => PointSelector::Name(name),
    }
}

fn position(hosted: &Hosted) -> Outcome {
    let status = hosted.replica.status().map_err(|error| errors::storage(&error))?;
    Ok(OrderOutcome::Position(ReplicaPosition {
        durable: status.durable.lsn,
        chain: status.durable.chain,
        newest_legal: status.newest_legal,
        lineage: status.lineage,
    }))
}
