//! What the volume says, in the words of the API and of the replication protocol.

use landfall_api_types::{ApiError, codes};
use landfall_repl::Refusal;
use landfall_types::Class;
use landfall_volume::{ContentError, IngestError, PointError, RoleError, StorageError};
use std::error::Error;
use std::fmt::Write as _;

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("writing to a string can't fail");
        source = cause.source();
    }
    text
}

fn with_code(code: &str, error: &dyn Error) -> ApiError {
    ApiError::new(codes::find(code).unwrap_or(&codes::INTERNAL), chain(error))
}

/// Of an operation on storage.
pub(crate) fn storage(error: &StorageError) -> ApiError {
    with_code(error.code(), error)
}

/// Of a change of role; candidates of an ambiguous choice are listed (trap T-6).
pub(crate) fn role(error: &RoleError) -> ApiError {
    let api = with_code(error.code(), error);
    let RoleError::Point(PointError::Ambiguous { candidates }) = error else { return api };
    candidates.iter().enumerate().fold(api, |api, (n, point)| {
        api.detail(
            &format!("candidate-{n}"),
            format!("lsn {} at {} ns", point.lsn, point.marker.time_unix_ns),
        )
    })
}

/// Of reading or writing content.
pub(crate) fn content(error: &ContentError) -> ApiError {
    match error {
        ContentError::Storage(source) => storage(source),
        ContentError::Revoked => ApiError::new(&codes::WRONG_STATE, chain(error)),
        _ => ApiError::new(&codes::INTERNAL, chain(error)),
    }
}

/// Of taking frames.
pub(crate) fn refusal(error: &IngestError) -> Refusal {
    match error {
        IngestError::NotReplicating(role) => Refusal::NotReplicating { state: role.to_string() },
        IngestError::Fenced { offered, current, .. } => {
            Refusal::Fenced { offered: *offered, current: *current }
        }
        IngestError::Diverged { common, durable } => {
            Refusal::Diverged { common: *common, durable: *durable }
        }
        IngestError::OtherInstance(instance) => Refusal::OtherInstance(*instance),
        IngestError::Gap { expected, found } => Refusal::Gap { expected: *expected, found: *found },
        IngestError::ChainMismatch { lsn } => Refusal::ChainMismatch { lsn: *lsn },
        _ if error.class() == Class::Bug => Refusal::Protocol { detail: chain(error) },
        _ => Refusal::Unavailable { reason: chain(error) },
    }
}

/// Of content asked for by a session.
pub(crate) fn content_refusal(error: &ContentError) -> Refusal {
    match error {
        ContentError::OutOfRange { .. } | ContentError::UnknownDisk(_) => {
            Refusal::Protocol { detail: chain(error) }
        }
        _ => Refusal::Unavailable { reason: chain(error) },
    }
}
