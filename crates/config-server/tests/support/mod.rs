//! A configuration server that can be killed, and a fleet of nodes that carry out orders in memory,
//! over real HTTPS.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod node;
pub(crate) mod server;
pub(crate) mod world;

use landfall_api_client::Client;
use landfall_api_types::ApiError;
use landfall_api_types::request::{Failover, PointChoice, Protect, Reprotect};
use landfall_api_types::resource::{Job, JobState, Machine};
use landfall_config_server::Timing;
use landfall_model::MachineState;
use landfall_types::Lsn;
use node::FakeNode;
use server::Server;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::World;

pub(crate) const MACHINE: &str = "db-1";

/// Short limits, so that tests of silence are quick.
pub(crate) fn timing() -> Timing {
    Timing {
        report_silence: Duration::from_secs(2),
        poll_silence: Duration::from_millis(600),
        drain_stall: Duration::from_millis(400),
        order_wait: Duration::from_millis(20),
        reconcile_interval: Duration::from_millis(20),
        report_persist: Duration::from_secs(3600),
        question: Duration::from_secs(5),
    }
}

/// Server, nodes of both sites, and an operator.
pub(crate) struct Fleet {
    pub(crate) server: Server,
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) nodes: Vec<FakeNode>,
    pub(crate) client: Client,
    pub(crate) dir: tempfile::TempDir,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let server = Server::start(&dir.path().join("server"), None);
        let world = Arc::new(Mutex::new(World::default()));
        let mut nodes = Vec::new();
        for name in ["agent", "ps-home", "mt-home", "ps-recovery", "mt-recovery"] {
            nodes.push(FakeNode::start(&dir.path().join(name), name, &server, &world).await);
        }
        let client = server.client();
        let fleet = Self { server, world, nodes, client, dir };
        fleet.all_in_contact().await;
        fleet
    }

    pub(crate) async fn all_in_contact(&self) {
        until("all nodes are in contact", async || {
            let servers = self.client.servers().await.ok()?;
            (servers.len() == 5 && servers.iter().all(|server| server.in_contact)).then_some(())
        })
        .await;
    }

    pub(crate) fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().expect("not poisoned"))
    }

    /// Ends a node as `kill -9` does: connections break, nothing more is said.
    pub(crate) async fn kill(&mut self, name: &str) {
        let at = self.nodes.iter().position(|node| node.name == name).expect("it runs");
        self.nodes.remove(at).kill().await;
        until("it is missed", async || {
            let servers = self.client.servers().await.ok()?;
            servers.iter().any(|server| server.name == name && !server.in_contact).then_some(())
        })
        .await;
    }

    pub(crate) async fn revive(&mut self, name: &str) {
        let dir = self.dir.path().join(name);
        self.nodes.push(FakeNode::start(&dir, name, &self.server, &self.world).await);
    }

    pub(crate) async fn done(&self, job: Result<Job, ApiError>) -> Job {
        let job = self.ended(job).await;
        assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
        job
    }

    pub(crate) async fn ended(&self, job: Result<Job, ApiError>) -> Job {
        let job = job.expect("accepted");
        self.client.wait_job(job.id, |_| {}).await.expect("followed")
    }

    pub(crate) async fn machine(&self) -> Machine {
        self.client.machine(MACHINE).await.expect("there")
    }

    pub(crate) async fn in_state(&self, state: MachineState) -> Machine {
        until(state.name(), async || {
            let machine = self.client.machine(MACHINE).await.ok()?;
            (machine.state == state).then_some(machine)
        })
        .await
    }

    pub(crate) fn protect_request() -> Protect {
        Protect {
            name: MACHINE.to_owned(),
            agent: "agent".to_owned(),
            process_server: "ps-home".to_owned(),
            master_target: "mt-recovery".to_owned(),
            disks: vec!["/dev/a".to_owned(), "/dev/b".to_owned()],
            images: Vec::new(),
            marker_interval_ms: None,
            policy: None,
            encrypt: None,
        }
    }

    pub(crate) fn failover_request() -> Failover {
        Failover {
            point: PointChoice::Latest,
            source_is_dead: Some("it was switched off".to_owned()),
            skip_drain: false,
        }
    }

    pub(crate) fn reprotect_request() -> Reprotect {
        Reprotect {
            process_server: "ps-recovery".to_owned(),
            master_target: "mt-home".to_owned(),
            disks: Vec::new(),
            discard_divergence: vec!["epoch-1-after-40".to_owned(), "old-disks".to_owned()],
            dry_run: false,
        }
    }

    pub(crate) async fn protect(&self) {
        self.done(self.client.protect(&Self::protect_request()).await).await;
        self.world(World::first_copy_ends);
        self.in_state(MachineState::Protected).await;
    }

    /// Home dies; a failover to the latest point.
    pub(crate) async fn fail_over(&self) {
        self.world(|world| world.home_dies());
        self.done(self.client.failover(MACHINE, &Self::failover_request()).await).await;
    }

    pub(crate) async fn reprotect(&self) {
        self.done(self.client.reprotect(MACHINE, &Self::reprotect_request()).await).await;
        self.world(World::window_home_closes);
        self.in_state(MachineState::Reprotected).await;
    }
}

/// Waits for something that must come; what it waits for is looked at again and again.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come"))
}

pub(crate) fn lsn(raw: u64) -> Lsn {
    Lsn::new(raw)
}
