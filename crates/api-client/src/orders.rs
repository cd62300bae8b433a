use crate::ledger::{LedgerError, OrderLedger};
use crate::{Backoff, NodeClient};
use landfall_api_types::ApiError;
use landfall_api_types::node::{OrderEnvelope, OrderResult};
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_types::OrderId;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long one poll waits for an order.
const POLL_WAIT: Duration = Duration::from_secs(20);
/// How often the certificate's age is looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Most orders under way at once. The server gives one at a time per machine.
const UNDER_WAY_MAX: usize = 64;

/// Carries out orders. Each order may come again after a crash: the second time it finds its work
/// done.
pub trait OrderHandler: Send + Sync + 'static {
    /// Carries out one order. Orders of different machines run side by side; they are dropped at
    /// shutdown.
    fn carry_out(
        &self,
        id: OrderId,
        order: Order,
    ) -> impl Future<Output = Result<OrderOutcome, ApiError>> + Send;
}

/// A node's loop over its orders: poll, carry out, remember durably, answer.
pub struct OrderLoop {
    client: NodeClient,
    ledger: OrderLedger,
}

type Finished = (OrderId, bool, Result<OrderOutcome, ApiError>);

impl OrderLoop {
    /// Opens the ledger in the node's state directory.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(client: NodeClient, state_dir: &Path) -> Result<Self, LedgerError> {
        Ok(Self { client, ledger: OrderLedger::open(state_dir)? })
    }

    /// Runs until `shutdown`; also renews the certificate when it is due.
    ///
    /// # Errors
    /// [`LedgerError`] when results can't be remembered any more: the role should end, because
    /// orders would be carried out twice.
    pub async fn run<H: OrderHandler>(
        mut self,
        handler: Arc<H>,
        shutdown: CancellationToken,
    ) -> Result<(), LedgerError> {
        let mut tasks: JoinSet<Finished> = JoinSet::new();
        let mut answers: JoinSet<(OrderId, bool)> = JoinSet::new();
        // Being carried out or being answered: polls leave them out.
        let mut under_way = HashSet::new();
        // Answers that are not made durable: they are worth nothing to a process that comes later.
        let mut momentary: HashMap<OrderId, OrderResult> = HashMap::new();
        let mut renewal = tokio::time::interval(RENEWAL_INTERVAL);
        let mut backoff = Backoff::new();
        loop {
            let known: Vec<_> = under_way.iter().copied().collect();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(finished) = tasks.join_next(), if !tasks.is_empty() => {
                    let Ok((id, is_momentary, outcome)) = finished else { continue };
                    let result = as_result(outcome);
                    if is_momentary {
                        momentary.insert(id, result.clone());
                    } else {
                        self.ledger.remember(id, result.clone())?;
                    }
                    self.answer(id, result, &mut answers);
                }
                Some(answered) = answers.join_next(), if !answers.is_empty() => {
                    // Whether it arrived or not: if it did not, the next poll brings the order
                    // again.
                    if let Ok((id, arrived)) = answered {
                        under_way.remove(&id);
                        if arrived {
                            momentary.remove(&id);
                        }
                    }
                }
                _ = renewal.tick() => self.renew().await,
                polled = poll(&self.client, &known, &mut backoff) => {
                    for OrderEnvelope { id, order } in polled {
                        if under_way.len() >= UNDER_WAY_MAX || !under_way.insert(id) {
                            continue;
                        }
                        let known = momentary.get(&id).or_else(|| self.ledger.find(id)).cloned();
                        if let Some(result) = known {
                            self.answer(id, result, &mut answers);
                        } else {
                            let (handler, brief) = (Arc::clone(&handler), order.is_momentary());
                            tasks.spawn(async move {
                                (id, brief, handler.carry_out(id, order).await)
                            });
                        }
                    }
                }
            }
        }
    }

    /// Sends a result; one that does not arrive is asked for again by the next poll.
    fn answer(&self, id: OrderId, result: OrderResult, answers: &mut JoinSet<(OrderId, bool)>) {
        let client = self.client.clone();
        answers.spawn(async move {
            let sent = client.result(id, &result).await;
            if let Err(error) = &sent {
                tracing::info!(%id, %error, "the result of an order could not be sent; it is kept");
            }
            (id, sent.is_ok())
        });
    }

    async fn renew(&self) {
        if let Err(error) = self.client.renew_if_due().await {
            tracing::info!(%error, "the certificate could not be renewed; tried again later");
        }
    }
}

/// One poll; pauses after a failure. Dropping it at any moment loses nothing.
async fn poll(client: &NodeClient, known: &[OrderId], backoff: &mut Backoff) -> Vec<OrderEnvelope> {
    match client.orders(POLL_WAIT, known).await {
        Ok(orders) => {
            backoff.reset();
            orders.orders
        }
        Err(error) => {
            let pause = backoff.pause();
            tracing::debug!(%error, ?pause, "no orders from the configuration server");
            tokio::time::sleep(pause).await;
            Vec::new()
        }
    }
}

fn as_result(outcome: Result<OrderOutcome, ApiError>) -> OrderResult {
    match outcome {
        Ok(outcome) => OrderResult::Done(outcome),
        Err(error) => OrderResult::Failed(error),
    }
}
