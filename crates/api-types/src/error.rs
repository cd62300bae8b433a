use crate::codes;
use std::collections::BTreeMap;
use std::fmt;

/// A refusal or failure as the API and the CLI show it: stable code, cause and cure (promise P9).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct ApiError {
    /// Stable, kebab-case, one of [`codes::ALL`].
    pub code: String,
    /// What is so, with the values of this case.
    pub cause: String,
    /// What the operator can do.
    pub cure: String,
    /// The facts it was based on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl ApiError {
    /// A refusal by a registered code, with the registry's cure.
    #[must_use]
    pub fn new(code: &'static codes::Code, cause: impl Into<String>) -> Self {
        Self {
            code: code.name.to_owned(),
            cause: cause.into(),
            cure: code.cure.to_owned(),
            details: BTreeMap::new(),
        }
    }

    /// Replaces the registry's cure by one for this case.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = cure.into();
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.details.insert(name.to_owned(), value.to_string());
        self
    }

    /// The registry's entry; an unknown code (of a newer peer) counts as internal.
    #[must_use]
    pub fn registered(&self) -> &'static codes::Code {
        codes::find(&self.code).unwrap_or(&codes::INTERNAL)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.cause)
    }
}

impl std::error::Error for ApiError {}
