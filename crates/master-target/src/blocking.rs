//! Threads for calls that wait for disks.

use std::panic::resume_unwind;

/// Runs `work` on a thread that may block, and waits for it.
///
/// Work that has begun is carried to its end even when the caller is cancelled: a half-appended
/// batch or a half-made branch would be worse than one that nobody waits for.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) if failed.is_panic() => resume_unwind(failed.into_panic()),
        // The runtime is shutting down: nobody polls this future again.
        Err(_) => std::future::pending().await,
    }
}
