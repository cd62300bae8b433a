//! Failures below the API, told in its terms.

use landfall_api_types::resource::NodeRole;
use landfall_api_types::{ApiError, codes};
use landfall_pki::{PkiError, Role, tls};
use std::error::Error;
use std::io;

/// Damaged or missing credentials as a refusal.
#[must_use]
pub fn from_pki(error: &PkiError) -> ApiError {
    ApiError::new(&codes::NOT_AUTHORIZED, chain(error))
        .cure("check the credentials directory, or enrol again")
}

/// The role as certificates name it.
#[must_use]
pub const fn node_role(role: NodeRole) -> Role {
    match role {
        NodeRole::Agent => Role::Agent,
        NodeRole::ProcessServer => Role::ProcessServer,
        NodeRole::MasterTarget => Role::MasterTarget,
        NodeRole::Operator => Role::Operator,
    }
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// The server can't be reached, or what answers is not the server.
pub(crate) fn connection(authority: &str, error: &io::Error) -> ApiError {
    let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(unpinned) = tls_error.and_then(tls::unpinned) {
        let found = unpinned.found.map_or("none".to_owned(), |found| found.to_string());
        return ApiError::new(
            &codes::FINGERPRINT_MISMATCH,
            format!("what answers at {authority} is not the pinned server"),
        )
        .detail("expected", unpinned.expected)
        .detail("found", found);
    }
    match tls_error {
        Some(error) => ApiError::new(
            &codes::SERVER_UNREACHABLE,
            format!("no trusted connection to {authority}: {error}"),
        )
        .cure("these credentials may belong to another fleet, or a clock is wrong by days"),
        None => {
            ApiError::new(&codes::SERVER_UNREACHABLE, format!("connect to {authority}: {error}"))
        }
    }
}
