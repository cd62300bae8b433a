use crate::target::Target;
use landfall_agent::{Agent, Settings};
use landfall_api_client::OrderHandler;
use landfall_api_types::order::{AgentStart, Order, OrderOutcome, StartMode};
use landfall_api_types::request::Consistency;
use landfall_api_types::resource::Disk;
use landfall_capture::loopdev::{LoopDevice, LoopOptions};
use landfall_capture::{AlignedBuffer, Options};
use landfall_repl::Refusal;
use landfall_testkit::{Rng, require, seed};
use landfall_types::{
    Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, InstanceId, Lineage, Lsn, MachineId,
    MarkerKind, OrderId, Record, ReplicaId, WindowReason,
};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const DISK_BYTES: u64 = 12 << 20;
const MIB: u64 = 1 << 20;

fn epoch(number: u64) -> Epoch {
    let parent = (number > 1).then(|| EpochId::new(number - 1));
    Epoch { number, id: EpochId::new(number), parent }
}

/// Two disks with random content, a target, and what an agent needs.
pub(crate) struct Machine {
    disks: Vec<LoopDevice>,
    pub(crate) target: Target,
    pub(crate) state: TempDir,
    pub(crate) instance: InstanceId,
    pub(crate) options: Options,
}

impl Machine {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let disk = |_| LoopDevice::scratch(DISK_BYTES, LoopOptions::default()).unwrap();
        let disks: Vec<LoopDevice> = (0..2).map(disk).collect();
        for disk in &disks {
            let mut content = AlignedBuffer::zeroed(8 << 20).unwrap();
            rng.fill(&mut content);
            direct(disk.path()).write_all_at(&content, 2 * MIB).unwrap();
        }
        let target = Target::new(Lineage::root(epoch(1)), &[DISK_BYTES, DISK_BYTES]);
        let state = tempfile::tempdir().unwrap();
        let options = Options { ring_bytes: 96 << 20, ..Options::default() };
        Self { disks, target, state, instance: InstanceId::from_bytes([9; 16]), options }
    }

    pub(crate) fn disk_path(&self, index: usize) -> std::path::PathBuf {
        self.disks[index].path().to_owned()
    }

    pub(crate) fn settings(&self) -> Settings {
        let dir = self.state.path();
        let test = std::env::current_exe().unwrap();
        let mut settings = Settings::of_installation(&test, dir, &dir.join("run/instance"));
        settings.end_with_process();
        settings.capture = self.options.clone();
        settings.points.guard = crate::freezing::guard_command(dir);
        settings.points.hooks_dir = dir.join("hooks.d");
        settings
    }

    pub(crate) fn agent(&self) -> Agent {
        let network = Arc::new(self.target.clone());
        Agent::open(self.state.path(), self.instance, self.settings(), network).unwrap()
    }

    pub(crate) fn start(&self) -> AgentStart {
        let disk = |(disk, index): (&LoopDevice, u16)| Disk {
            index: DiskIndex(index),
            id: DiskId::from_bytes([index as u8; 16]),
            path: disk.path().to_str().unwrap().to_owned(),
            geometry: DiskGeometry { size_bytes: DISK_BYTES, sector_bytes: 512 },
        };
        AgentStart {
            machine: MachineId::from_bytes([1; 16]),
            replica: ReplicaId::from_bytes([2; 16]),
            instance: self.instance,
            disks: self.disks.iter().zip(0..).map(disk).collect(),
            next_hop: "in memory".to_owned(),
            lineage: Lineage::root(epoch(1)),
            mode: StartMode::FirstCopy,
            marker_interval_ms: 20,
        }
    }

    /// A marker behind `after`: no window is open there.
    pub(crate) async fn until_point(&self, after: Lsn) -> Lsn {
        let point =
            |lsn: Lsn, control: &Control| lsn > after && matches!(control, Control::Marker(_));
        self.target
            .until("a recovery point", |position, records| {
                position.open_windows.is_empty()
                    && records.iter().rev().take(4).any(|record| {
                        Control::decode(&record.payload)
                            .is_ok_and(|control| point(record.header.lsn, &control))
                    })
            })
            .await;
        self.target.durable()
    }

    /// At least so many windows were closed, and none is open.
    pub(crate) async fn until_closed(&self, windows: usize) {
        let closing = |record: &Record| {
            matches!(Control::decode(&record.payload), Ok(Control::WindowClose(_)))
        };
        self.target
            .until("the end of the catch-up", |position, records| {
                position.open_windows.is_empty()
                    && records.iter().filter(|record| closing(record)).count() >= windows
            })
            .await;
    }

    pub(crate) async fn demote(&self, agent: &Agent) -> Lsn {
        let order = Order::AgentStop { machine: self.start().machine };
        match carry_out(agent, order).await {
            Ok(OrderOutcome::Position(position)) => position.durable,
            other => panic!("{other:?}"),
        }
    }

    /// Blocks that nobody captures, because no agent runs.
    pub(crate) fn write_unseen(&self, rng: &mut Rng, blocks: u64) {
        let mut block = AlignedBuffer::zeroed(4096).unwrap();
        for n in 0..blocks {
            rng.fill(&mut block);
            let disk = &self.disks[usize::from(n % 2 == 1)];
            direct(disk.path()).write_all_at(&block, n * 512 * 1024).unwrap();
        }
    }

    pub(crate) fn assert_equal(&self) {
        for (index, disk) in self.disks.iter().enumerate() {
            let mut found = AlignedBuffer::zeroed(DISK_BYTES as usize).unwrap();
            direct(disk.path()).read_exact_at(&mut found, 0).unwrap();
            let newest = self.target.newest(index);
            let differs = found.iter().zip(&newest).position(|(a, b)| a != b);
            assert_eq!(differs, None, "disk {index} differs from the target");
        }
    }

    pub(crate) fn windows(&self) -> Vec<WindowReason> {
        let controls = self.target.controls().into_iter();
        controls
            .filter_map(|(_, control)| match control {
                Control::WindowOpen(open) => Some(open.reason),
                _ => None,
            })
            .collect()
    }

    /// Why windows were opened, without those over single writes whose end the hook was not shown.
    /// Kernel 6.18 does that rarely, mostly while programs come and go at the same hook; whether
    /// the write failed is then not known, and it is read again.
    pub(crate) fn reasons(&self) -> Vec<WindowReason> {
        self.windows().into_iter().filter(|one| *one != WindowReason::CaptureGap).collect()
    }
}

pub(crate) fn mark(name: &str) -> Order {
    Order::AgentMark { name: name.to_owned(), consistency: Consistency::Crash }
}

pub(crate) async fn carry_out(
    agent: &Agent,
    order: Order,
) -> Result<OrderOutcome, landfall_api_types::ApiError> {
    agent.carry_out(OrderId::generate(), order).await
}

fn direct(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).unwrap()
}

/// Writes all over the disks until told to stop.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    /// How many writes are still to be made.
    allowed: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Workload {
    pub(crate) fn start(machine: &Machine, seed: u64) -> Self {
        Self::within(machine, seed, DISK_BYTES)
    }

    /// In the first `span` bytes of each disk.
    pub(crate) fn within(machine: &Machine, seed: u64, span: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let files: Vec<File> = machine.disks.iter().map(|disk| direct(disk.path())).collect();
        let allowed = Arc::new(AtomicU64::new(u64::MAX));
        let (stopped, left) = (Arc::clone(&stop), Arc::clone(&allowed));
        let thread = std::thread::spawn(move || {
            let mut rng = Rng::new(seed);
            let mut buffer = AlignedBuffer::zeroed(64 << 10).unwrap();
            while !stopped.load(Ordering::SeqCst) {
                let one_less = |left: u64| left.checked_sub(1);
                if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
                    std::thread::park_timeout(Duration::from_millis(1));
                    continue;
                }
                let bytes = 512 * (1 + rng.below(8)) as usize;
                rng.fill(&mut buffer[..64]);
                let at = rng.below((span - bytes as u64) / 512) * 512;
                let disk = rng.below(2) as usize;
                files[disk].write_all_at(&buffer[..bytes], at).unwrap();
            }
        });
        Self { stop, allowed, thread }
    }

    /// Rests after so many more writes.
    pub(crate) fn allow(&self, writes: u64) {
        self.allowed.store(writes, Ordering::SeqCst);
    }

    /// Returns when it has made all the writes that it may.
    pub(crate) async fn rests(&self) {
        let mut interval = tokio::time::interval(Duration::from_millis(1));
        while self.allowed.load(Ordering::SeqCst) > 0 {
            interval.tick().await;
        }
    }

    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// First copy while the machine writes, markers, a named one, demotion: nothing is missing at the
/// target.
#[tokio::test(flavor = "multi_thread")]
async fn first_copy_under_load_then_demotion() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let seed = seed("first copy");
    let machine = Machine::new(&mut Rng::new(seed));
    let agent = machine.agent();
    let load = Workload::start(&machine, seed);
    let early = carry_out(&agent, mark("early")).await;
    assert_eq!(early.unwrap_err().code, "wrong-state");
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    let again = carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    assert_eq!(again, OrderOutcome::Started { instance: machine.instance }, "found done");
    machine.until_point(Lsn::ZERO).await;
    carry_out(&agent, mark("a name")).await.unwrap();
    let (report, problems) = agent.report();
    assert!(problems.is_empty(), "{problems:?}");
    assert!(report.capture.is_some() && report.losses.is_empty(), "{report:?}");
    load.end();
    let last = machine.demote(&agent).await;
    assert_eq!(last, machine.target.durable(), "demoted: everything is at the next hop");
    machine.assert_equal();
    assert_eq!(machine.reasons(), [WindowReason::FirstCopy]);
    let catch_up = agent.report().0.catch_up.unwrap();
    assert!(catch_up.finished && catch_up.progress.done_bytes == 2 * DISK_BYTES, "{catch_up:?}");
    let named = machine.target.controls().into_iter().any(|(_, control)| {
        matches!(control, Control::Marker(marker)
            if marker.kind == MarkerKind::User && marker.name.as_deref() == Some("a name"))
    });
    assert!(named);
    let answer = machine.demote(&agent).await;
    assert_eq!(answer, last, "the second time it finds its work done");
}

/// The agent dies, the machine goes on writing, the agent comes back: compared, and only what
/// differs is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_incarnation_compares_everything_and_sends_little() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let seed = seed("new incarnation");
    let mut rng = Rng::new(seed);
    let machine = Machine::new(&mut rng);
    let agent = machine.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    let before = machine.until_point(Lsn::ZERO).await;
    assert_eq!(machine.target.image_bytes(), 2 * (8 << 20), "zeroes are not sent");
    let first = machine.target.incarnation();
    agent.shut_down().await;
    drop(agent);
    machine.write_unseen(&mut rng, 20);
    let agent = machine.agent();
    agent.resume().await.unwrap();
    machine.until_closed(2).await;
    assert_ne!(machine.target.incarnation(), first);
    machine.assert_equal();
    let sent = machine.target.catch_up_bytes(before);
    assert_eq!(sent, 20 * 4096, "only what was written unseen");
    assert!(machine.target.hash_requests() > 0);
    agent.shut_down().await;
    drop(agent);
    // Once more, while the machine writes.
    let load = Workload::start(&machine, seed);
    let agent = machine.agent();
    agent.resume().await.unwrap();
    machine.until_closed(3).await;
    load.end();
    machine.demote(&agent).await;
    machine.assert_equal();
    let new = WindowReason::NewIncarnation;
    assert_eq!(machine.reasons(), [WindowReason::FirstCopy, new, new]);
}

/// The ring overflows: what lies before stays, a window opens behind it, and the target ends up
/// equal.
#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_leads_to_a_catch_up() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let mut machine = Machine::new(&mut Rng::new(seed("overflow")));
    machine.options.ring_bytes = 2 << 20;
    let agent = machine.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    machine.until_point(Lsn::ZERO).await;
    let mut big = AlignedBuffer::zeroed(10 << 20).unwrap();
    let file = direct(machine.disks[0].path());
    // More at once than the ring holds; again, should the agent have been faster.
    for round in 0..100 {
        big.fill(round);
        file.write_all_at(&big, 0).unwrap();
        if !agent.report().0.losses.is_empty() {
            break;
        }
    }
    machine.until_closed(2).await;
    let losses = agent.report().0.losses;
    assert_eq!(losses, [("ring-overflow".to_owned(), 1)]);
    assert!(agent.report().0.returns >= 1);
    assert_eq!(machine.target.hash_requests(), 0, "what is dirty is known");
    assert!(machine.target.catch_up_bytes(Lsn::ZERO) <= (10 << 20) + (1 << 16));
    machine.until_point(machine.target.durable()).await;
    machine.demote(&agent).await;
    machine.assert_equal();
    assert_eq!(machine.reasons(), [WindowReason::FirstCopy, WindowReason::RingOverflow]);
}

/// Guards P1. T-1: the receiver is behind what the agent still has. Nothing is renumbered: a new
/// incarnation, and a comparison.
#[tokio::test(flavor = "multi_thread")]
async fn t1_a_receiver_that_lost_records_gets_a_new_incarnation() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let machine = Machine::new(&mut Rng::new(seed("t1")));
    let agent = machine.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    let file = direct(machine.disks[0].path());
    machine.until_point(Lsn::ZERO).await;
    for n in 0..50 {
        file.write_all_at(&AlignedBuffer::zeroed(4096).unwrap(), n * 4096).unwrap();
    }
    let durable = machine.target.durable();
    let written = machine.until_point(durable.plus(50)).await;
    let first = machine.target.incarnation();
    machine.target.lose_newest(30);
    machine.until_closed(2).await;
    assert!(written > Lsn::ZERO);
    assert_ne!(machine.target.incarnation(), first);
    machine.demote(&agent).await;
    machine.assert_equal();
    let losses = agent.report().0.losses;
    assert_eq!(losses, [("position-lost".to_owned(), 1)]);
}

/// Guards design section 5.3: a relay that lost its spool costs a catch-up of exactly what it held,
/// in the same load: no comparison, no new incarnation.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_spool_costs_exactly_what_it_held() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let seed = seed("lost spool");
    let machine = Machine::new(&mut Rng::new(seed));
    let agent = machine.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    let file = direct(machine.disks[0].path());
    machine.until_point(Lsn::ZERO).await;
    let first = machine.target.incarnation();
    let mut sent = 0;
    // Again while the first loss is caught up, and once with writes in flight.
    for round in 1..=3 {
        machine.target.cut_behind_relay();
        let before = machine.target.durable();
        let mut block = AlignedBuffer::zeroed(4096).unwrap();
        for n in 0..20 {
            block.fill(round * 20 + n);
            file.write_all_at(&block, (u64::from(n) * 7 + u64::from(round)) * 4096).unwrap();
        }
        let spooled = machine.until_point(before.plus(20)).await;
        machine.target.until_forgotten(spooled).await;
        let load = (round == 3).then(|| Workload::within(&machine, seed, 2 * MIB));
        machine.target.lose_spool();
        machine.until_closed(1 + usize::from(round)).await;
        if let Some(load) = load {
            load.end();
            break;
        }
        machine.until_point(machine.target.durable()).await;
        machine.assert_equal();
        let total = machine.target.catch_up_bytes(Lsn::ZERO);
        // The bits of the first round are dropped when the target has its blocks, a little later.
        let least = 20 * 4096;
        assert!((least..=2 * least).contains(&(total - sent)), "{} bytes", total - sent);
        sent = total;
    }
    machine.demote(&agent).await;
    machine.assert_equal();
    assert_eq!(machine.target.hash_requests(), 0, "what is dirty is known");
    assert_eq!(machine.target.incarnation(), first, "the same load");
    let lost = WindowReason::PositionLost;
    assert_eq!(machine.reasons(), [WindowReason::FirstCopy, lost, lost, lost]);
    assert_eq!(agent.report().0.losses, []);
}

/// After a failback: capture is active before the machine writes, and nothing is copied.
#[tokio::test(flavor = "multi_thread")]
async fn continuing_at_a_shared_position_copies_nothing() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let machine = Machine::new(&mut Rng::new(seed("continue")));
    let agent = machine.agent();
    machine.target.refuse(Some(Refusal::Unavailable { reason: "not yet".to_owned() }));
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    let order = Order::AgentStop { machine: machine.start().machine };
    let refused = carry_out(&agent, order).await.unwrap_err();
    assert_eq!(refused.code, "no-point-yet", "what is demoted must be recoverable");
    machine.target.refuse(None);
    machine.until_point(Lsn::ZERO).await;
    let fork = machine.demote(&agent).await;
    let chain = match carry_out(&agent, Order::AgentStop { machine: machine.start().machine }).await
    {
        Ok(OrderOutcome::Position(position)) => position.chain,
        other => panic!("{other:?}"),
    };
    carry_out(&agent, Order::AgentFence { epoch: epoch(2) }).await.unwrap();
    let refused = carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap_err();
    assert_eq!(refused.code, "fenced", "its epoch is over");
    let lineage = Lineage::root(epoch(1));
    let lineage = lineage.extend(epoch(2), fork).unwrap().extend(epoch(3), fork).unwrap();
    let mode = StartMode::Continue { lsn: fork, chain };
    let start = AgentStart { lineage, mode, ..machine.start() };
    carry_out(&agent, Order::AgentStart(start)).await.unwrap();
    let load = Workload::start(&machine, 1);
    machine.until_point(fork.plus(20)).await;
    carry_out(&agent, Order::AgentFence { epoch: epoch(2) }).await.unwrap();
    assert!(!agent.report().0.fenced, "an order that was late ends no later epoch");
    load.end();
    machine.demote(&agent).await;
    machine.assert_equal();
    assert_eq!(machine.reasons(), [WindowReason::FirstCopy], "no further window");
}

/// T-11 and the fence: another instance is inert, a fenced agent stays so across restarts.
#[tokio::test(flavor = "multi_thread")]
async fn another_instance_and_a_fenced_agent_are_inert() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let mut machine = Machine::new(&mut Rng::new(seed("fence")));
    let agent = machine.agent();
    let other = AgentStart { instance: InstanceId::from_bytes([5; 16]), ..machine.start() };
    let refused = carry_out(&agent, Order::AgentStart(other)).await.unwrap_err();
    assert_eq!(refused.code, "other-instance");
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    machine.until_point(Lsn::ZERO).await;
    // The recovered machine: the same state on its disk, but another instance.
    let clone = std::mem::replace(&mut machine.instance, InstanceId::from_bytes([5; 16]));
    let recovered = machine.agent();
    recovered.resume().await.unwrap();
    assert_eq!(recovered.report().0.machine, None, "inert");
    machine.instance = clone;
    machine.target.refuse(Some(Refusal::Fenced { offered: epoch(1), current: epoch(2) }));
    let fenced = async {
        while !agent.report().0.fenced {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, fenced).await.expect("the refusal is made durable");
    agent.shut_down().await;
    let restarted = machine.agent();
    restarted.resume().await.unwrap();
    assert!(restarted.report().0.fenced);
    let refused = carry_out(&restarted, Order::AgentStart(machine.start())).await.unwrap_err();
    assert_eq!(refused.code, "fenced");
}
