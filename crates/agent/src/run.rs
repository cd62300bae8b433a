//! Carries out one order to start: capture, catch up, send, until told to stop.
//!
//! ```text
//!        ┌───────────► load the capture (self-test first) ◄──────────────┐
//!        │                       │ active                                │
//!        │                 pump thread: ring ─► log, markers             │
//!        │                       │                                       │
//!        │   position known: window opened ─► barrier ─► read ─► close   │
//!        │                       │                                       │
//!        └── lost: window behind our own tail      position of no use (T-1)
//! ```

mod catch_up;
mod pump;
mod reader;

use crate::log::Tip;
use crate::plan::Plan;
use crate::source::{Begin, Source};
use crate::status::Status;
use crate::uplink::{Network, Uplink};
use catch_up::{CatchUp, CatchUpError, ImageProgress};
use landfall_api_types::order::{AgentStart, StartMode};
use landfall_api_types::resource::CaptureMode;
use landfall_api_types::{ApiError, codes};
use landfall_capture::{Capture, CaptureError, Options, State, Target};
use landfall_repl::{Refusal, SourceIdentity};
use landfall_types::{Incarnation, Lsn, WindowReason};
use pump::{Pump, PumpEnd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How often ranges of failed writes are looked for.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(500);
/// Pause before the capture is tried again after an error.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for the next hop when the source is demoted.
const DEMOTE_MAX: Duration = Duration::from_secs(60);

/// What a run is told.
pub enum Command {
    /// Put a named marker into the log.
    Mark {
        /// Its name.
        name: String,
        /// Where it stands.
        reply: oneshot::Sender<Result<Lsn, ApiError>>,
    },
    /// Demote: everything captured goes into the log and to the next hop, then nothing more.
    Demote {
        /// The last record.
        reply: oneshot::Sender<Result<Tip, ApiError>>,
    },
}

/// Why a run ended by itself.
#[derive(Debug)]
pub enum RunEnd {
    /// By order.
    Demoted(Tip),
    /// The link gave up for good.
    Refused(Refusal),
    /// A disk is gone, or another one has its place (trap T-8): it must not be taken for the
    /// protected one.
    DiskReplaced,
    /// Whoever gives the orders is gone.
    Abandoned,
}

/// What a run works with.
pub struct RunConfig {
    /// The order.
    pub start: AgentStart,
    /// It ran before, in a process that is gone: nothing is known but what the receiver says.
    pub resumed: bool,
    /// How to capture.
    pub capture: Options,
    /// Where to show what happens.
    pub status: Arc<Status>,
    /// How to reach the next hop.
    pub network: Arc<dyn Network>,
}

/// A run that has begun.
pub struct Run {
    config: RunConfig,
    source: Arc<Source>,
    capture: Arc<Capture>,
    uplink: Arc<dyn Uplink>,
    image: Arc<ImageProgress>,
}

impl Run {
    /// Starts the capture, then the session. When this returns, every write is captured.
    ///
    /// # Errors
    /// The capture can't be started, with code and cure.
    pub async fn begin(config: RunConfig) -> Result<Self, ApiError> {
        let identity = SourceIdentity {
            replica: config.start.replica,
            lineage: config.start.lineage.clone(),
            incarnation: Incarnation::NONE,
            instance: config.start.instance,
        };
        let source = Arc::new(Source::new(identity, config.start.disks.clone()));
        let capture = load(&config).await?;
        let begin = match (config.resumed, &config.start.mode) {
            (false, StartMode::Continue { lsn, chain }) => {
                Begin::At(Tip { lsn: *lsn, chain: *chain })
            }
            (true, StartMode::Continue { .. }) | (_, StartMode::FirstCopy) => Begin::AtReceiver,
        };
        source.begin(capture.incarnation(), begin);
        // Only now: a session that came earlier would find nothing to go on with.
        let uplink = config.network.connect(&config.start.next_hop, Arc::clone(&source));
        let image = Arc::new(ImageProgress::default());
        Ok(Self { config, source, capture, uplink, image })
    }

    /// The log, for the report.
    #[must_use]
    pub fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    /// The link, for the report.
    #[must_use]
    pub fn uplink(&self) -> Arc<dyn Uplink> {
        Arc::clone(&self.uplink)
    }

    /// Runs until it ends; nothing is captured or sent any more when this returns.
    pub async fn drive(mut self, mut commands: mpsc::Receiver<Command>) -> RunEnd {
        let end = loop {
            match self.one_load(&mut commands).await {
                LoadEnd::Run(end) => break end,
                LoadEnd::Lost { reason, code } => {
                    tracing::warn!(code, "capture was lost: the disks are compared again");
                    self.config.status.count_loss(code);
                    if let Err(end) = self.reload(&mut commands, Some(reason)).await {
                        break end;
                    }
                }
                LoadEnd::Broken(why) => {
                    tracing::warn!(why, "the receiver's position is of no use: new incarnation");
                    self.config.status.count_loss("position-lost");
                    if let Err(end) = self.reload(&mut commands, None).await {
                        break end;
                    }
                }
            }
        };
        self.source.end();
        self.uplink.stop().await;
        self.config.status.set_capture(None);
        end
    }

    /// A new load takes the log up: behind our own tail with a window for `reason`, or where the
    /// receiver stands.
    async fn reload(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        reason: Option<WindowReason>,
    ) -> Result<(), RunEnd> {
        self.source.end();
        self.config
            .status
            .set_capture(Some((CaptureMode::Compare, "capture is being loaded anew".to_owned())));
        loop {
            let error = match load(&self.config).await {
                Ok(capture) => {
                    self.capture = capture;
                    break;
                }
                Err(error) => error,
            };
            tracing::error!(%error, "capture can't be loaded");
            self.config.status.set_problem(Some(error.clone()));
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                refusal = self.uplink.ended() => return Err(RunEnd::Refused(refusal)),
                command = commands.recv() => match command {
                    None => return Err(RunEnd::Abandoned),
                    Some(command) => command.refuse(&error),
                },
            }
        }
        let begin = match reason {
            Some(reason) if self.source.tail().is_some() => Begin::Behind(self.plan(reason)),
            Some(_) | None => Begin::AtReceiver,
        };
        self.source.begin(self.capture.incarnation(), begin);
        Ok(())
    }

    fn plan(&self, reason: WindowReason) -> Plan {
        match self.image.unfinished() {
            Some(copy) => Plan::finish_copy(&copy, reason),
            None => Plan::compare_all(reason),
        }
    }

    /// One load of the capture, from its start to its end.
    async fn one_load(&self, commands: &mut mpsc::Receiver<Command>) -> LoadEnd {
        self.config
            .status
            .set_capture(Some((CaptureMode::Data, "eBPF, self-test passed".to_owned())));
        let (pump, mut pump_end) = Pump::spawn(
            Arc::clone(&self.capture),
            Arc::clone(&self.source),
            Duration::from_millis(self.config.start.marker_interval_ms.max(1)),
        );
        let end = self.steer(&pump, &mut pump_end, commands).await;
        pump.stop();
        if !pump_end.is_terminated() {
            // The thread puts records into the log: it must be gone before another load begins to.
            let _ended = pump_end.await;
        }
        end
    }

    async fn steer(
        &self,
        pump: &Pump,
        pump_end: &mut oneshot::Receiver<PumpEnd>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> LoadEnd {
        let mut unknown = tokio::time::interval(UNKNOWN_INTERVAL);
        let mut catching_up = tokio::task::JoinSet::new();
        loop {
            if catching_up.is_empty()
                && let Some((plan, window)) = self.source.take_plan()
            {
                catching_up.spawn(self.catch_up().carry_out(plan, window));
            }
            tokio::select! {
                end = &mut *pump_end => return LoadEnd::of(end.unwrap_or(PumpEnd::Stopped)),
                refusal = self.uplink.ended() => return LoadEnd::Run(RunEnd::Refused(refusal)),
                () = self.source.decided() => {
                    if let Some(broken) = self.source.broken() {
                        return LoadEnd::Broken(broken.0);
                    }
                }
                Some(done) = catching_up.join_next(), if !catching_up.is_empty() => match done {
                    Ok(Ok(())) => self.config.status.set_problem(None),
                    // The pump tells why, and what lies before the loss.
                    Ok(Err(CatchUpError::Capture(CaptureError::Lost(_)))) => {}
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the catch-up ended");
                        self.config.status.set_problem(Some(shown(&error)));
                        tokio::time::sleep(RETRY).await;
                        return LoadEnd::gap("catch-up-failed");
                    }
                    Err(error) => tracing::error!(%error, "the catch-up was ended"),
                },
                _ = unknown.tick(), if catching_up.is_empty() => {
                    if let Some((window, ranges)) = self.source.open_for_unknown() {
                        catching_up.spawn(self.catch_up().reread(window, ranges));
                    }
                }
                command = commands.recv() => match command {
                    None => return LoadEnd::Run(RunEnd::Abandoned),
                    Some(Command::Mark { name, reply }) => pump.mark(name, reply),
                    Some(Command::Demote { reply }) if self.source.any_window_open() => {
                        // The last position of a demoted source must be a recovery point.
                        let cause = "a first copy or a catch-up is under way";
                        let _gone = reply.send(Err(ApiError::new(&codes::NO_POINT_YET, cause)));
                    }
                    Some(Command::Demote { reply }) => {
                        return self.demote(pump, pump_end, reply).await;
                    }
                },
            }
        }
    }

    /// Everything captured goes into the log, a last marker behind it, and all of it to the next
    /// hop.
    async fn demote(
        &self,
        pump: &Pump,
        pump_end: &mut oneshot::Receiver<PumpEnd>,
        reply: oneshot::Sender<Result<Tip, ApiError>>,
    ) -> LoadEnd {
        pump.finish();
        let end = pump_end.await.unwrap_or(PumpEnd::Stopped);
        let tip = match (end, self.source.tail()) {
            (PumpEnd::Stopped, Some(tip)) => tip,
            (end, _) => {
                let _gone = reply.send(Err(ApiError::new(
                    &codes::NODE_FAILED,
                    "capture ended before everything was in the log",
                )));
                return LoadEnd::of(end);
            }
        };
        let answer = self.settle_demotion(tip).await;
        let failed = answer.is_err();
        let _gone = reply.send(answer);
        if failed {
            // Not demoted: go on, with a comparison, because nothing was captured in between.
            return LoadEnd::gap("demotion-given-up");
        }
        LoadEnd::Run(RunEnd::Demoted(tip))
    }

    /// All of the log at the next hop, and nothing written behind its last marker (trap T-16).
    async fn settle_demotion(&self, tip: Tip) -> Result<Tip, ApiError> {
        let durable = tokio::time::timeout(DEMOTE_MAX, self.source.durable_to(tip.lsn)).await;
        if durable.is_err() {
            let cause = "the process server has not taken the last records";
            return Err(ApiError::new(&codes::NODE_FAILED, cause)
                .detail("last", tip.lsn)
                .detail("durable", self.source.durable().here));
        }
        if self.capture.state() != State::Data || self.capture.head() != self.capture.drained() {
            let cause = "the machine wrote to its disks behind the last marker";
            return Err(ApiError::new(&codes::WRONG_STATE, cause)
                .cure("shut the machine down, or unmount its disks, before it is failed over"));
        }
        Ok(tip)
    }

    fn catch_up(&self) -> CatchUp {
        CatchUp {
            source: Arc::clone(&self.source),
            capture: Arc::clone(&self.capture),
            uplink: Arc::clone(&self.uplink),
            status: Arc::clone(&self.config.status),
            image: Arc::clone(&self.image),
            disks: self.config.start.disks.clone(),
        }
    }
}

impl Command {
    fn refuse(self, error: &ApiError) {
        let _gone = match self {
            Self::Mark { reply, .. } => reply.send(Err(error.clone())).is_err(),
            Self::Demote { reply } => reply.send(Err(error.clone())).is_err(),
        };
    }
}

/// Why one load ended.
enum LoadEnd {
    Run(RunEnd),
    Lost { reason: WindowReason, code: &'static str },
    Broken(String),
}

impl LoadEnd {
    /// Some writes may not be in the log.
    const fn gap(code: &'static str) -> Self {
        Self::Lost { reason: WindowReason::CaptureGap, code }
    }

    fn of(end: PumpEnd) -> Self {
        match end {
            PumpEnd::Lost(loss) => {
                let reason = match loss.reason {
                    landfall_capture::LostReason::Overflow => WindowReason::RingOverflow,
                    _ => WindowReason::CaptureGap,
                };
                Self::Lost { reason, code: loss.reason.code() }
            }
            PumpEnd::DiskReplaced => Self::Run(RunEnd::DiskReplaced),
            PumpEnd::Stopped => Self::gap("capture-stopped"),
        }
    }
}

/// Loads the capture; the self-test is part of it.
async fn load(config: &RunConfig) -> Result<Arc<Capture>, ApiError> {
    let start = &config.start;
    let targets: Vec<Target> = start
        .disks
        .iter()
        .map(|disk| Target { disk: disk.index, path: disk.path.clone().into() })
        .collect();
    let options = config.capture.clone();
    let capture = tokio::task::spawn_blocking(move || Capture::start(&targets, options))
        .await
        .map_err(|error| ApiError::new(&codes::INTERNAL, error.to_string()))?
        .map_err(|error| refused(&error))?;
    for (disk, (_, found)) in start.disks.iter().zip(capture.disks()) {
        if disk.geometry != found.geometry {
            let cause = format!("{} is not as it was when it was protected", disk.path);
            return Err(ApiError::new(&codes::DISK_MISMATCH, cause)
                .detail("protected", disk.geometry.size_bytes)
                .detail("found", found.geometry.size_bytes));
        }
    }
    Ok(Arc::new(capture))
}

/// An error of the capture as the API shows it.
pub(crate) fn refused(error: &CaptureError) -> ApiError {
    let code = match error {
        CaptureError::Disk { .. } | CaptureError::Inspect { .. } | CaptureError::Targets(_) => {
            &codes::DISK_UNUSABLE
        }
        _ => &codes::CAPTURE_UNAVAILABLE,
    };
    ApiError::new(code, with_causes(error))
}

/// Why a catch-up can't go on, as the API shows it.
fn shown(error: &CatchUpError) -> ApiError {
    ApiError::new(&codes::NODE_FAILED, format!("catch-up: {}", with_causes(error)))
        .cure("mend what the cause names; the agent tries again by itself")
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
