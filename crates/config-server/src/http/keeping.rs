//! What operators ask about policies, points and alerts.

use super::Caller;
use super::operator::who;
use super::reply::{Answer, Ask, Reply};
use crate::app::App;
use crate::{alerts, jobs, points, policies};
use axum::Extension;
use axum::extract::{Path, Query, State};
use landfall_api_types::alert::{Alert, AlertFilter};
use landfall_api_types::resource::{Point, Points};
use landfall_api_types::retention::{
    AssignPolicy, Hold, NotePoint, PointFilter, Policy, PutPolicy,
};
use std::sync::Arc;

/// `GET /v1/policies`.
pub(super) async fn policies(State(app): State<Arc<App>>) -> Answer<Vec<Policy>> {
    Ok(Reply(policies::list(&app).await?))
}

/// `GET /v1/policies/{name}`.
pub(super) async fn policy(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<Policy> {
    Ok(Reply(policies::show(&app, &name).await?))
}

/// `PUT /v1/policies/{name}`.
pub(super) async fn put_policy(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Ask(ask): Ask<PutPolicy>,
) -> Answer<Policy> {
    Ok(Reply(policies::put(&app, &name, ask).await?))
}

/// `DELETE /v1/policies/{name}`.
pub(super) async fn remove_policy(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<()> {
    Ok(Reply(policies::remove(&app, &name).await?))
}

/// `POST /v1/machines/{name}/policy`.
pub(super) async fn assign_policy(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<AssignPolicy>,
) -> Answer<Policy> {
    Ok(Reply(policies::assign(&app, &name, &ask.policy, who(by)).await?))
}

/// `GET /v1/machines/{name}/points?…`.
pub(super) async fn points(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(filter): Query<PointFilter>,
) -> Answer<Points> {
    let record = jobs::find_machine(&mut app.store.read().await?, &name).await?;
    let all = points::of_machine(&app, &record).await?;
    Ok(Reply(points::filtered(all, &filter)?))
}

/// `POST /v1/machines/{name}/points/note`: answered when it is durable at the target.
pub(super) async fn note_point(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    Path(name): Path<String>,
    Ask(ask): Ask<NotePoint>,
) -> Answer<Point> {
    let record = jobs::find_machine(&mut app.store.read().await?, &name).await?;
    Ok(Reply(points::note(&app, &record, ask, who(by)).await?))
}

/// `GET /v1/machines/{name}/holds`.
pub(super) async fn holds(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Answer<Vec<Hold>> {
    let record = jobs::find_machine(&mut app.store.read().await?, &name).await?;
    Ok(Reply(points::holds(&app, &record).await?))
}

/// `GET /v1/alerts?…`, newest first.
pub(super) async fn alerts(
    State(app): State<Arc<App>>,
    Query(filter): Query<AlertFilter>,
) -> Answer<Vec<Alert>> {
    Ok(Reply(alerts::list(&app, &filter).await?))
}
