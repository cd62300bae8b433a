//! The connection to the next hop, as the agent uses it.

use crate::source::Source;
use landfall_repl::{HashReply, HashRequest, ImageData, Refusal};
use landfall_types::Lsn;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// An answer that comes later. Questions go out in the order of their first poll.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// Carries one log to the next hop, over as many connections as it takes.
pub trait Uplink: Send + Sync + 'static {
    /// Puts a piece of a first copy into the image; answered when it is durable at the target.
    fn image(&self, piece: ImageData) -> Answer<()>;
    /// Asks for hashes of the newest content at the target.
    fn hash(&self, request: HashRequest) -> Answer<HashReply>;
    /// Ends when the link has given up for good, with the reason.
    fn ended(&self) -> Pin<Box<dyn Future<Output = Refusal> + Send>>;
    /// Newest LSN sent.
    fn sent(&self) -> Lsn;
    /// Whether there is a session, and the round trip in milliseconds where it was measured.
    fn link(&self) -> (bool, Option<f64>);
    /// Why the last session ended, if it was refused.
    fn refusal(&self) -> Option<Refusal>;
    /// Why the last attempt to connect failed, with its causes.
    fn connect_error(&self) -> Option<String>;
    /// Stops; nothing is sent any more when this returns.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Makes uplinks.
pub trait Network: Send + Sync + 'static {
    /// Carries the log of `source` to `next_hop` (`host:port`) until stopped.
    fn connect(&self, next_hop: &str, source: Arc<Source>) -> Arc<dyn Uplink>;
}

/// Answers that are waited for together, the oldest first.
pub(crate) struct Together<T>(VecDeque<Place<T>>);

enum Place<T> {
    Open(Answer<T>),
    Answered(Result<T, Refusal>),
}

impl<T> Together<T> {
    pub(crate) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a question and sees it on its way.
    pub(crate) async fn push(&mut self, answer: Answer<T>) {
        self.0.push_back(Place::Open(answer));
        std::future::poll_fn(|context| {
            self.poll_all(context);
            Poll::Ready(())
        })
        .await;
    }

    /// The oldest answer; `None` when nothing is open.
    pub(crate) async fn oldest(&mut self) -> Option<Result<T, Refusal>> {
        std::future::poll_fn(|context| {
            // All of them, in their order: one that is not polled does not go out.
            self.poll_all(context);
            match self.0.pop_front() {
                None => Poll::Ready(None),
                Some(Place::Answered(answer)) => Poll::Ready(Some(answer)),
                Some(open) => {
                    self.0.push_front(open);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn poll_all(&mut self, context: &mut Context<'_>) {
        for place in &mut self.0 {
            if let Place::Open(answer) = place
                && let Poll::Ready(answer) = answer.as_mut().poll(context)
            {
                *place = Place::Answered(answer);
            }
        }
    }
}
