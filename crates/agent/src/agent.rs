//! Carries out orders, and keeps durably what came of them.

use crate::barrier::Barrier;
use crate::log::Tip;
use crate::point::Marking;
use crate::run::{Command, Run, RunConfig, RunEnd, detach_pin, refused};
use crate::settings::Settings;
use crate::source::Source;
use crate::state::{AgentState, Phase, StateError};
use crate::status::Status;
use crate::uplink::{Network, Uplink};
use landfall_api_client::OrderHandler;
use landfall_api_types::node::AgentReport;
use landfall_api_types::order::{
    AgentStart, BarrierAsk, InspectedDisk, Order, OrderOutcome, ReplicaPosition,
};
use landfall_api_types::request::Consistency;
use landfall_api_types::{ApiError, codes};
use landfall_capture::Disk;
use landfall_repl::Refusal;
use landfall_types::control::MARKER_NAME_BYTES_MAX;
use landfall_types::{Class, Epoch, GroupPointId, InstanceId, Lsn, MachineId, OrderId};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Orders that wait for a run at most.
const COMMANDS_MAX: usize = 16;

/// What reports look at.
type Shown = (Arc<Source>, Arc<dyn Uplink>);

struct Running {
    commands: mpsc::Sender<Command>,
    /// Ends when the run has ended and the state says so durably.
    task: JoinHandle<()>,
}

/// The agent of one machine.
pub struct Agent {
    dir: PathBuf,
    instance: InstanceId,
    settings: Settings,
    network: Arc<dyn Network>,
    status: Arc<Status>,
    state: Arc<Mutex<AgentState>>,
    /// Locked over a whole start or stop, so that orders that come at once do not mix.
    running: tokio::sync::Mutex<Option<Running>>,
    /// For reports, which must not wait for a start.
    shown: Mutex<Option<Shown>>,
    barrier: Barrier,
}

impl Agent {
    /// With the state of `dir`. A state that another instance wrote is left alone: this is a clone
    /// or a recovered machine, without authority (trap T-11).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(
        dir: &Path,
        instance: InstanceId,
        settings: Settings,
        network: Arc<dyn Network>,
    ) -> Result<Self, StateError> {
        let state = match AgentState::load(dir)? {
            Some(state) if state.instance == instance => state,
            Some(state) => {
                tracing::warn!(ours = %instance, theirs = %state.instance,
                    "the state was written by another instance: inert until told otherwise");
                AgentState::new(instance)
            }
            None => AgentState::new(instance),
        };
        Ok(Self {
            dir: dir.to_owned(),
            instance,
            settings,
            network,
            status: Arc::default(),
            state: Arc::new(Mutex::new(state)),
            running: tokio::sync::Mutex::new(None),
            shown: Mutex::new(None),
            barrier: Barrier::default(),
        })
    }

    /// Goes on with what was running when the process ended; without the configuration server.
    ///
    /// # Errors
    /// The capture can't be started.
    pub async fn resume(&self) -> Result<(), ApiError> {
        let Phase::Running { start } = self.state().phase.clone() else {
            // A process that was killed while a run ended has left its capture behind.
            return self.detach().await;
        };
        let mut running = self.running.lock().await;
        if running.is_none() {
            *running = Some(self.launch(*start, true).await?);
        }
        Ok(())
    }

    /// Removes what is pinned.
    async fn detach(&self) -> Result<(), ApiError> {
        match self.settings.capture.pin.clone() {
            Some(pin) => detach_pin(pin).await,
            None => Ok(()),
        }
    }

    /// Ends the run, without a word to anybody: the state still says that it is to go on.
    pub async fn shut_down(&self) {
        if let Some(run) = self.running.lock().await.take() {
            stop(run).await;
        }
    }

    /// What the report says.
    #[must_use]
    pub fn report(&self) -> (AgentReport, Vec<ApiError>) {
        let state = self.state();
        let fenced = matches!(state.phase, Phase::Fenced { .. });
        let machine = state.start().map(|start| start.machine);
        let epoch = state.start().map(|start| start.lineage.epoch());
        drop(state);
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let durable = shown.as_ref().map(|(source, _)| source.durable()).unwrap_or_default();
        let captured = shown.as_ref().and_then(|(source, _)| source.tail()).map(|tip| tip.lsn);
        let link = shown.as_ref().map(|(_, uplink)| uplink.link());
        let queued = shown.as_ref().map_or(0, |(source, _)| source.queued_bytes());
        let report = AgentReport {
            machine,
            instance: self.instance,
            epoch,
            fenced,
            capture: self.status.capture(),
            captured: captured.unwrap_or_default(),
            sent: shown.as_ref().map_or(Lsn::ZERO, |(_, uplink)| uplink.sent()),
            durable_here: durable.here,
            durable_at_target: durable.at_target,
            catch_up: self.status.catch_up.report(durable.at_target),
            queued_bytes: queued as u64,
            losses: self.status.losses(),
            disks: self.status.disks(),
            returns: self.status.returns(),
            now: Some(landfall_types::UnixNanos(crate::clock::unix_ns())),
            timeline: shown.as_ref().map_or_else(Vec::new, |(source, _)| source.timeline()),
            connected: link.map(|link| link.0),
            rtt_ms: link.and_then(|link| link.1),
        };
        let mut problems: Vec<ApiError> = self.status.problem().into_iter().collect();
        if let Some((_, uplink)) = shown {
            problems.extend(uplink.refusal().as_ref().map(shown_refusal));
            problems.extend(uplink.connect_error().map(|cause| {
                ApiError::new(&codes::NODE_SILENT, format!("the process server: {cause}"))
            }));
        }
        (report, problems)
    }

    async fn start(&self, start: AgentStart) -> Result<OrderOutcome, ApiError> {
        if start.instance != self.instance {
            let cause = format!("the order is for instance {}", start.instance);
            return Err(ApiError::new(&codes::OTHER_INSTANCE, cause)
                .detail("this", self.instance)
                .detail("ordered", start.instance));
        }
        let started = OrderOutcome::Started { instance: self.instance };
        let mut running = self.running.lock().await;
        if let Phase::Running { start: now } = &self.state().phase
            && running.as_ref().is_some_and(|run| !run.task.is_finished())
            && same(now, &start)
        {
            return Ok(started);
        }
        let epoch = start.lineage.epoch();
        if !self.state().allows(epoch) {
            let cause = format!("epoch {epoch} is over by what is known here");
            return Err(ApiError::new(&codes::FENCED, cause));
        }
        // The former run first: two captures of one disk would be two logs of one machine.
        if let Some(run) = running.take() {
            stop(run).await;
        }
        let resumed =
            matches!(&self.state().phase, Phase::Running { start: now } if same(now, &start));
        // Durable only when the capture is active: a crash in between repeats the order. The
        // machine starts writing only after the answer, so that nothing is missed.
        *running = Some(self.launch(start.clone(), resumed).await?);
        self.save(|state| state.phase = Phase::Running { start: Box::new(start) })?;
        Ok(started)
    }

    async fn launch(&self, start: AgentStart, resumed: bool) -> Result<Running, ApiError> {
        crate::serials::check(&self.dir, &start)?;
        let run = Run::begin(RunConfig {
            start,
            resumed,
            capture: self.settings.capture.clone(),
            queue_bytes_max: self.settings.queue_bytes_max,
            settled: self.settings.settled.clone(),
            area: self.settings.area.clone(),
            limits: self.settings.limits,
            status: Arc::clone(&self.status),
            network: Arc::clone(&self.network),
        })
        .await?;
        let shown = (run.source(), run.uplink());
        let (commands, orders) = mpsc::channel(COMMANDS_MAX);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        let (state, dir) = (Arc::clone(&self.state), self.dir.clone());
        let status = Arc::clone(&self.status);
        let task = tokio::spawn(async move {
            let end = run.drive(orders).await;
            if let Some(problem) = problem_of(&end) {
                status.set_problem(Some(problem));
            }
            if let Err(error) = record(&state, &dir, end) {
                tracing::error!(%error, "the end of the run could not be made durable");
            }
        });
        Ok(Running { commands, task })
    }

    /// Demotes the source of this direction.
    async fn stop(&self, machine: MachineId) -> Result<OrderOutcome, ApiError> {
        let mut running = self.running.lock().await;
        if let Some(run) = running.as_ref() {
            let (reply, answer) = oneshot::channel();
            let ended = || ApiError::new(&codes::NODE_FAILED, "the run has ended meanwhile");
            run.commands.send(Command::Demote { reply }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())??;
            if let Some(run) = running.take() {
                // After this the state says "demoted" durably.
                let _panicked = run.task.await;
            }
        }
        let state = self.state().clone();
        match &state.phase {
            Phase::Demoted { start, lsn, chain } if start.machine == machine => {
                Ok(OrderOutcome::Position(ReplicaPosition {
                    durable: *lsn,
                    chain: *chain,
                    newest_legal: Some(*lsn),
                    lineage: start.lineage.clone(),
                }))
            }
            Phase::Idle | Phase::Running { .. } | Phase::Demoted { .. } | Phase::Fenced { .. } => {
                let cause = format!("machine {machine} is not protected by this agent");
                Err(ApiError::new(&codes::WRONG_STATE, cause))
            }
        }
    }

    async fn fence(&self, epoch: Epoch) -> Result<OrderOutcome, ApiError> {
        let held = self.state().start().map(|start| start.lineage.epoch().number);
        if held.is_some_and(|held| epoch.number < held) {
            // An order that was late, or of a restored controller: the epoch that holds here is
            // newer than the one that it speaks of (trap T-17).
            tracing::warn!(%epoch, ?held, "an order to fence speaks of an epoch that is over");
            return Ok(OrderOutcome::Done);
        }
        // Durable before the run ends: a crash in between must not let it start again.
        self.save(|state| {
            state.fence();
            state.fenced_below = state.fenced_below.max(epoch.number);
        })?;
        if let Some(run) = self.running.lock().await.take() {
            stop(run).await;
        }
        self.detach().await?;
        Ok(OrderOutcome::Done)
    }

    async fn mark(&self, name: String, consistency: Consistency) -> Result<OrderOutcome, ApiError> {
        check_name(&name)?;
        self.marking().await?.make(name, consistency).await?;
        Ok(OrderOutcome::Done)
    }

    async fn barrier(
        &self,
        group: GroupPointId,
        ask: BarrierAsk,
    ) -> Result<OrderOutcome, ApiError> {
        let marking = match &ask {
            BarrierAsk::Freeze { name, .. } => {
                check_name(name)?;
                Some(self.marking().await?)
            }
            BarrierAsk::Confirm | BarrierAsk::Keep | BarrierAsk::Void => None,
        };
        self.barrier.asked(group, ask, marking).await?;
        Ok(OrderOutcome::Done)
    }

    /// Where a point can be made now.
    async fn marking(&self) -> Result<Marking, ApiError> {
        let not_running = || ApiError::new(&codes::WRONG_STATE, "nothing is protected here now");
        let commands = self.running.lock().await.as_ref().map(|run| run.commands.clone());
        let commands = commands.ok_or_else(not_running)?;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (source, _) = shown.ok_or_else(not_running)?;
        if !source.legal() {
            // Told before anything is frozen for nothing.
            let cause = "a first copy or a catch-up is under way";
            return Err(ApiError::new(&codes::NO_POINT_YET, cause));
        }
        let disks = source.captured_disks();
        Ok(Marking { commands, disks, settings: self.settings.points.clone() })
    }

    fn save(&self, change: impl FnOnce(&mut AgentState)) -> Result<(), ApiError> {
        save(&self.state, &self.dir, change).map_err(|error| {
            ApiError::new(&codes::INTERNAL, format!("the agent's state: {error}"))
                .cure("make room on, or mend, the file system of the state directory")
        })
    }

    fn state(&self) -> MutexGuard<'_, AgentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OrderHandler for Agent {
    async fn carry_out(&self, _id: OrderId, order: Order) -> Result<OrderOutcome, ApiError> {
        match order {
            Order::AgentInspect { disks } => inspect(disks).await,
            Order::AgentStart(start) => self.start(start).await,
            Order::AgentStop { machine } => self.stop(machine).await,
            Order::AgentFence { epoch } => self.fence(epoch).await,
            Order::AgentMark { name, consistency } => self.mark(name, consistency).await,
            Order::AgentBarrier { group, ask } => self.barrier(group, ask).await,
            _ => Err(ApiError::new(&codes::NOT_SUPPORTED, "this order is not for an agent")),
        }
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if (1..=MARKER_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let cause = format!("a marker's name has 1 to {MARKER_NAME_BYTES_MAX} bytes");
    Err(ApiError::new(&codes::BAD_REQUEST, cause))
}

async fn inspect(paths: Vec<String>) -> Result<OrderOutcome, ApiError> {
    let look = move || {
        paths
            .into_iter()
            .map(|path| {
                let disk = Disk::inspect(Path::new(&path));
                InspectedDisk { disk: disk.map(|d| d.geometry).map_err(|e| refused(&e)), path }
            })
            .collect()
    };
    let disks = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| ApiError::new(&codes::INTERNAL, error.to_string()))?;
    Ok(OrderOutcome::Inspected { disks })
}

/// True when both orders ask for the same run.
fn same(now: &AgentStart, asked: &AgentStart) -> bool {
    (now.machine, now.replica, &now.lineage, &now.next_hop, &now.disks)
        == (asked.machine, asked.replica, &asked.lineage, &asked.next_hop, &asked.disks)
}

/// Ends a run that is not demoted.
async fn stop(run: Running) {
    let Running { commands, task } = run;
    drop(commands);
    let _panicked = task.await;
}

/// What is shown when a run ended by itself because of its disks.
fn problem_of(end: &RunEnd) -> Option<ApiError> {
    match end {
        RunEnd::DiskReplaced => {
            let cause = "a protected disk is gone, or another one has its place";
            Some(
                ApiError::new(&codes::DISK_UNUSABLE, cause)
                    .cure("if it is the same disk, restart the agent: everything is compared then"),
            )
        }
        RunEnd::DiskResized => {
            let cause = "a protected disk has another size than its replica";
            Some(ApiError::new(&codes::DISK_MISMATCH, cause).cure(
                "the points so far stay usable; disable protection and protect the machine again",
            ))
        }
        RunEnd::Demoted(_) | RunEnd::Refused(_) | RunEnd::Abandoned => None,
    }
}

/// Makes durable why a run ended.
fn record(state: &Mutex<AgentState>, dir: &Path, end: RunEnd) -> Result<(), StateError> {
    match end {
        RunEnd::Abandoned | RunEnd::DiskReplaced | RunEnd::DiskResized => Ok(()),
        RunEnd::Demoted(Tip { lsn, chain }) => save(state, dir, |state| {
            if let Phase::Running { start } = &state.phase {
                state.phase = Phase::Demoted { start: start.clone(), lsn, chain };
            }
        }),
        RunEnd::Refused(refusal) => {
            tracing::error!(%refusal, "the next hop has ended this agent's run");
            match (&refusal, refusal.class()) {
                // A newer session of this very instance: nothing is over.
                (Refusal::Superseded, _) => Ok(()),
                (_, Class::Fenced) => save(state, dir, AgentState::fence),
                (_, _) => Ok(()),
            }
        }
    }
}

fn save(
    state: &Mutex<AgentState>,
    dir: &Path,
    change: impl FnOnce(&mut AgentState),
) -> Result<(), StateError> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut changed = state.clone();
    change(&mut changed);
    changed.save(dir)?;
    *state = changed;
    Ok(())
}

fn shown_refusal(refusal: &Refusal) -> ApiError {
    let code = match refusal {
        Refusal::Fenced { .. } => &codes::FENCED,
        Refusal::OtherInstance(_) => &codes::OTHER_INSTANCE,
        _ => &codes::NODE_FAILED,
    };
    ApiError::new(code, format!("the process server refuses the log: {refusal}"))
        .detail("refusal", refusal.code())
}
