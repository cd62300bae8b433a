//! A replica that is open, with what the running process adds to it: sessions, notifications, the
//! way home.

use crate::blocking::blocking;
use crate::reverse::Reverse;
use landfall_api_types::ApiError;
use landfall_repl::Refusal;
use landfall_types::{ByteRange, DiskIndex, Lsn};
use landfall_volume::{DivergenceStatus, Replica, StorageError};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The session that may call.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Serial of the newest session; calls with a lower one are refused.
    pub(crate) newest: u64,
    /// A session is open.
    pub(crate) connected: bool,
    /// What its source was asked to send again (trap T-20).
    pub(crate) asked: Vec<(DiskIndex, ByteRange)>,
    /// Sessions up to this serial were ended by us: they come again with what is asked now.
    ended: u64,
}

/// A hosted replica.
pub(crate) struct Hosted {
    pub(crate) replica: Arc<Replica>,
    /// Held while a session's batch is appended: so a newer session begins between two batches,
    /// never within one.
    pub(crate) sessions: Mutex<Sessions>,
    /// Newest received and durable positions of the log that takes frames.
    pub(crate) received: watch::Sender<Lsn>,
    pub(crate) durable: watch::Sender<Lsn>,
    /// Pieces of a first copy are written in the order in which they came.
    pub(crate) image_order: tokio::sync::Mutex<u64>,
    /// One flush serves all pieces that were written before it: the number of the last piece that
    /// is durable.
    pub(crate) image_durable: tokio::sync::Mutex<u64>,
    /// The branch's log is sent home.
    pub(crate) reverse: tokio::sync::Mutex<Option<Arc<Reverse>>>,
    /// A fold runs in the background.
    pub(crate) folding: AtomicBool,
    /// A scrub runs in the background.
    pub(crate) scrubbing: AtomicBool,
    /// Why it takes no records at present; over with the next one that it takes.
    stopped: Mutex<Option<ApiError>>,
    /// When the last marker was put on a served branch, in milliseconds of the process, and where.
    marker: Mutex<(u64, Lsn)>,
    /// Divergence never changes once it is entered: looked at once.
    divergence: Mutex<HashMap<String, DivergenceStatus>>,
}

impl Hosted {
    pub(crate) fn new(replica: Replica) -> Self {
        let status = replica.status();
        let at = |look: fn(&landfall_volume::ReplicaStatus) -> Lsn| {
            status.as_ref().map_or(Lsn::ZERO, look)
        };
        Self {
            received: watch::Sender::new(at(|status| status.received)),
            durable: watch::Sender::new(at(|status| status.durable.lsn)),
            replica: Arc::new(replica),
            sessions: Mutex::new(Sessions::default()),
            image_order: tokio::sync::Mutex::new(0),
            image_durable: tokio::sync::Mutex::new(0),
            reverse: tokio::sync::Mutex::new(None),
            folding: AtomicBool::new(false),
            scrubbing: AtomicBool::new(false),
            stopped: Mutex::new(None),
            marker: Mutex::default(),
            divergence: Mutex::new(HashMap::new()),
        }
    }

    /// Notes whether records can be taken, from the outcome of taking some. Lack of room is an
    /// alert as long as it lasts: the source waits, and its window grows.
    pub(crate) fn note(&self, outcome: Result<(), &StorageError>) {
        let alert = match outcome {
            Ok(()) => None,
            Err(error) if error.is_full() => {
                let id = self.replica.id();
                Some(crate::errors::storage(error).detail("replica", id))
            }
            Err(_) => return,
        };
        let mut stopped = lock(&self.stopped);
        if stopped.is_some() != alert.is_some() {
            let replica = self.replica.id();
            match &alert {
                Some(_) => tracing::error!(%replica, "no room: records are refused"),
                None => tracing::info!(%replica, "there is room again: records are taken"),
            }
        }
        *stopped = alert;
    }

    /// Why it takes no records at present.
    pub(crate) fn stopped(&self) -> Option<ApiError> {
        lock(&self.stopped).clone()
    }

    /// The sessions, after a check that `serial` is the newest's.
    pub(crate) fn session(&self, serial: u64) -> Result<MutexGuard<'_, Sessions>, Refusal> {
        let sessions = lock(&self.sessions);
        if sessions.newest == serial {
            return Ok(sessions);
        }
        if serial <= sessions.ended {
            let reason = "the target says anew what has rotted".to_owned();
            return Err(Refusal::Unavailable { reason });
        }
        Err(Refusal::Superseded)
    }

    /// Ends the session that is open, so that the source asks anew where we stand.
    pub(crate) fn end_session(&self) {
        let mut sessions = lock(&self.sessions);
        sessions.ended = sessions.newest;
        sessions.newest += 1;
        sessions.connected = false;
        drop(sessions);
        // Whoever waits for more to become durable looks at its session again.
        self.durable.send_modify(|_| ());
    }

    /// Runs something on the replica on a thread that may block.
    pub(crate) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Replica) -> T + Send + 'static,
    ) -> T {
        let replica = Arc::clone(&self.replica);
        blocking(move || work(&replica)).await
    }

    /// Rises with everything that is written here: frames, and a machine's writes to its branch.
    pub(crate) fn activity(&self) -> u64 {
        let branch = self.replica.authority().map_or(0, |branch| branch.written_bytes());
        self.received.borrow().get().wrapping_add(branch)
    }

    /// True when the last marker on a served branch is so long ago; then it counts from now.
    pub(crate) fn marker_due(&self, now_ms: u64, interval: Duration) -> bool {
        let mut marker = lock(&self.marker);
        let due = u128::from(now_ms.saturating_sub(marker.0)) >= interval.as_millis();
        if due {
            marker.0 = now_ms;
        }
        due
    }

    /// Where the last marker was put.
    pub(crate) fn marked(&self) -> Lsn {
        lock(&self.marker).1
    }

    pub(crate) fn set_marked(&self, at: Lsn) {
        lock(&self.marker).1 = at;
    }

    /// Divergence with sizes and times.
    pub(crate) fn divergence(&self) -> Vec<DivergenceStatus> {
        let Ok(status) = self.replica.status() else { return vec![] };
        let mut known = lock(&self.divergence);
        if status.divergence.iter().any(|entry| !known.contains_key(&entry.name)) {
            let all = self.replica.divergence().unwrap_or_default();
            for found in all {
                known.entry(found.entry.name.clone()).or_insert(found);
            }
        }
        let told = |entry: &landfall_volume::DivergenceEntry| {
            let known = known.get(&entry.name)?;
            Some(DivergenceStatus { entry: entry.clone(), ..known.clone() })
        };
        status.divergence.iter().filter_map(told).collect()
    }
}

/// Locks without looking at poisoning: what is guarded is changed in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
