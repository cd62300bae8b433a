use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::watch;

/// A crash at a chosen moment: the n-th boundary of a write (before or after its commit) and every
/// later one never returns, as if the process had been killed there. The test then drops the
/// runtime.
#[derive(Debug)]
pub struct Tripwire {
    left: AtomicI64,
    tripped: watch::Sender<bool>,
}

impl Tripwire {
    /// Trips at boundary `at`, counted from 0: even ones are before a commit, odd ones after it.
    #[must_use]
    pub fn at(at: u32) -> Self {
        Self { left: AtomicI64::new(i64::from(at)), tripped: watch::Sender::new(false) }
    }

    /// Returns when it has tripped; at once if it has before.
    pub async fn tripped(&self) {
        // The sender lives as long as `self`: the channel can't be closed.
        let _ = self.tripped.subscribe().wait_for(|tripped| *tripped).await;
    }

    pub(crate) async fn boundary(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.tripped.send_replace(true);
            std::future::pending::<()>().await;
        }
    }
}
