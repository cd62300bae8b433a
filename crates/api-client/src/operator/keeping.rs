//! Policies, points and alerts.

use super::{Client, encoded, machine_path};
use crate::http::{Call, Repeat};
use crate::node::post;
use hyper::Method;
use landfall_api_types::ApiError;
use landfall_api_types::alert::{Alert, AlertFilter};
use landfall_api_types::resource::{Point, Points};
use landfall_api_types::retention::{
    AssignPolicy, Hold, NotePoint, PointFilter, Policy, PutPolicy,
};
use serde::Serialize;
use serde_json::Value;

impl Client {
    /// `GET /v1/machines/{name}/points?…`: those that pass.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn points_that(&self, name: &str, filter: &PointFilter) -> Result<Points, ApiError> {
        self.get(&format!("{}{}", machine_path(name, "/points"), query(filter))).await
    }

    /// `POST /v1/machines/{name}/points/note`: pins, unpins or names a point; the answer says what
    /// it is then.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn note_point(&self, name: &str, ask: &NotePoint) -> Result<Point, ApiError> {
        self.send(&machine_path(name, "/points/note"), ask).await
    }

    /// `GET /v1/machines/{name}/holds`: what keeps history from expiring.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn holds(&self, name: &str) -> Result<Vec<Hold>, ApiError> {
        self.get(&machine_path(name, "/holds")).await
    }

    /// `POST /v1/machines/{name}/policy`: another policy holds for it from now on.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn assign_policy(&self, name: &str, policy: &str) -> Result<Policy, ApiError> {
        let ask = AssignPolicy { policy: policy.to_owned() };
        self.send(&machine_path(name, "/policy"), &ask).await
    }

    /// `GET /v1/policies`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn policies(&self) -> Result<Vec<Policy>, ApiError> {
        self.get("/v1/policies").await
    }

    /// `GET /v1/policies/{name}`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn policy(&self, name: &str) -> Result<Policy, ApiError> {
        self.get(&policy_path(name)).await
    }

    /// `PUT /v1/policies/{name}`: makes or changes it.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn put_policy(&self, name: &str, ask: &PutPolicy) -> Result<Policy, ApiError> {
        let path = policy_path(name);
        let call = Call { method: Method::PUT, ..post(&path, Repeat::Never) };
        self.http.call(call, Some(ask)).await
    }

    /// `DELETE /v1/policies/{name}`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn remove_policy(&self, name: &str) -> Result<(), ApiError> {
        let path = policy_path(name);
        let call = Call { method: Method::DELETE, ..post(&path, Repeat::Never) };
        self.http.call(call, None::<&()>).await
    }

    /// `GET /v1/alerts?…`, newest first.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn alerts(&self, filter: &AlertFilter) -> Result<Vec<Alert>, ApiError> {
        self.get(&format!("/v1/alerts{}", query(filter))).await
    }
}

fn policy_path(name: &str) -> String {
    format!("/v1/policies/{}", encoded(name))
}

/// `?name=value&…` of the fields that are set.
fn query(filter: &impl Serialize) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(filter) else { return String::new() };
    let value = |value: &Value| match value {
        Value::String(text) => encoded(text),
        other => encoded(&other.to_string()),
    };
    let pairs: Vec<String> =
        fields.iter().map(|(name, field)| format!("{name}={}", value(field))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::{Lsn, MarkerKind};

    #[test]
    fn a_filter_becomes_a_query_of_what_is_set() {
        assert_eq!(query(&PointFilter::default()), "");
        let filter = PointFilter {
            kind: Some(MarkerKind::ApplicationConsistent),
            pinned: true,
            after: Some(Lsn::new(7)),
            ..PointFilter::default()
        };
        assert_eq!(query(&filter), "?after=7&kind=application-consistent&pinned=true");
        let machine = Some("web 1&2".to_owned());
        assert_eq!(
            query(&AlertFilter { machine, ..AlertFilter::default() }),
            "?machine=web%201%262"
        );
    }
}
