//! Carries out one order to start: capture, catch up, send, until told to stop.
//!
//! ```text
//!        ┌─────────► load the capture, or go on with the one that is pinned ◄─────┐
//!        │                       │                                                │
//!        │                 pump thread: ring ─► log, markers                      │
//!        │                       │                 │ data mode ended              │
//!        │                       │                 ▼                              │
//!        │   a window is opened ◄┴─── window opened there                         │
//!        │     ─► back to data mode ─► dirty ranges ─► read ─► close ─► forget    │
//!        │                                                                        │
//!        └── no way back in this load               position of no use (T-1) ─────┘
//! ```

mod catch_up;
mod limits;
mod load;
mod pump;
mod reader;
mod return_pause;

pub(crate) use load::{detach_pin, refused, with_causes};
pub(crate) use pump::{Asking, Held, Verdict};

use crate::log::Tip;
use crate::settings::Limits;
use crate::settled::SettledFile;
use crate::source::{Begin, Source};
use crate::status::Status;
use crate::uplink::{Network, Uplink};
use catch_up::{CatchUp, CatchUpError, can_return};
use landfall_api_types::order::{AgentStart, StartMode};
use landfall_api_types::{ApiError, codes};
use landfall_capture::{Capture, CaptureError, Loss, Mode, Options};
use landfall_repl::{Refusal, SourceIdentity};
use landfall_types::{ByteRange, DiskIndex, Incarnation, MarkerKind, WindowReason};
use load::{load, shown};
use pump::{Pump, PumpConfig, PumpEnd};
use return_pause::ReturnPause;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How often it is looked what the bitmap may forget.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two passes where bytes can't be captured.
const PASS_INTERVAL: Duration = Duration::from_secs(15);
/// Pause before the capture or a catch-up is tried again after an error.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for the next hop when the source is demoted.
const DEMOTE_MAX: Duration = Duration::from_secs(60);

/// What a run is told.
pub(crate) enum Command {
    /// Put a marker into the log.
    Mark {
        /// What it promises.
        kind: MarkerKind,
        /// Its name.
        name: Option<String>,
        /// How it is waited for.
        held: Held,
        /// Its moment has been taken.
        taken: oneshot::Sender<()>,
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
    /// A disk has another size than the replica (trap T-9).
    DiskResized,
    /// Whoever gives the orders is gone.
    Abandoned,
}

/// What a run works with.
pub struct RunConfig {
    /// The order.
    pub start: AgentStart,
    /// It ran before, in a process that is gone.
    pub resumed: bool,
    /// How to capture.
    pub capture: Options,
    /// Most bytes of records in memory, beside the ring.
    pub queue_bytes_max: usize,
    /// What the target is known to have, beyond the life of this process.
    pub settled: SettledFile,
    /// Where the bitmap is kept over a restart of the machine, if it is.
    pub area: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
    /// Where to show what happens.
    pub status: Arc<Status>,
    /// How to reach the next hop.
    pub network: Arc<dyn Network>,
}

/// A run that has begun.
pub struct Run {
    config: RunConfig,
    source: Arc<Source>,
    /// `None` only while another one is being loaded.
    capture: Option<Arc<Capture>>,
    uplink: Arc<dyn Uplink>,
    pause: ReturnPause,
    /// What this load does not capture.
    excluded: Vec<(DiskIndex, ByteRange)>,
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
        if !config.resumed {
            // What an earlier run left pinned knows of another past.
            load::detach(&config).await?;
            load::forget_past(&config)?;
        }
        let capture = load(&config).await?;
        load::prepare_restart(&config).await;
        let past = load::past(&config);
        let disks = config.start.disks.clone();
        let source = Arc::new(Source::new(identity, disks, config.queue_bytes_max, past));
        let begin = match (config.resumed, &config.start.mode) {
            (false, StartMode::Continue { lsn, chain }) => {
                capture.disks().iter().for_each(|(disk, _)| capture.set_baseline(*disk));
                Begin::At(Tip { lsn: *lsn, chain: *chain })
            }
            (true, StartMode::Continue { .. }) | (_, StartMode::FirstCopy) => Begin::AtReceiver,
        };
        source.begin(Arc::clone(&capture), begin);
        // Only now: a session that came earlier would find nothing to go on with.
        let uplink = config.network.connect(&config.start.next_hop, Arc::clone(&source));
        let excluded = load::excluded(&config);
        let (capture, pause) = (Some(capture), ReturnPause::default());
        Ok(Self { config, source, capture, uplink, pause, excluded })
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

    /// Runs until it ends; nothing is sent any more when this returns. Where the run is over, and
    /// not only its process, nothing is captured or marked any more either.
    pub(crate) async fn drive(mut self, mut commands: mpsc::Receiver<Command>) -> RunEnd {
        let end = loop {
            let (why, code, reason) = match self.one_load(&mut commands).await {
                LoadEnd::Run(end) => break end,
                LoadEnd::Gap { code } => (code.to_owned(), code, Some(WindowReason::CaptureGap)),
                LoadEnd::Broken(why) => (why, "position-lost", None),
            };
            tracing::warn!(why, code, "a new load: the disks are compared again");
            self.config.status.count_loss(code);
            if let Err(end) = self.reload(&mut commands, reason).await {
                break end;
            }
        };
        self.source.end();
        self.uplink.stop().await;
        self.config.status.end_capture();
        let Self { config, capture, .. } = self;
        drop(capture);
        if !matches!(end, RunEnd::Abandoned)
            && let Err(error) = load::detach(&config).await
        {
            tracing::error!(%error, "what was pinned could not be removed");
        }
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
        self.capture = None;
        self.config.status.loading();
        let capture = loop {
            // What is pinned is of no use: the new load must not go on with it.
            let loaded = match load::detach(&self.config).await {
                Ok(()) => load(&self.config).await,
                Err(error) => Err(error),
            };
            let error = match loaded {
                Ok(capture) => break capture,
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
        };
        let begin = match reason {
            Some(reason) if self.source.tail().is_some() => {
                Begin::Behind(self.source.plan_everything(reason))
            }
            Some(_) | None => Begin::AtReceiver,
        };
        self.source.begin(Arc::clone(&capture), begin);
        self.capture = Some(capture);
        self.excluded = load::excluded(&self.config);
        Ok(())
    }

    /// One load of the capture, from its start to its end.
    async fn one_load(&mut self, commands: &mut mpsc::Receiver<Command>) -> LoadEnd {
        self.config.status.show_modes(self.capture());
        let (losses, mut lost) = mpsc::unbounded_channel();
        let (pump, mut pump_end) = Pump::spawn(PumpConfig {
            capture: Arc::clone(self.capture()),
            source: Arc::clone(&self.source),
            marker_interval: Duration::from_millis(self.config.start.marker_interval_ms.max(1)),
            losses,
            pinned: self.config.capture.pin.is_some(),
            ring_bytes: self.config.capture.ring_bytes,
            limits: self.config.limits,
        });
        let end = self.steer(&pump, &mut pump_end, &mut lost, commands).await;
        pump.stop();
        if !pump_end.is_terminated() {
            // The thread puts records into the log: it must be gone before another load begins to.
            let _ended = pump_end.await;
        }
        end
    }

    async fn steer(
        &mut self,
        pump: &Pump,
        pump_end: &mut oneshot::Receiver<PumpEnd>,
        losses: &mut mpsc::UnboundedReceiver<Loss>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> LoadEnd {
        let mut settle = tokio::time::interval(SETTLE_INTERVAL);
        let mut pass = tokio::time::interval(PASS_INTERVAL);
        let mut work: JoinSet<Result<(), CatchUpError>> = JoinSet::new();
        loop {
            while let Ok(loss) = losses.try_recv() {
                if let Some(end) = self.lost(&loss) {
                    return end;
                }
            }
            if let Some((plan, window)) = self.source.take_plan() {
                // Its window has taken over what the former one had not done.
                work.shutdown().await;
                work.spawn(self.catch_up().carry_out(plan, window));
            }
            tokio::select! {
                end = &mut *pump_end => return LoadEnd::of(end.unwrap_or(PumpEnd::Stopped)),
                refusal = self.uplink.ended() => return LoadEnd::Run(RunEnd::Refused(refusal)),
                () = self.source.decided() => {
                    if let Some(end) = self.broken(&mut work).await {
                        return end;
                    }
                }
                Some(loss) = losses.recv() => if let Some(end) = self.lost(&loss) {
                    return end;
                },
                Some(done) = work.join_next(), if !work.is_empty() => {
                    if let Some(end) = self.done(done).await {
                        return end;
                    }
                }
                _ = settle.tick() => {
                    self.settle();
                    if !self.excluded.iter().all(|one| load::excluded(&self.config).contains(one)) {
                        // What is no swap any more may hold anything, and was not marked.
                        return LoadEnd::Gap { code: "swap-ended" };
                    }
                }
                _ = pass.tick(), if work.is_empty() && self.without_data() => {
                    self.source.open_again(WindowReason::SelfTestFailed);
                }
                command = commands.recv() => match command {
                    None => return LoadEnd::Run(RunEnd::Abandoned),
                    Some(Command::Mark { kind, name, held, taken }) => {
                        pump.mark(kind, name, held);
                        let _gone = taken.send(());
                    }
                    Some(Command::Demote { reply }) if !self.source.legal() => {
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

    /// The log can't be continued where the receiver stands: it begins anew there, or the load
    /// ends.
    async fn broken(&self, work: &mut JoinSet<Result<(), CatchUpError>>) -> Option<LoadEnd> {
        let broken = self.source.broken()?;
        if !broken.bits_suffice {
            return Some(LoadEnd::Broken(broken.why));
        }
        tracing::warn!(why = broken.why, "what is dirty is sent again");
        // Gone first: what it has read may be older than what follows.
        work.shutdown().await;
        self.source.begin_behind_receiver();
        None
    }

    /// Data mode ended on a disk: an event with a reason code, counted and shown (design section
    /// 4).
    /// Gives the end of the load where there is no way back in it.
    fn lost(&mut self, loss: &Loss) -> Option<LoadEnd> {
        let code = loss.reason.code();
        tracing::warn!(code, disk = ?loss.disk, "data mode ended: bitmap mode");
        self.config.status.count_loss(code);
        self.config.status.show_modes(self.capture());
        self.pause.lost(Instant::now());
        // Of no disk: the ring itself can't be read any further.
        loss.disk.is_none().then_some(LoadEnd::Gap { code: "loaded-anew" })
    }

    /// A catch-up has ended; gives why the load ends with it, if so.
    async fn done(
        &self,
        done: Result<Result<(), CatchUpError>, tokio::task::JoinError>,
    ) -> Option<LoadEnd> {
        match done {
            Ok(Ok(())) => self.config.status.set_problem(None),
            // Data mode ended again: the pump tells where, and opens a window there.
            Ok(Err(CatchUpError::Capture(CaptureError::Lost(reason)))) => {
                tracing::info!(code = reason.code(), "the catch-up begins anew");
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the catch-up ended");
                self.config.status.set_problem(Some(shown(&error)));
                tokio::time::sleep(RETRY).await;
                // What it has not done is done by another one, in a window of its own.
                self.source.open_again(WindowReason::CaptureGap);
            }
            Err(error) if error.is_cancelled() => {}
            Err(_) => return Some(LoadEnd::Gap { code: "catch-up-failed" }),
        }
        None
    }

    /// Lets the bitmap forget what the target has. What the target is known to have is kept first:
    /// a process that comes later must notice a target that has less (trap T-1).
    fn settle(&self) {
        let Some(settled) = self.source.take_settled() else { return };
        let start = &self.config.start;
        match self.config.settled.write(start.replica, start.lineage.epoch(), settled.lsn) {
            Ok(()) => {
                self.source.bits_dropped(settled.lsn);
                self.capture().durable(settled.ring);
            }
            Err(error) => tracing::warn!(%error, "dirty bits are kept"),
        }
    }

    /// True when bytes can't be captured on some disk, whatever is done.
    fn without_data(&self) -> bool {
        let hopeless = |mode| matches!(mode, Mode::Bitmap(reason) if !can_return(reason));
        let disks = self.config.start.disks.iter();
        disks.map(|disk| self.capture().mode(disk.index)).any(hopeless)
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
            (PumpEnd::Stopped, Some(tip)) if self.source.legal() => tip,
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
            return LoadEnd::Gap { code: "demotion-given-up" };
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
        if self.source.any_unknown() {
            // The disk holds there what no record says: a copy at the last position would differ.
            let cause = "a write to a protected disk has failed, and is not read again yet";
            return Err(ApiError::new(&codes::NO_POINT_YET, cause));
        }
        let data = |disk| self.capture().mode(disk) == Mode::Data;
        let all_data = self.config.start.disks.iter().all(|disk| data(disk.index));
        if !all_data || self.capture().head() != self.capture().drained() {
            let cause = "the machine wrote to its disks behind the last marker";
            return Err(ApiError::new(&codes::WRONG_STATE, cause)
                .cure("shut the machine down, or unmount its disks, before it is failed over"));
        }
        Ok(tip)
    }

    fn capture(&self) -> &Arc<Capture> {
        self.capture.as_ref().expect("there is one but for the time of a reload")
    }

    fn catch_up(&self) -> CatchUp {
        CatchUp {
            source: Arc::clone(&self.source),
            capture: Arc::clone(self.capture()),
            uplink: Arc::clone(&self.uplink),
            status: Arc::clone(&self.config.status),
            disks: self.config.start.disks.clone(),
            return_after: self.pause.get(),
        }
    }
}

impl Command {
    fn refuse(self, error: &ApiError) {
        let _gone = match self {
            Self::Mark { held, .. } => {
                held.reply.is_some_and(|reply| reply.send(Err(error.clone())).is_err())
            }
            Self::Demote { reply } => reply.send(Err(error.clone())).is_err(),
        };
    }
}

/// Why one load ended.
enum LoadEnd {
    Run(RunEnd),
    /// Some writes may not be in the log, and the bitmap does not say which.
    Gap {
        code: &'static str,
    },
    Broken(String),
}

impl LoadEnd {
    const fn of(end: PumpEnd) -> Self {
        match end {
            PumpEnd::DiskReplaced => Self::Run(RunEnd::DiskReplaced),
            PumpEnd::DiskResized => Self::Run(RunEnd::DiskResized),
            PumpEnd::Stopped => Self::Gap { code: "capture-stopped" },
        }
    }
}
