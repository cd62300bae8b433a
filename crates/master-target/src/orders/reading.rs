//! Orders that only look.

use super::{Outcome, position};
use crate::errors;
use crate::report::api_points;
use crate::target::Target;
use landfall_api_types::order::OrderOutcome;
use landfall_types::{Lsn, ReplicaId};
use std::sync::Arc;
use std::time::Duration;

/// How often a position is looked at that no session moves.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Target {
    pub(super) async fn points(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let hosted = self.hosted(replica)?;
        let choices = hosted.with(landfall_volume::Replica::choices).await;
        Ok(OrderOutcome::Points(api_points(choices.map_err(|error| errors::storage(&error))?)))
    }

    pub(super) async fn estimate(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let hosted = self.hosted(replica)?;
        let estimate = hosted.with(landfall_volume::Replica::estimate).await;
        let estimate = estimate.map_err(|error| errors::storage(&error))?;
        let divergence = crate::report::divergence(self, &hosted).await;
        // What was trimmed could be anywhere: then only the whole is a safe answer.
        let bytes = if estimate.complete { estimate.bytes } else { estimate.total_bytes };
        Ok(OrderOutcome::Estimate { bytes, divergence })
    }

    pub(super) async fn reverse_base(self: &Arc<Self>, replica: ReplicaId) -> Outcome {
        let hosted = self.hosted(replica)?;
        if let Some(branch) = hosted.replica.authority() {
            // What is told must be durable: home's log begins behind it.
            let flushed = crate::blocking::blocking(move || branch.flush()).await;
            flushed.map_err(|error| errors::content(&error))?;
        }
        position(&hosted)
    }

    /// Answered with the position also when the time is up.
    pub(super) async fn wait_for(
        self: &Arc<Self>,
        replica: ReplicaId,
        lsn: Lsn,
        wait_ms: u64,
    ) -> Outcome {
        let hosted = self.hosted(replica)?;
        let mut durable = hosted.durable.subscribe();
        let reached = async {
            loop {
                let there = hosted.replica.status().is_ok_and(|status| status.durable.lsn >= lsn);
                if there {
                    return;
                }
                // A session's flush wakes it; a branch's own writes are found by looking.
                let _woken = tokio::time::timeout(LOOK_INTERVAL, durable.changed()).await;
            }
        };
        let _in_time = tokio::time::timeout(Duration::from_millis(wait_ms), reached).await;
        position(&hosted)
    }
}
