//! Capture outlives the agent: what a process that died had not sent is sent by the next, and
//! nothing else.

use crate::cycle::{Machine, Workload, carry_out};
use crate::wire::{Wire, member};
use landfall_agent::{Agent, FleetNetwork, Settings};
use landfall_api_types::order::{AgentStart, Order};
use landfall_pki::{Credentials, Role};
use landfall_testkit::{Rng, require, seed};
use landfall_types::{InstanceId, Lsn, WindowReason};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Where the helper process finds what it needs.
const STATE: &str = "LANDFALL_TEST_STATE";
/// How often the agent is killed: raise it for an hour's run.
const KILLS: &str = "LANDFALL_AGENT_KILLS";
/// The load stays in the first part of each disk.
const SPAN: u64 = 1 << 20;
/// Of up to 4 KiB each: they fit into the ring while nobody reads it.
const WRITES_UNREAD: u64 = 2000;

/// A machine whose capture is pinned; what is pinned goes away with it, also after a failure.
struct Pinned {
    machine: Machine,
    ring_bytes: u64,
}

impl Pinned {
    fn new(name: &str) -> Self {
        Self { machine: Machine::new(&mut Rng::new(seed(name))), ring_bytes: 16 << 20 }
    }

    fn settings(&self) -> Settings {
        pinned(self.machine.state.path(), self.ring_bytes)
    }

    fn agent(&self) -> Agent {
        let network = Arc::new(self.machine.target.clone());
        let state = self.machine.state.path();
        Agent::open(state, self.machine.instance, self.settings(), network).unwrap()
    }

    /// What had to be sent anew since `before`.
    fn caught_up(&self, before: Lsn) -> u64 {
        self.machine.target.catch_up_bytes(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(pin) = self.settings().capture.pin {
            let _gone = landfall_capture::detach(&pin);
        }
    }
}

fn pinned(state: &Path, ring_bytes: u64) -> Settings {
    let test = std::env::current_exe().unwrap();
    let mut settings = Settings::of_installation(&test, state, &state.join("run/instance"));
    assert!(settings.capture.pin.is_some(), "mount -t bpf bpf /sys/fs/bpf");
    settings.capture.ring_bytes = ring_bytes;
    settings
}

/// The agent stops for a moment, as at an upgrade of the same version: no window, nothing sent
/// twice, nothing missed.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_back_goes_on_where_the_receiver_stands() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    // With an open window there is work to go on with: see `Machine::reasons`.
    while !goes_on_where_the_receiver_stands().await {
        println!("the end of a write was not seen: once more");
    }
}

/// False when something else than the agent's return has opened a window.
async fn goes_on_where_the_receiver_stands() -> bool {
    let pinned = Pinned::new("comes back");
    let machine = &pinned.machine;
    let agent = pinned.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    let before = machine.until_point(Lsn::ZERO).await;
    let (image, incarnation) = (machine.target.image_bytes(), machine.target.incarnation());
    let load = Workload::within(machine, 1, SPAN);
    for _ in 0..2 {
        machine.until_point(machine.target.durable().plus(100)).await;
        // Nobody reads the ring meanwhile, and what is written does not fill it.
        load.allow(WRITES_UNREAD);
        agent.shut_down().await;
        load.rests().await;
        agent.resume().await.unwrap();
        load.allow(u64::MAX);
    }
    machine.until_point(machine.target.durable().plus(100)).await;
    load.allow(WRITES_UNREAD);
    agent.shut_down().await;
    drop(agent);
    let agent = pinned.agent();
    agent.resume().await.unwrap();
    load.allow(u64::MAX);
    load.end();
    machine.until_point(machine.target.durable()).await;
    machine.demote(&agent).await;
    machine.assert_equal();
    if machine.windows().contains(&WindowReason::CaptureGap) {
        return false;
    }
    assert_eq!(machine.windows(), [WindowReason::FirstCopy]);
    assert_eq!(machine.target.incarnation(), incarnation);
    assert_eq!((pinned.caught_up(before), machine.target.image_bytes()), (0, image));
    let pin = pinned.settings().capture.pin.unwrap();
    assert!(!pin.exists(), "a demoted machine is not captured any more");
    true
}

/// An upgrade to another program: the new one is active before the old one ends, and takes over
/// what is dirty.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_catches_up_what_is_dirty() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let mut pinned = Pinned::new("another program");
    let agent = pinned.agent();
    carry_out(&agent, Order::AgentStart(pinned.machine.start())).await.unwrap();
    let before = pinned.machine.until_point(Lsn::ZERO).await;
    let load = Workload::within(&pinned.machine, 2, SPAN);
    pinned.machine.until_point(before.plus(100)).await;
    agent.shut_down().await;
    drop(agent);
    pinned.ring_bytes *= 2;
    let (agent, machine) = (pinned.agent(), &pinned.machine);
    agent.resume().await.unwrap();
    machine.until_closed(2).await;
    load.end();
    machine.until_point(machine.target.durable()).await;
    machine.demote(&agent).await;
    machine.assert_equal();
    assert_eq!(machine.reasons(), [WindowReason::FirstCopy, WindowReason::NewIncarnation]);
    assert_eq!(machine.target.hash_requests(), 0, "nothing was compared");
    let sent = pinned.caught_up(before);
    assert!(sent <= 2 * SPAN + (1 << 16), "{sent} bytes for 2 MiB that were written");
}

/// A target that has less than it had acknowledged, and an agent that died in between (trap T-1):
/// the bitmap has forgotten what the target has lost, so everything is compared.
#[tokio::test(flavor = "multi_thread")]
async fn t1_a_target_that_lost_records_while_the_agent_was_dead_is_compared() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let pinned = Pinned::new("t1 dead agent");
    let machine = &pinned.machine;
    let agent = pinned.agent();
    carry_out(&agent, Order::AgentStart(machine.start())).await.unwrap();
    machine.until_point(Lsn::ZERO).await;
    let load = Workload::within(machine, 3, SPAN);
    machine.until_point(machine.target.durable().plus(200)).await;
    load.end();
    let settled = pinned.settings().settled;
    let noted = || settled.0.as_ref().unwrap().exists();
    while !noted() {
        machine.until_point(machine.target.durable()).await;
    }
    agent.shut_down().await;
    drop(agent);
    machine.target.lose_newest(150);
    let agent = pinned.agent();
    agent.resume().await.unwrap();
    machine.until_closed(2).await;
    machine.demote(&agent).await;
    machine.assert_equal();
    assert!(machine.target.hash_requests() > 0);
}

#[test]
#[ignore = "a helper process of the tests here: an agent that waits to be killed"]
fn helper_agent() {
    let state = PathBuf::from(std::env::var_os(STATE).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let network = FleetNetwork::new(&Credentials::open(&state.join("member")).unwrap());
        let settings = pinned(&state, 16 << 20);
        let instance = InstanceId::from_bytes([9; 16]);
        let agent = Agent::open(&state, instance, settings, Arc::new(network.unwrap())).unwrap();
        if !state.join("agent.json").exists() {
            let start = std::fs::read(state.join("start.json")).unwrap();
            let start: AgentStart = serde_json::from_slice(&start).unwrap();
            carry_out(&agent, Order::AgentStart(start)).await.unwrap();
        }
        agent.resume().await.unwrap();
        std::future::pending::<()>().await;
    });
}

fn agent_process(state: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "survival::helper_agent", "--nocapture"])
        .env(STATE, state)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// `kill -9` at random moments under load, also in the first copy and while the agent before it is
/// being caught up with; the ring overflows now and then. In the end source and target are equal,
/// and what had to be sent anew is what was dirty, never the disk.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_load_nothing_is_missed_and_little_is_sent() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let seed = seed("killed agent");
    let mut rng = Rng::new(seed);
    let pinned = Pinned::new("killed agent");
    let machine = &pinned.machine;
    let state = machine.state.path();
    let wire = Wire::serve(machine).await;
    let credentials = member(&wire.authority, &state.join("members"), Role::Agent);
    std::fs::rename(credentials.dir(), state.join("member")).unwrap();
    let start = AgentStart { next_hop: wire.next_hop.clone(), ..machine.start() };
    std::fs::write(state.join("start.json"), serde_json::to_vec(&start).unwrap()).unwrap();
    let load = Workload::within(machine, seed, SPAN);
    let kills = std::env::var(KILLS).map_or(6, |text| text.parse().unwrap());
    for _ in 0..kills {
        let mut agent = agent_process(state);
        tokio::time::sleep(Duration::from_millis(100 + rng.below(900))).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        tokio::time::sleep(Duration::from_millis(rng.below(200))).await;
    }
    let mut agent = agent_process(state);
    machine.until_point(Lsn::ZERO).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    load.end();
    let network = FleetNetwork::new(&Credentials::open(&state.join("member")).unwrap()).unwrap();
    let agent = Agent::open(state, machine.instance, pinned.settings(), Arc::new(network)).unwrap();
    agent.resume().await.unwrap();
    machine.until_point(machine.target.durable()).await;
    machine.demote(&agent).await;
    machine.assert_equal();
    assert_eq!(machine.target.hash_requests(), 0, "nothing was compared");
    let windows = machine.windows().len() as u64;
    let sent = pinned.caught_up(Lsn::ZERO);
    assert!(sent <= windows * (2 * SPAN + (1 << 16)), "{sent} bytes in {windows} windows");
    wire.end().await;
}
