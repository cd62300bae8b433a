use landfall_types::Class;

/// Why the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("{operation}")]
    Database {
        /// Verb and object.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The row changed since it was read, or is gone.
    #[error("{what} {id} changed since it was read")]
    Conflict {
        /// Kind of row.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// Another executor has taken the lease over: nothing of this one is written any more.
    #[error("another configuration server has taken over (its fencing number is above {0})")]
    Fenced(u64),
    /// A value in the database is not one that we write.
    #[error("the database holds {value:?} as {what}")]
    Damaged {
        /// Of what.
        what: &'static str,
        /// What was found.
        value: String,
    },
    /// The database was made by a later version.
    #[error("the database has schema {found}, this version knows {known}")]
    Newer {
        /// In the database.
        found: i64,
        /// Of this version.
        known: i64,
    },
}

impl StoreError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Database { .. } | Self::Conflict { .. } => Class::Transient,
            Self::Fenced(_) => Class::Fenced,
            Self::Damaged { .. } => Class::Corrupt,
            Self::Newer { .. } => Class::Permanent,
        }
    }
}

/// Names the operation that a database error belongs to.
pub(crate) fn during(operation: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { operation, source }
}
