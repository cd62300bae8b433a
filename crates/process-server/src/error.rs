use landfall_api_types::{ApiError, codes};
use landfall_blockdev::DeviceError;
use landfall_journal::JournalError;
use landfall_model::BandwidthError;
use landfall_repl::Refusal;
use landfall_types::{Class, ReplicaId};

/// Why a route can't be kept or served.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The state directory fails.
    #[error("{doing} of the route")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What storage said.
        #[source]
        source: DeviceError,
    },
    /// The route's file is not one of ours.
    #[error("the file of the route {replica} can't be read")]
    Damaged {
        /// Which directory.
        replica: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The spool fails.
    #[error("the spool")]
    Spool(#[source] JournalError),
    /// Not a plan for the link.
    #[error("the bandwidth plan")]
    Bandwidth(#[source] BandwidthError),
    /// No such route.
    #[error("there is no route for the replica {0}")]
    UnknownRoute(ReplicaId),
    /// The spool holds what the next hop does not have (trap T-14).
    #[error("{records} records ({bytes} bytes) of the replica {replica} are not delivered")]
    NotDelivered {
        /// Which.
        replica: ReplicaId,
        /// Records left.
        records: u64,
        /// Bytes left.
        bytes: u64,
    },
}

impl RelayError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Store { source, .. } => source.class(),
            Self::Damaged { .. } => Class::Corrupt,
            Self::Spool(source) => source.class(),
            Self::UnknownRoute(_) | Self::Bandwidth(_) => Class::Permanent,
            Self::NotDelivered { .. } => Class::Transient,
        }
    }

    /// For the configuration server.
    #[must_use]
    pub fn api(&self) -> ApiError {
        let cause = with_causes(self);
        match self {
            Self::NotDelivered { records, bytes, .. } => {
                ApiError::new(&codes::RELAY_NOT_DRAINED, cause)
                    .detail("records", records)
                    .detail("bytes", bytes)
            }
            Self::Damaged { .. } => ApiError::new(&codes::CORRUPT, cause),
            Self::Spool(source) if matches!(source.class(), Class::Corrupt) => {
                ApiError::new(&codes::CORRUPT, cause)
            }
            Self::Bandwidth(_) => ApiError::new(&codes::BAD_REQUEST, cause),
            Self::Store { .. } | Self::Spool(_) | Self::UnknownRoute(_) => {
                ApiError::new(&codes::NODE_FAILED, cause)
            }
        }
    }
}

/// What a sender is told when the spool or its file fails.
pub(crate) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::Unavailable { reason: with_causes(error) }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
