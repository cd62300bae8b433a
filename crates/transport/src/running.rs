//! Calls of a source or sink that are under way.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

pub(crate) type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Calls that run side by side inside the session's task and are begun in the order in which they
/// were added: an implementor that takes its place before it first waits keeps that order.
pub(crate) struct Running<T>(Vec<Call<T>>);

impl<T> Running<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn start(&mut self, call: impl Future<Output = T> + Send + 'static) {
        self.0.push(Box::pin(call));
    }

    /// Gives up all calls.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The next answer; never, while nothing runs. May be dropped at any time: the calls stay.
    pub(crate) async fn next(&mut self) -> T {
        poll_fn(|context| {
            for at in 0..self.0.len() {
                if let Poll::Ready(answer) = self.0[at].as_mut().poll(context) {
                    drop(self.0.remove(at));
                    return Poll::Ready(answer);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn calls_begin_in_order_and_end_in_any() {
        let begun = Arc::new(Mutex::new(vec![]));
        let mut running = Running::new();
        let mut gates = vec![];
        for n in 0..4 {
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            gates.push(Some(open));
            let begun = Arc::clone(&begun);
            running.start(async move {
                begun.lock().expect("not poisoned").push(n);
                let _ = gate.await;
                n
            });
        }
        for n in [2_usize, 0, 3, 1] {
            gates[n].take().expect("once").send(()).expect("waited for");
            assert_eq!(running.next().await, n);
        }
        assert_eq!(*begun.lock().expect("not poisoned"), [0, 1, 2, 3]);
        assert_eq!(running.len(), 0);
    }
}
