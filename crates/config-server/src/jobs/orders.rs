//! Orders to nodes, as steps give them.

use crate::ServerError;
use crate::app::{App, now};
use crate::record::{Direction, JobRecord, MachineRecord, decode, encode};
use landfall_api_types::node::OrderResult;
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::{ApiError, codes};
use landfall_store::{OrderRow, StoreError};
use landfall_types::{Class, NodeId, OrderId};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a waiting step looks whether its node is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Why a step did not end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Try again later.
    Wait(ApiError),
    /// For good, until an operator changes something.
    Refused(ApiError),
    /// An operator has given the job up.
    GivenUp,
    /// The server itself.
    Server(ServerError),
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Server(ServerError::Store(error))
    }
}
/// A refusal: by its class, to be tried again or not.
impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error.registered().class {
            Class::Transient => Self::Wait(error),
            Class::Permanent | Class::Corrupt | Class::Fenced | Class::Bug => Self::Refused(error),
        }
    }
}

/// What a step came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) detail: String,
    pub(crate) skipped: bool,
}

impl Done {
    pub(crate) fn with(detail: impl Into<String>) -> Result<Self, Failure> {
        Ok(Self { detail: detail.into(), skipped: false })
    }
    pub(crate) fn skipped(detail: impl Into<String>) -> Result<Self, Failure> {
        Ok(Self { detail: detail.into(), skipped: true })
    }
}

/// What a step works on: a copy of the records, written back with the step's end in one
/// transaction.
pub(crate) struct Cx<'a> {
    pub(crate) app: &'a App,
    pub(crate) job: JobRecord,
    pub(crate) machine: MachineRecord,
    pub(crate) give_up: CancellationToken,
}

impl Cx<'_> {
    /// Everything that this job has ever ordered begins with this.
    pub(crate) fn prefix(&self) -> String {
        format!("job/{}/", self.job.row.id)
    }

    fn key(&self, name: &str) -> String {
        let body = &self.job.body;
        let direction = match body.direction {
            Direction::Forward => "do",
            Direction::Back => "undo",
        };
        format!("{}{}/{direction}/{}/{name}", self.prefix(), body.position, body.attempt)
    }

    /// Gives an order and waits for its result, however long the node is silent. `name` is unique
    /// within the step.
    pub(crate) async fn order(
        &self,
        node: NodeId,
        name: &str,
        order: &Order,
    ) -> Result<OrderOutcome, Failure> {
        match self.give(node, name, order, None).await? {
            Some(outcome) => Ok(outcome),
            None => Err(Failure::Wait(silent(self.app, node))),
        }
    }

    /// As [`Cx::order`], but gives `None` when the node is out of contact, or `patience` is over;
    /// the order is taken back then. Only for orders that may also be carried out later without
    /// harm.
    pub(crate) async fn order_if_there(
        &self,
        node: NodeId,
        name: &str,
        order: &Order,
        patience: Duration,
    ) -> Result<Option<OrderOutcome>, Failure> {
        self.give(node, name, order, Some(patience)).await
    }

    async fn give(
        &self,
        node: NodeId,
        name: &str,
        order: &Order,
        patience: Option<Duration>,
    ) -> Result<Option<OrderOutcome>, Failure> {
        let given = give(self.app, node, self.key(name), order).await?;
        let began = Instant::now();
        let mut bell = self.app.results.listen();
        let id = self.job.row.id;
        loop {
            bell.mark_unchanged();
            if let Some(result) = result_of(self.app, given.id).await? {
                self.app.waiting(id, None);
                return finished(self.app, node, result).map(Some);
            }
            let there = self.app.fleet.in_contact(node);
            match patience {
                Some(patience) if self.app.fleet.gone(node) || began.elapsed() > patience => {
                    withdraw(self.app, &given.idempotency).await?;
                    return Ok(None);
                }
                _ => self.app.waiting(id, (!there).then(|| silent(self.app, node))),
            }
            tokio::select! {
                _ = bell.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = self.give_up.cancelled() => return Err(Failure::GivenUp),
            }
        }
    }

    /// Waits until none of this job's orders is open any more: only then nothing of it can still
    /// happen behind an undo.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let mut bell = self.app.results.listen();
        let nodes = self.machine.nodes();
        loop {
            bell.mark_unchanged();
            let mut tx = self.app.store.read().await?;
            let mut open = None;
            for node in &nodes {
                let orders = tx.open_orders(*node).await?;
                if orders.iter().any(|order| order.idempotency.starts_with(&self.prefix())) {
                    open = Some(*node);
                }
            }
            drop(tx);
            let Some(node) = open else {
                self.app.waiting(self.job.row.id, None);
                return Ok(());
            };
            let there = self.app.fleet.in_contact(node);
            self.app.waiting(self.job.row.id, (!there).then(|| silent(self.app, node)));
            tokio::select! {
                _ = bell.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Where a node's replication listener is.
    pub(crate) fn address(&self, node: NodeId) -> Result<String, Failure> {
        let known = self.app.fleet.get(node).and_then(|node| node.address);
        known.ok_or_else(|| Failure::Wait(silent(self.app, node)))
    }
}

impl MachineRecord {
    /// Every node that has to do with it.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let body = &self.body;
        let mut nodes = vec![body.agent, body.process_server, body.master_target];
        if let Some(reverse) = &body.reverse {
            nodes.extend([reverse.process_server, reverse.master_target]);
        }
        nodes
    }
}

/// A node that does not answer, as it is shown.
pub(crate) fn silent(app: &App, node: NodeId) -> ApiError {
    let name = app.fleet.name(node);
    let known = app.fleet.get(node).and_then(|node| node.reported);
    let since = match known {
        Some(reported) => {
            let seconds = now().since(reported) / 1_000_000_000;
            format!("{name} is out of contact; its last report came {seconds} s ago")
        }
        None => format!("{name} has never reported"),
    };
    ApiError::new(&codes::NODE_SILENT, since).detail("server", name)
}

/// Makes an order durable, unless it is already, and calls the node.
pub(crate) async fn give(
    app: &App,
    node: NodeId,
    idempotency: String,
    order: &Order,
) -> Result<OrderRow, ServerError> {
    let row = OrderRow {
        id: OrderId::generate(),
        idempotency,
        node,
        created: now(),
        body: encode("order", order)?,
        result: None,
    };
    let mut tx = app.store.begin().await?;
    let given = tx.give_order(&row).await?;
    if given.id == row.id {
        tx.commit().await?;
        app.orders.ring();
    }
    Ok(given)
}

async fn result_of(app: &App, id: OrderId) -> Result<Option<OrderResult>, Failure> {
    let row = app.store.read().await?.order(id).await?;
    let result = row.and_then(|row| row.result);
    Ok(result.map(|text| decode("result", &text)).transpose()?)
}

async fn withdraw(app: &App, idempotency: &str) -> Result<(), ServerError> {
    let mut tx = app.store.begin().await?;
    tx.withdraw_orders(idempotency).await?;
    tx.commit().await?;
    Ok(())
}

fn finished(app: &App, node: NodeId, result: OrderResult) -> Result<OrderOutcome, Failure> {
    match result {
        OrderResult::Done(outcome) => Ok(outcome),
        OrderResult::Failed(mut error) => {
            error.details.entry("server".to_owned()).or_insert_with(|| app.fleet.name(node));
            Err(error.into())
        }
    }
}

/// An answer of another kind than was asked for.
pub(crate) fn unexpected(app: &App, node: NodeId, outcome: &OrderOutcome) -> ApiError {
    let cause =
        format!("{} answered something else than was asked: {outcome:?}", app.fleet.name(node));
    ApiError::new(&codes::NODE_FAILED, cause).cure("check the versions of the servers")
}

/// An order to a node outside of any job: a question, or a setting that stands alone. It is taken
/// back when it took too long.
pub(crate) async fn question(
    app: &App,
    node: NodeId,
    order: &Order,
) -> Result<OrderOutcome, ApiError> {
    question_within(app, node, order, app.timing.question).await
}

/// [`question`] with a patience of its own.
pub(crate) async fn question_within(
    app: &App,
    node: NodeId,
    order: &Order,
    patience: Duration,
) -> Result<OrderOutcome, ApiError> {
    if !app.fleet.in_contact(node) {
        return Err(silent(app, node));
    }
    let key = format!("question/{}", OrderId::generate());
    let given = give(app, node, key, order).await?;
    let until = tokio::time::Instant::now() + patience;
    let mut bell = app.results.listen();
    loop {
        bell.mark_unchanged();
        let result = result_of(app, given.id).await.map_err(|failure| told(&failure))?;
        if let Some(result) = result {
            return finished(app, node, result).map_err(|failure| told(&failure));
        }
        if tokio::time::Instant::now() >= until || !app.fleet.in_contact(node) {
            withdraw(app, &given.idempotency).await?;
            return Err(silent(app, node));
        }
        tokio::select! {
            _ = bell.changed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

fn told(failure: &Failure) -> ApiError {
    match failure {
        Failure::Wait(error) | Failure::Refused(error) => error.clone(),
        Failure::GivenUp => ApiError::new(&codes::INTERNAL, "the question was given up"),
        Failure::Server(error) => ApiError::new(&codes::INTERNAL, error.to_string()),
    }
}
