//! Requests in and answers out, as JSON, with refusals as [`ApiError`].

use crate::ServerError;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use landfall_api_types::{ApiError, codes};
use landfall_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An answer: JSON, or a refusal with its code's status.
pub(super) type Answer<T> = Result<Reply<T>, Refusal>;

/// A refusal.
pub(super) struct Refusal(pub(super) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}
impl From<ServerError> for Refusal {
    fn from(error: ServerError) -> Self {
        tracing::warn!(%error, "a request failed");
        Self(error.into())
    }
}
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        ServerError::Store(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.registered().status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, &self.0)
    }
}

/// A value as JSON.
pub(super) struct Reply<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A request's body, decoded; what does not fit is refused with the field's name.
pub(super) struct Ask<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Ask<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bad = |cause: String| Refusal(ApiError::new(&codes::BAD_REQUEST, cause));
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| bad(format!("the body can't be read: {rejection}")))?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| bad(format!("the body is not understood: {error}")))
    }
}

/// A parameter of path or query that does not parse.
pub(super) fn bad(what: &str, value: &str) -> Refusal {
    Refusal(ApiError::new(&codes::BAD_REQUEST, format!("{value:?} is no {what}")))
}
