use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Who is connected to what, so that authority can be taken away from them.
#[derive(Default)]
pub(super) struct Registry {
    state: Mutex<State>,
    /// Told whenever a session has no request in flight any more.
    left: Notify,
    /// True once the server takes no more clients.
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    next: u64,
    sessions: BTreeMap<u64, Entry>,
}

struct Entry {
    name: Arc<str>,
    stop: watch::Sender<bool>,
}

/// A session's place in the registry; dropped when none of its requests is in flight any more.
pub(super) struct Registration<'a> {
    registry: &'a Registry,
    id: u64,
    stop: watch::Receiver<bool>,
}

impl Registry {
    /// Enters a session. Whoever enters must look at the export's `revoked` *afterwards*: authority
    /// is taken away by revoking first and disconnecting then, so that a session is either found
    /// here or finds the export revoked.
    pub(super) fn enter(&self, name: &str) -> Registration<'_> {
        let (sender, stop) = watch::channel(false);
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.sessions.insert(id, Entry { name: name.into(), stop: sender });
        Registration { registry: self, id, stop }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.lock().sessions.values().map(|entry| entry.name.to_string()).collect()
    }

    /// Stops all sessions that match now, and waits until they have left.
    pub(super) async fn disconnect(&self, matches: impl Fn(&str) -> bool) {
        let stopped: Vec<u64> = {
            let state = self.lock();
            let matching = state.sessions.iter().filter(|(_, entry)| matches(&entry.name));
            matching
                .map(|(id, entry)| {
                    entry.stop.send_replace(true);
                    *id
                })
                .collect()
        };
        loop {
            // Enrolled before looking: a session that leaves in between still wakes us.
            let left = self.left.notified();
            let gone = {
                let state = self.lock();
                stopped.iter().all(|id| !state.sessions.contains_key(id))
            };
            if gone {
                return;
            }
            left.await;
        }
    }

    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// For negotiations and listeners: turns true when the server takes no more clients.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the map is whole at each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration<'_> {
    /// Comes to its end once the session has to stop.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.clone();
        async move {
            // An error means that the entry is gone, which only the drop of this very value does.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.registry.lock().sessions.remove(&self.id);
        self.registry.left.notify_waiters();
    }
}
