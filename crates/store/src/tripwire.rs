use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Notify;

/// A crash at a chosen moment: the n-th boundary of a write (before or after its commit) and every later one never
/// returns, as if the process had been killed there. The test then drops the runtime.
#[derive(Debug)]
pub struct Tripwire {
    left: AtomicI64,
    tripped: Notify,
}

impl Tripwire {
    /// Trips at boundary `at`, counted from 0: even ones are before a commit, odd ones after it.
    #[must_use]
    pub fn at(at: u32) -> Self {
        Self { left: AtomicI64::new(i64::from(at)), tripped: Notify::new() }
    }

    /// Returns when it has tripped.
    pub async fn tripped(&self) {
        self.tripped.notified().await;
    }

    pub(crate) async fn boundary(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.tripped.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
