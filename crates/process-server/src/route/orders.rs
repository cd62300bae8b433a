//! What the configuration server asks of a route.

use super::Route;
use crate::RelayError;
use landfall_api_types::order::OrderOutcome;
use landfall_repl::Refusal;
use landfall_types::{InstanceId, Lineage};
use std::sync::Arc;
use std::time::Duration;

impl Route {
    /// Takes over the order's values; ends sessions of another instance or of a lower epoch, and a
    /// drain.
    pub(crate) async fn update(
        self: &Arc<Self>,
        next_hop: String,
        lineage: &Lineage,
        instance: InstanceId,
    ) -> Result<(), RelayError> {
        let before = self.state().file.clone();
        let moved = before.next_hop != next_hop;
        if moved {
            // The old sender would go on to the old address.
            self.stop_sender().await;
        }
        let (route, lineage) = (Arc::clone(self), lineage.clone());
        let file = on_disk(move || {
            route.change(|file| {
                file.next_hop = next_hop;
                file.instance = instance;
                file.draining = false;
                file.raise_floor(&lineage);
            })
        })
        .await?;
        let raised = file.floor != before.floor;
        if raised || instance != before.instance {
            let reason = "the route was changed by an order".into();
            self.state().end_sessions(Refusal::Unavailable { reason });
            self.announce_change();
        }
        if moved || file != before {
            self.start();
            let sender = super::lock(&self.sender).clone();
            if let Some(sender) = sender {
                sender.restart().await;
            }
        }
        Ok(())
    }

    /// Takes nothing more, and waits until what was acknowledged is at the target, or `wait` is
    /// over (trap T-14).
    pub(crate) async fn drain(
        self: &Arc<Self>,
        wait: Duration,
    ) -> Result<OrderOutcome, RelayError> {
        let route = Arc::clone(self);
        on_disk(move || route.change(|file| file.draining = true)).await?;
        {
            // Behind the append that is under way: what it appends is acknowledged, and counts.
            let _appending = self.appending.lock().await;
            self.state().end_sessions(Refusal::NotReplicating { state: "draining".into() });
        }
        self.announce_change();
        let log = self.state().log.clone();
        if let Some(log) = log {
            // What was received may have been acknowledged by a flush that is under way.
            on_disk(move || log.flush().map_err(RelayError::Spool)).await?;
        }
        self.start();
        let delivered = self.until(|state| (state.undelivered.records() == 0).then_some(()));
        let _ = tokio::time::timeout(wait, delivered).await;
        let state = self.state();
        Ok(OrderOutcome::Drained {
            bytes: state.undelivered.bytes(),
            records: state.undelivered.records(),
            age_s: state.undelivered.age().as_secs_f64(),
        })
    }

    /// Ends the route, if nothing is lost by it or `discard` says so. Its directory is the caller's
    /// to remove.
    pub(crate) async fn end(self: &Arc<Self>, discard: bool) -> Result<(), RelayError> {
        {
            let state = self.state();
            let (records, bytes) = (state.undelivered.records(), state.undelivered.bytes());
            if !discard && (records > 0 || !state.file.divergence.is_empty()) {
                return Err(RelayError::NotDelivered { replica: self.replica, records, bytes });
            }
        }
        self.stop_sender().await;
        let _appending = self.appending.lock().await;
        let mut state = self.state();
        state.end_sessions(Refusal::UnknownReplica(self.replica));
        let undelivered = std::mem::take(&mut state.undelivered);
        state.log = None;
        drop(state);
        self.cache.remove(undelivered.bytes());
        self.announce_change();
        Ok(())
    }
}

/// Work on disks goes to a thread of its own.
pub(crate) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RelayError> + Send + 'static,
) -> Result<T, RelayError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(cut_off) => match cut_off.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: whoever waits is dropped with it.
            Err(_) => std::future::pending().await,
        },
    }
}
