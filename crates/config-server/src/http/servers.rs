//! Settings of registered servers.

use super::Caller;
use super::operator::who;
use super::reply::{Answer, Ask, Reply};
use crate::app::App;
use crate::jobs::{find_server, question};
use axum::Extension;
use axum::extract::{Path, State};
use landfall_api_types::order::Order;
use landfall_api_types::request::SetBandwidth;
use landfall_api_types::resource::{Bandwidth, NodeRole};
use landfall_api_types::{ApiError, codes};
use landfall_model::BandwidthPlan;
use std::sync::Arc;

/// `POST /v1/servers/{name}/bandwidth`: answered when the process server has it durably. It is kept
/// there, not here: the limit of a link holds while this server is away, too.
pub(super) async fn set_bandwidth(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<SetBandwidth>,
) -> Answer<Bandwidth> {
    let plan: BandwidthPlan = ask
        .plan
        .parse()
        .map_err(|error| ApiError::new(&codes::BAD_REQUEST, format!("plan: {error}")))?;
    let node = find_server(&app, &name, NodeRole::ProcessServer)?;
    let plan = plan.to_string();
    question(&app, node, &Order::PsBandwidth { plan: plan.clone() }).await?;
    let server = app.fleet.name(node);
    tracing::info!(server, plan, by = who(by), "a bandwidth plan was set");
    Ok(Reply(Bandwidth { server, plan }))
}
