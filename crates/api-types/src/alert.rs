//! What needs somebody's attention.

use crate::ApiError;
use landfall_types::{MachineId, UnixNanos};
use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It will be bad unless somebody does something.
    Warning,
    /// Recovery is not possible as promised, or soon will not be.
    Critical,
}

/// What a node finds wrong at present (part of its report).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// How bad it is.
    pub severity: Severity,
    /// The machine that it is about, if it is about one.
    pub machine: Option<MachineId>,
    /// Code, cause, cure.
    pub error: ApiError,
}

/// An alert: raised when a condition begins to hold, cleared when it has ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// Rises with each alert.
    pub id: u64,
    /// Stable code, see `docs/errors`.
    pub code: String,
    /// How bad it is, or was at its worst.
    pub severity: Severity,
    /// Name of the machine that it is about.
    pub machine: Option<String>,
    /// Name of the server that it is about.
    pub server: Option<String>,
    /// What is so.
    pub cause: String,
    /// What can be done.
    pub cure: String,
    /// When it was raised.
    pub raised: UnixNanos,
    /// When it was cleared; none while it holds.
    pub cleared: Option<UnixNanos>,
}

/// `GET /v1/alerts?…`, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertFilter {
    /// Those that were cleared too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cleared: bool,
    /// Of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Of this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Older than this ID: the next page begins behind the last alert of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most so many, 1 to 1 000; default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
