//! A member's part in a point of several machines (trap T-19): frozen from its moment until every
//! member has taken its own, and no marker before all were frozen still.

use crate::freeze::Frozen;
use crate::hooks::Hooks;
use crate::point::{Marking, Moment};
use crate::run::Asking;
use landfall_api_types::order::BarrierAsk;
use landfall_api_types::request::Consistency;
use landfall_api_types::{ApiError, codes};
use landfall_types::{GroupPointId, Lsn};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};

/// How long the log waits for the verdict, beyond the time that anything may be frozen: a server
/// that has gone away must not stop it.
const VERDICT_MAX: Duration = Duration::from_secs(10);
/// Groups that are over and remembered: a late question must not freeze for them.
const OVER_MAX: usize = 64;

/// What stands between the first question and the last.
struct Held {
    group: GroupPointId,
    /// Until it was asked whether it is still.
    frozen: Option<Frozen>,
    hooks: Option<Hooks>,
    asking: Asking,
    answer: oneshot::Receiver<Result<Lsn, ApiError>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    over: Vec<GroupPointId>,
}

/// At most one group at a time.
#[derive(Clone, Default)]
pub(crate) struct Barrier(Arc<Mutex<State>>);

fn failed(cause: impl Into<String>) -> ApiError {
    ApiError::new(&codes::POINT_FAILED, cause)
}

impl Barrier {
    /// Answers one question; `marking` makes the moment.
    pub(crate) async fn asked(
        &self,
        group: GroupPointId,
        ask: BarrierAsk,
        marking: Option<Marking>,
    ) -> Result<(), ApiError> {
        match ask {
            BarrierAsk::Freeze { name, consistency } => {
                let marking = marking.ok_or_else(|| failed("nothing is protected here now"))?;
                self.freeze(group, name, consistency, marking).await
            }
            BarrierAsk::Confirm => self.confirm(group).await,
            BarrierAsk::Keep => self.keep(group).await,
            BarrierAsk::Void => {
                self.void(group).await;
                Ok(())
            }
        }
    }

    async fn freeze(
        &self,
        group: GroupPointId,
        name: String,
        consistency: Consistency,
        marking: Marking,
    ) -> Result<(), ApiError> {
        let mut state = self.0.lock().await;
        if state.over.contains(&group) {
            return Err(failed("this point was given up already"));
        }
        if let Some(held) = &state.held {
            return match held.group == group {
                true => Ok(()),
                false => Err(failed("another point of several machines is being made")),
            };
        }
        let frozen_max = marking.settings.frozen_max;
        let Moment { frozen, hooks, asking, answer } =
            marking.hold(name, consistency, group).await?;
        state.held = Some(Held { group, frozen: Some(frozen), hooks, asking, answer });
        drop(state);
        let barrier = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(frozen_max + VERDICT_MAX).await;
            barrier.void(group).await;
        });
        Ok(())
    }

    /// Thaws in any case: every member has its moment by now, or there will be no point.
    async fn confirm(&self, group: GroupPointId) -> Result<(), ApiError> {
        let mut state = self.0.lock().await;
        let held = state.held.as_mut().filter(|held| held.group == group);
        let held = held.ok_or_else(|| failed("nothing is frozen for this point"))?;
        // A question that comes twice has its answer: what was thawed was frozen still.
        let Some(frozen) = held.frozen.take() else { return Ok(()) };
        let (still, hooks) = (thaw(frozen).await, held.hooks.take());
        after(hooks).await;
        if !still {
            state.end(group);
            return Err(failed("the file systems were thawed before every member had its moment"));
        }
        Ok(())
    }

    async fn keep(&self, group: GroupPointId) -> Result<(), ApiError> {
        let mut state = self.0.lock().await;
        let confirmed = |held: &&mut Held| held.group == group && held.frozen.is_none();
        if state.held.as_mut().filter(confirmed).is_none() {
            return Err(failed("this member has not confirmed the point"));
        }
        let held = state.held.take();
        state.end(group);
        drop(state);
        let Some(Held { asking, answer, .. }) = held else {
            return Err(failed("this member has not confirmed the point"));
        };
        asking.good();
        answer.await.map_err(|_| failed("the run has ended"))?.map(drop)
    }

    async fn void(&self, group: GroupPointId) {
        let mut state = self.0.lock().await;
        let held = state.held.take_if(|held| held.group == group);
        state.end(group);
        drop(state);
        if let Some(Held { frozen, hooks, asking, .. }) = held {
            // First the verdict: the log goes on.
            drop(asking);
            if let Some(frozen) = frozen {
                thaw(frozen).await;
            }
            after(hooks).await;
        }
    }
}

impl State {
    fn end(&mut self, group: GroupPointId) {
        self.held.take_if(|held| held.group == group);
        if !self.over.contains(&group) {
            self.over.push(group);
            let surplus = self.over.len().saturating_sub(OVER_MAX);
            self.over.drain(..surplus);
        }
    }
}

/// True when everything was frozen until now.
async fn thaw(mut frozen: Frozen) -> bool {
    let asked = tokio::task::spawn_blocking(move || {
        let still = frozen.still();
        let for_how_long = frozen.thaw();
        tracing::info!(?for_how_long, still, "file systems were frozen for several machines");
        still
    });
    asked.await.unwrap_or(false)
}

async fn after(hooks: Option<Hooks>) {
    if let Some(hooks) = hooks {
        // A hook that fails here spoils nothing that is in the log.
        let _told = hooks.post().await;
    }
}
