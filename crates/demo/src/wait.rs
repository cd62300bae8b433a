//! Waiting for conditions, with a deadline; never for a while.

use anyhow::{Context as _, Result, bail, ensure};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long to wait before a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// A person or a service manager wants the demo to end: every wait ends then, and with it the
/// script, so that what was made is removed as at any other end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM end waits instead of the process.
///
/// # Errors
/// Of the operating system.
pub(crate) fn end_on_signals() -> Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut received = signal(kind).context("wait for signals")?;
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                ENDING.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(())
}

/// Cleaning up waits too, and must not be ended by the signal that led to it.
pub(crate) fn clean_up_now() {
    ENDING.store(false, Ordering::Relaxed);
}

/// Looks at `condition` until it gives a value.
///
/// # Errors
/// Its own error at once; when the deadline has passed, or the demo is to end.
pub(crate) async fn until<T, F, C>(what: &str, patience: Duration, mut condition: C) -> Result<T>
where
    C: FnMut() -> F,
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        goes_on(what, patience, deadline)?;
        tokio::time::sleep(POLL).await;
    }
}

/// [`until`] for conditions that need no runtime.
///
/// # Errors
/// See [`until`].
pub(crate) fn until_blocking<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        goes_on(what, patience, deadline)?;
        std::thread::sleep(POLL);
    }
}

fn goes_on(what: &str, patience: Duration, deadline: Instant) -> Result<()> {
    ensure!(!ENDING.load(Ordering::Relaxed), "ended by a signal while it waited until {what}");
    if Instant::now() >= deadline {
        bail!("waited {} s in vain until {what}", patience.as_secs());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_the_value_the_error_or_the_deadline() {
        let mut left = 2;
        let value = until_blocking("three looks", Duration::from_secs(5), || {
            left -= 1;
            Ok((left < 0).then_some("there"))
        });
        assert_eq!(value.unwrap(), "there");
        let error = until("never", Duration::ZERO, || async { Ok(None::<()>) }).await.unwrap_err();
        assert!(error.to_string().contains("in vain until never"), "{error}");
        let error = until("broken", Duration::from_secs(5), || async { bail!("its own") });
        assert_eq!(error.await.map(|()| 0).unwrap_err().to_string(), "its own");
    }
}
