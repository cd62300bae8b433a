//! The REST API: TLS listener, who calls, routes.

mod enroll;
mod keeping;
mod listener;
mod node;
mod operator;
mod reply;
mod servers;

pub(crate) use enroll::check_name;
pub(crate) use listener::serve;

use crate::app::App;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use landfall_api_types::{ApiError, codes};
use landfall_pki::{PeerIdentity, Role};
use reply::Refusal;
use std::sync::Arc;

/// Most bytes of a request: the largest are reports of master targets with many replicas.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Who calls: the bearer of the connection's client certificate; set by the listener for every
/// request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) Option<PeerIdentity>);

pub(crate) fn router(app: Arc<App>) -> Router {
    let nodes = Router::new()
        .route("/v1/node/report", post(node::report))
        .route("/v1/node/orders", get(node::orders))
        .route("/v1/node/orders/{id}/result", post(node::result))
        .route("/v1/node/renew", post(node::renew))
        .layer(from_fn(nodes_only));
    Router::new()
        .route("/v1/enroll", post(enroll::enroll))
        .merge(nodes)
        .merge(operators().layer(from_fn(operators_only)))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(app)
}

fn operators() -> Router<Arc<App>> {
    let machine = Router::new()
        .route("/", get(operator::machine))
        .route("/points", get(keeping::points))
        .route("/points/note", post(keeping::note_point))
        .route("/holds", get(keeping::holds))
        .route("/policy", post(keeping::assign_policy))
        .route("/divergence", get(operator::divergence))
        .route("/divergence/discard", post(operator::discard_divergence))
        .route("/test-failover", post(operator::test_failover))
        .route("/test-failover/clean-up", post(operator::test_clean_up))
        .route("/failover", post(operator::failover))
        .route("/change-point", post(operator::change_point))
        .route("/commit", post(operator::commit))
        .route("/reprotect", post(operator::reprotect))
        .route("/failback", post(operator::failback))
        .route("/disable", post(operator::disable))
        .route("/cancel", post(operator::cancel))
        .route("/pause", post(operator::pause))
        .route("/resume", post(operator::resume))
        .route("/mark", post(operator::mark));
    Router::new()
        .route("/v1/health", get(operator::health))
        .route("/v1/servers", get(operator::servers))
        .route("/v1/disk-clients", post(operator::disk_client))
        .route("/v1/servers/{name}/bandwidth", post(servers::set_bandwidth))
        .route("/v1/machines", get(operator::machines).post(operator::protect))
        .nest("/v1/machines/{name}", machine)
        .route("/v1/group-points", post(operator::mark_group))
        .route("/v1/alerts", get(keeping::alerts))
        .route("/v1/policies", get(keeping::policies))
        .route(
            "/v1/policies/{name}",
            get(keeping::policy).put(keeping::put_policy).delete(keeping::remove_policy),
        )
        .route("/v1/jobs", get(operator::jobs))
        .route("/v1/jobs/{id}", get(operator::job))
        .route("/v1/jobs/{id}/retry", post(operator::retry))
        .route("/v1/jobs/{id}/cancel", post(operator::cancel_job))
}

async fn not_found(request: Request) -> Refusal {
    let cause = format!("{} {} is no endpoint", request.method(), request.uri().path());
    Refusal(ApiError::new(&codes::NOT_FOUND, cause))
}

async fn operators_only(request: Request, next: Next) -> Response {
    only(request, next, |role| role == Role::Operator, "an operator's").await
}

async fn nodes_only(request: Request, next: Next) -> Response {
    let nodes = |role| matches!(role, Role::Agent | Role::ProcessServer | Role::MasterTarget);
    only(request, next, nodes, "a node's").await
}

async fn only(
    request: Request,
    next: Next,
    accepted: impl Fn(Role) -> bool,
    whose: &str,
) -> Response {
    let caller = request.extensions().get::<Caller>().and_then(|caller| caller.0);
    match caller {
        Some(caller) if accepted(caller.role) => next.run(request).await,
        Some(caller) => {
            refuse(format!("this takes {whose} certificate, not one of {}", caller.role))
        }
        None => refuse(format!("this takes {whose} certificate; none was shown")),
    }
}

fn refuse(cause: String) -> Response {
    Refusal(ApiError::new(&codes::NOT_AUTHORIZED, cause)).into_response()
}
