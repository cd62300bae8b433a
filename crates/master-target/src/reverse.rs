//! The way home: a catch-up in compare mode on the branch's log, then the log itself with markers
//! (design section 14.8).
//!
//! ```text
//! WindowOpen ─► compare by hashes, append what differs ─► WindowClose, marker ─► marker, marker, …
//! ```
//! All of it stands in the branch's log, which the sender carries home record for record, between
//! the writes of the machine.

mod compare;
mod rotten;
mod source;
mod spec;
mod tracker;

pub(crate) use spec::ReverseSpec;

use crate::errors;
use crate::hosted::Hosted;
use compare::CompareError;
use landfall_api_types::node::ReverseReport;
use landfall_api_types::{ApiError, codes};
use landfall_repl::SenderOptions;
use landfall_transport::{Limiter, SenderConfig, SenderHandle, run_sender};
use landfall_types::{
    Control, Lsn, Marker, MarkerKind, UnixNanos, WindowClose, WindowId, WindowMode, WindowOpen,
    WindowReason,
};
use landfall_volume::{Branch, ContentError};
use landfall_wire::Compression;
use rustls::ClientConfig;
use source::BranchSource;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracker::Tracker;

/// Time between crash-consistent markers of a served machine: the default of the protection,
/// because the branch is the machine's disk and every position is one a power cut could have left.
const MARKER_INTERVAL: Duration = Duration::from_secs(5);
/// A replica that is not there yet may be there later.
const RETRY_PERMANENT_MS: u64 = 5_000;
/// Pause before a comparison that failed is begun anew.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What makes senders.
#[derive(Clone)]
pub struct ReverseStarter {
    /// Shows our certificate and checks the peer's.
    pub tls: Arc<ClientConfig>,
}

/// A way home that is being gone.
pub(crate) struct Reverse {
    pub(crate) spec: ReverseSpec,
    hosted: Arc<Hosted>,
    branch: Arc<Branch>,
    source: Arc<BranchSource>,
    sender: SenderHandle,
    tracker: Tracker,
    folder: PathBuf,
    stopped: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// The current wall time, for markers only.
pub(crate) fn wall_time_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn marker() -> Control {
    marker_at(UnixNanos(wall_time_ns()))
}

/// A crash-consistent marker: every position of a served branch is one that a power cut could have
/// left.
pub(crate) const fn marker_at(now: UnixNanos) -> Control {
    let kind = MarkerKind::CrashConsistent;
    Control::Marker(Marker { kind, time_unix_ns: now.0, name: None, group: None })
}

impl Reverse {
    /// Begins, or goes on after a restart. Returns when the window is open, where there is one to
    /// be opened.
    ///
    /// # Errors
    /// No committed branch with authority; storage errors.
    pub(crate) async fn start(
        hosted: &Arc<Hosted>,
        spec: ReverseSpec,
        starter: &ReverseStarter,
        folder: PathBuf,
    ) -> Result<Arc<Self>, ApiError> {
        let status = hosted.replica.status().map_err(|error| errors::storage(&error))?;
        let branch = hosted.replica.authority().filter(|_| status.committed);
        let branch = branch.ok_or_else(|| {
            ApiError::new(&codes::WRONG_STATE, "no committed branch of this replica has authority")
        })?;
        // Written before the window is opened: a crash in between finds a way home to go on with,
        // and no window.
        spec.save(&folder, hosted.replica.id()).await?;
        if !spec.compared {
            open_window(hosted, &branch).await?;
        }
        let source = Arc::new(BranchSource::new(hosted, &branch, &spec, status.lineage));
        let config = SenderConfig {
            address: spec.next_hop.clone(),
            tls: Arc::clone(&starter.tls),
            compression: Compression::default(),
            limiter: Arc::new(Limiter::new(None)),
            options: SenderOptions {
                retry_permanent_ms: Some(RETRY_PERMANENT_MS),
                history_bytes: 0,
            },
        };
        // Until home says what it has, nothing is trimmed: were home away for longer than the
        // retention, a fold would take what it still needs, and its position could never be
        // continued.
        hosted.replica.keep_records_behind(Lsn::ZERO);
        let sender = run_sender(config, Arc::clone(&source) as Arc<dyn landfall_repl::LogSource>);
        let reverse = Arc::new(Self {
            spec,
            hosted: Arc::clone(hosted),
            branch,
            source,
            sender,
            tracker: Tracker::default(),
            folder,
            stopped: CancellationToken::new(),
            task: Mutex::new(None),
        });
        let task = tokio::spawn(Arc::clone(&reverse).run());
        *crate::hosted::lock(&reverse.task) = Some(task);
        Ok(reverse)
    }

    async fn run(self: Arc<Self>) {
        let stopped = self.stopped.clone();
        tokio::select! {
            () = stopped.cancelled() => {}
            () = self.work() => {}
            () = self.answer_rot() => {}
        }
    }

    async fn work(&self) {
        if !self.spec.compared {
            while let Err(error) = self.compare().await {
                if matches!(error, CompareError::Content(ContentError::Revoked)) {
                    return;
                }
                tracing::warn!(
                    error = errors::chain(&error),
                    "the comparison with home begins anew"
                );
                tokio::time::sleep(RETRY_PAUSE).await;
                // What was compared before is void: the old window closes without a point (trap
                // T-5).
                if let Err(error) = open_window(&self.hosted, &self.branch).await {
                    tracing::error!(%error, "no window can be opened on the branch's log");
                    return;
                }
            }
        }
        let mut interval = tokio::time::interval(MARKER_INTERVAL);
        loop {
            interval.tick().await;
            if self.append(marker()).await.is_err() {
                // Demoted, or the log has failed: the machine's own writes tell that louder.
                return;
            }
        }
    }

    async fn compare(&self) -> Result<(), CompareError> {
        let estimate = self.hosted.with(landfall_volume::Replica::estimate).await.ok();
        self.tracker.begin(estimate.map(|estimate| estimate.bytes));
        self.compare_disks().await?;
        let windows = self.open_windows();
        for window in windows {
            let close = WindowClose { window, exact: true };
            self.append(Control::WindowClose(close)).await?;
        }
        let last = self.append(marker()).await?;
        self.tracker.closed(last);
        let compared = ReverseSpec { compared: true, ..self.spec.clone() };
        if let Err(error) = compared.save(&self.folder, self.hosted.replica.id()).await {
            // A restart compares once more: slower, never wrong.
            tracing::warn!(%error, "it could not be noted that the comparison has ended");
        }
        Ok(())
    }

    fn open_windows(&self) -> Vec<WindowId> {
        self.hosted.replica.status().map(|status| status.open_windows).unwrap_or_default()
    }

    /// Appends a control record, durably.
    async fn append(&self, control: Control) -> Result<Lsn, ContentError> {
        append(&self.branch, control).await
    }

    /// True once the comparison has ended and its closing is in the log.
    pub(crate) fn compared(&self) -> bool {
        self.spec.compared || self.tracker.is_closed()
    }

    /// Ends it: the sender, and the writing of markers. What is in the log stays.
    pub(crate) async fn stop(&self) {
        self.stopped.cancel();
        let task = crate::hosted::lock(&self.task).take();
        if let Some(task) = task {
            // Cancelled above; an error is its panic, which was told already.
            let _ended = task.await;
        }
        self.sender.stop().await;
        self.hosted.replica.keep_records_behind(Lsn::MAX);
    }

    /// For the report.
    pub(crate) fn report(&self) -> ReverseReport {
        let status = self.sender.status();
        let status = status.borrow();
        let durable_at_target = self.source.durable_at_target();
        let refusal = status.refusal.as_ref().map(|r| (r.code().to_owned(), r.to_string()));
        let unreachable =
            status.connect_error.as_ref().map(|e| ("unavailable".to_owned(), e.clone()));
        ReverseReport {
            to: self.spec.to,
            connected: status.connected_since.is_some(),
            sent: status.sent,
            durable_at_target,
            wire_bytes: status.wire_bytes,
            catch_up: self.tracker.report(durable_at_target),
            refusal: refusal.or(unreachable),
        }
    }
}

async fn append(branch: &Arc<Branch>, control: Control) -> Result<Lsn, ContentError> {
    let branch = Arc::clone(branch);
    crate::blocking::blocking(move || {
        let lsn = branch.append_control(&control)?;
        branch.flush()?;
        Ok(lsn)
    })
    .await
}

/// Opens a window over all disks, after closing those that an earlier attempt left open.
async fn open_window(hosted: &Arc<Hosted>, branch: &Arc<Branch>) -> Result<(), ApiError> {
    let failed = |error: ContentError| errors::content(&error);
    let status = hosted.replica.status().map_err(|error| errors::storage(&error))?;
    for window in status.open_windows {
        let close = WindowClose { window, exact: false };
        append(branch, Control::WindowClose(close)).await.map_err(failed)?;
    }
    let disks = branch.disks().into_iter().map(|disk| disk.0).collect();
    let branch = Arc::clone(branch);
    let opened = crate::blocking::blocking(move || {
        // Named by its own position, which no other window of this log has.
        branch.append_with(|lsn, _| {
            let open = WindowOpen {
                window: WindowId(lsn.get()),
                reason: WindowReason::Reprotect,
                mode: WindowMode::Compare,
                disks,
                into_image: false,
            };
            Ok(vec![landfall_types::Record::control(lsn, &Control::WindowOpen(open))])
        })?;
        branch.flush()
    });
    opened.await.map(drop).map_err(failed)
}
