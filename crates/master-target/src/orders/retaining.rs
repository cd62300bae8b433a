//! Orders about what is kept.

use super::Outcome;
use crate::errors;
use crate::report::api_hold;
use crate::target::Target;
use landfall_api_types::order::OrderOutcome;
use landfall_api_types::retention::Note;
use landfall_api_types::{ApiError, codes};
use landfall_types::{Lsn, ReplicaId, RetentionPolicy};
use std::sync::Arc;

impl Target {
    pub(super) async fn policy(
        self: &Arc<Self>,
        replica: ReplicaId,
        policy: RetentionPolicy,
    ) -> Outcome {
        policy
            .validate()
            .map_err(|error| ApiError::new(&codes::BAD_REQUEST, format!("the policy: {error}")))?;
        let hosted = self.hosted(replica)?;
        let set = hosted.with(move |replica| replica.set_retention(&policy)).await;
        set.map_err(|error| errors::role(&error))?;
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn note(
        self: &Arc<Self>,
        replica: ReplicaId,
        lsn: Lsn,
        note: Note,
        by: String,
    ) -> Outcome {
        let hosted = self.hosted(replica)?;
        let noted = hosted.with(move |replica| match note {
            Note::Pin { for_s } => {
                let for_ms = for_s.map(|seconds| seconds.saturating_mul(1_000));
                replica.pin_point(lsn, &by, for_ms)
            }
            Note::Unpin => replica.unpin_point(lsn),
            Note::Name { name } => replica.name_point(lsn, name.as_deref()),
        });
        noted.await.map_err(|error| errors::role(&error))?;
        Ok(OrderOutcome::Done)
    }

    pub(super) async fn holds(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let hosted = self.hosted(replica)?;
        let holds = hosted.with(landfall_volume::Replica::holds).await;
        let holds = holds.map_err(|error| errors::storage(&error))?;
        Ok(OrderOutcome::Holds { holds: holds.into_iter().map(api_hold).collect() })
    }
}
