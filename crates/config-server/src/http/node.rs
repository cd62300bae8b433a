//! What nodes ask and say.

use super::Caller;
use super::enroll::{certificate_role, refused_request};
use super::reply::{Answer, Ask, Refusal, Reply, bad};
use crate::app::{App, now};
use crate::fleet::Node;
use crate::record::{decode, encode, name_of};
use axum::Extension;
use axum::extract::{Path, Query, State};
use landfall_api_types::node::{Enrolled, OrderEnvelope, OrderResult, Orders, Renew, Report};
use landfall_api_types::{ApiError, codes};
use landfall_pki::{Role, request_key};
use landfall_store::NodeRow;
use landfall_types::{NodeId, OrderId};
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Longest wait of a poll.
const POLL_WAIT_MAX: Duration = Duration::from_secs(60);

/// The registered node that calls: its certificate may outlive its registration, or name another
/// role.
fn caller(app: &App, caller: Caller) -> Result<Node, Refusal> {
    let refused = |cause: &str| Refusal(ApiError::new(&codes::NOT_AUTHORIZED, cause));
    let identity = caller.0.ok_or_else(|| refused("no certificate was shown"))?;
    let node = app.fleet.get(identity.node);
    let node = node.ok_or_else(|| refused("this node is not registered here"))?;
    if certificate_role(node.role) != identity.role {
        return Err(refused("this node is registered in another role"));
    }
    Ok(node)
}

/// `POST /v1/node/report`.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Ask(report): Ask<Report>,
) -> Answer<()> {
    let before = caller(&app, by)?;
    let moved = before.address != report.address;
    app.fleet.change(before.id, |node| node.hear(report, now()));
    let old = before.persisted.is_none_or(|when| when.elapsed() > app.timing.report_persist);
    if old || moved {
        persist(&app, before.id).await?;
    }
    Ok(Reply(()))
}

/// Keeps a report for the next start of the server: what is shown then is old, but not nothing.
async fn persist(app: &App, id: NodeId) -> Result<(), Refusal> {
    let node = app.fleet.change(id, |node| {
        node.persisted = Some(Instant::now());
        node.clone()
    });
    let Some(node) = node else { return Ok(()) };
    let row = NodeRow {
        id,
        name: node.name,
        role: name_of(&node.role),
        key: node.key,
        address: node.address,
        version: node.version,
        last_report: node.reported,
        report: Some(encode("report", &node.report)?),
    };
    let mut tx = app.store.begin().await?;
    tx.update_node(&row).await?;
    tx.commit().await?;
    Ok(())
}

#[derive(Deserialize)]
pub(super) struct PollQuery {
    #[serde(default)]
    wait_ms: u64,
    /// IDs of orders that the node is carrying out, separated by commas.
    #[serde(default)]
    known: String,
}

/// `GET /v1/node/orders`.
pub(super) async fn orders(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Query(query): Query<PollQuery>,
) -> Answer<Orders> {
    let node = caller(&app, by)?.id;
    let known: HashSet<&str> = query.known.split(',').collect();
    let _waiting = app.fleet.poll(node);
    let mut bell = app.orders.listen();
    let until =
        tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(POLL_WAIT_MAX);
    loop {
        bell.mark_unchanged();
        let open = app.store.read().await?.open_orders(node).await?;
        if open.iter().any(|order| !known.contains(order.id.to_string().as_str())) {
            let envelope = |order: landfall_store::OrderRow| {
                Ok(OrderEnvelope { id: order.id, order: decode("order", &order.body)? })
            };
            let orders: Result<_, crate::ServerError> = open.into_iter().map(envelope).collect();
            return Ok(Reply(Orders { orders: orders? }));
        }
        tokio::select! {
            _ = bell.changed() => {}
            () = tokio::time::sleep_until(until) => return Ok(Reply(Orders { orders: vec![] })),
            () = app.shutdown.cancelled() => return Ok(Reply(Orders { orders: vec![] })),
        }
    }
}

/// `POST /v1/node/orders/{id}/result`: the first result counts; for an order that is no longer
/// known it changes nothing.
pub(super) async fn result(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    Ask(result): Ask<OrderResult>,
) -> Answer<()> {
    let node = caller(&app, by)?.id;
    let id: OrderId = id.parse().map_err(|_| bad("order", &id))?;
    let mut tx = app.store.begin().await?;
    let first = tx.answer_order(id, node, &encode("result", &result)?).await?;
    if first {
        tx.commit().await?;
        app.results.ring();
    }
    Ok(Reply(()))
}

/// `POST /v1/node/renew`.
pub(super) async fn renew(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Ask(ask): Ask<Renew>,
) -> Answer<Enrolled> {
    let node = caller(&app, by)?;
    let key = request_key(&ask.csr_pem).map_err(refused_request)?.to_string();
    if key != node.key {
        let cause = "csr_pem: a renewal is over the key that was enrolled";
        return Err(ApiError::new(&codes::BAD_REQUEST, cause).into());
    }
    let identity = landfall_pki::PeerIdentity { role: certificate_role(node.role), node: node.id };
    if identity.role != Role::MasterTarget && !ask.names.is_empty() {
        let cause = "names: only a master target is reached by programs that compare names";
        return Err(ApiError::new(&codes::BAD_REQUEST, cause).into());
    }
    let signed = app
        .authority
        .sign_named(&ask.csr_pem, identity, &ask.names, SystemTime::now())
        .map_err(refused_request)?;
    Ok(Reply(Enrolled { node: node.id, certificate_pem: signed.pem, ca_pem: signed.authority_pem }))
}
