//! The same over real connections: TLS of the fleet, sessions, and a receiver.

use crate::cycle::{Machine, Workload, carry_out};
use crate::target::Target;
use async_trait::async_trait;
use landfall_agent::{Agent, FleetNetwork};
use landfall_api_types::order::{AgentStart, Order};
use landfall_pki::{Credentials, FleetAuthority, KeyAndRequest, Member, PeerIdentity, Role, tls};
use landfall_repl::{
    Batch, Durable, HashReply, HashRequest, ImageData, LogSink, ReceiverPosition, Refusal,
    SessionToken, SourceIdentity,
};
use landfall_testkit::{Rng, require, seed};
use landfall_transport::testing::{Fault, Proxy};
use landfall_transport::{ReceiverConfig, serve_receiver};
use landfall_types::{Lsn, NodeId, Record};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[async_trait]
impl LogSink for Target {
    async fn open(
        &self,
        identity: &SourceIdentity,
    ) -> Result<(SessionToken, ReceiverPosition), Refusal> {
        let token = SessionToken { replica: identity.replica, serial: 1 };
        Ok((token, self.with(|state| state.position())))
    }

    async fn append(&self, _session: SessionToken, batch: Batch) -> Result<(), Refusal> {
        self.with(|state| {
            state.incarnation = batch.incarnation;
            state.source_position = batch.source_position;
            batch.records.into_iter().for_each(|record| state.take(record));
        });
        Ok(())
    }

    async fn flush(&self, _session: SessionToken) -> Result<Durable, Refusal> {
        let durable = self.durable();
        Ok(Durable { here: durable, at_target: durable })
    }

    async fn durable_beyond(
        &self,
        session: SessionToken,
        seen: Durable,
    ) -> Result<Durable, Refusal> {
        let beyond = |position: &ReceiverPosition, _: &[Record]| position.durable > seen.at_target;
        self.until("more to be durable", beyond).await;
        self.flush(session).await
    }

    async fn image(&self, _session: SessionToken, piece: ImageData) -> Result<(), Refusal> {
        let opened = |position: &ReceiverPosition, _: &[Record]| position.image_copy.is_some();
        self.until("the window is open at the target", opened).await;
        self.with(|state| state.image(&piece));
        Ok(())
    }

    async fn hash(
        &self,
        _session: SessionToken,
        request: HashRequest,
    ) -> Result<HashReply, Refusal> {
        let there = |position: &ReceiverPosition, _: &[Record]| position.durable >= request.after;
        self.until("the position of the question", there).await;
        Ok(self.with(|state| state.hash(&request)))
    }

    async fn close(&self, _session: SessionToken) {}
}

pub(crate) fn member(authority: &FleetAuthority, dir: &Path, role: Role) -> Credentials {
    let id = NodeId::generate();
    let made = KeyAndRequest::generate().unwrap();
    let peer = PeerIdentity { role, node: id };
    let signed = authority.sign(&made.request_pem, peer, SystemTime::now()).unwrap();
    let server_url = "https://localhost:1".to_owned();
    let member = Member { id, role, name: role.name().to_owned(), server_url };
    Credentials::create(&dir.join(id.to_string()), &member, &made.key_pem, &signed).unwrap()
}

/// The target of a machine behind a listener.
pub(crate) struct Wire {
    _dir: tempfile::TempDir,
    pub(crate) authority: FleetAuthority,
    pub(crate) next_hop: String,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn serve(machine: &Machine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = FleetAuthority::open_or_create(dir.path(), SystemTime::now()).unwrap();
        let us = member(&authority, dir.path(), Role::ProcessServer);
        let server = tls::data_server(&us, &[Role::Agent]);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let next_hop = listener.local_addr().unwrap().to_string();
        let config = ReceiverConfig::new(server.unwrap(), Arc::new(|_: &_, _: &_| Ok(())));
        let shutdown = CancellationToken::new();
        let sink = Arc::new(machine.target.clone());
        let serving = tokio::spawn(serve_receiver(listener, config, sink, shutdown.clone()));
        Self { _dir: dir, authority, next_hop, shutdown, serving }
    }

    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}

/// First copy and a comparison after a restart, under load, over TLS.
#[tokio::test(flavor = "multi_thread")]
async fn over_real_connections() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let seed = seed("over real connections");
    let machine = Machine::new(&mut Rng::new(seed));
    let wire = Wire::serve(&machine).await;
    let credentials = member(&wire.authority, machine.state.path(), Role::Agent);
    let network = Arc::new(FleetNetwork::new(&credentials).unwrap());
    let open = || {
        let (network, settings) = (Arc::clone(&network), machine.settings());
        Agent::open(machine.state.path(), machine.instance, settings, network).unwrap()
    };
    let load = Workload::start(&machine, seed);
    let agent = open();
    let start = AgentStart { next_hop: wire.next_hop.clone(), ..machine.start() };
    carry_out(&agent, Order::AgentStart(start)).await.unwrap();
    machine.until_closed(1).await;
    machine.until_point(Lsn::ZERO).await;
    assert_eq!(agent.report().0.losses, []);
    agent.shut_down().await;
    drop(agent);
    let agent = open();
    agent.resume().await.unwrap();
    machine.until_closed(2).await;
    load.end();
    machine.demote(&agent).await;
    machine.assert_equal();
    let (report, problems) = agent.report();
    assert!(problems.is_empty() && report.losses.is_empty(), "{problems:?} {report:?}");
    assert_eq!(report.durable_at_target, machine.target.durable());
    wire.end().await;
}

/// Guards P2 and P3 over the real shells (fault F4): the connection of a comparison is cut after
/// byte *k*, in either direction; it goes on, and the target ends up equal. `LANDFALL_CUTS=100`
/// tries so many of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_that_is_cut_anywhere_ends_equal() {
    if !require(&["loop", "bpf"]) {
        return;
    }
    let cuts: u64 = std::env::var("LANDFALL_CUTS")
        .map_or(3, |text| text.parse().expect("LANDFALL_CUTS is a number"));
    let mut rng = Rng::new(seed("a catch-up that is cut"));
    let machine = Machine::new(&mut rng);
    let wire = Wire::serve(&machine).await;
    let proxy = Proxy::new(wire.next_hop.parse().unwrap(), Fault::None).await;
    let credentials = member(&wire.authority, machine.state.path(), Role::Agent);
    let network = Arc::new(FleetNetwork::new(&credentials).unwrap());
    let open = || {
        let (network, settings) = (Arc::clone(&network), machine.settings());
        Agent::open(machine.state.path(), machine.instance, settings, network).unwrap()
    };
    let agent = open();
    let start = AgentStart { next_hop: proxy.address.to_string(), ..machine.start() };
    carry_out(&agent, Order::AgentStart(start)).await.unwrap();
    machine.until_point(Lsn::ZERO).await;
    agent.shut_down().await;
    drop(agent);
    // The first round is not cut: it shows how many bytes there are to cut after.
    let mut whole = [0, 0];
    for round in 0..=cuts {
        machine.write_unseen(&mut rng, 20);
        let way = usize::from(rng.one_in(2));
        let after = rng.below(whole[way].max(1));
        match (round, way) {
            (0, _) => {}
            (_, 0) => proxy.strike(Fault::CutUp(after)),
            (_, _) => proxy.strike(Fault::CutDown(after)),
        }
        let before = proxy.carried();
        let agent = open();
        agent.resume().await.unwrap();
        machine.until_closed(2 + usize::try_from(round).unwrap()).await;
        machine.until_point(machine.target.durable()).await;
        machine.assert_equal();
        agent.shut_down().await;
        let carried = proxy.carried();
        if round == 0 {
            whole = [0, 1].map(|way| carried[way] - before[way]);
        }
    }
    drop(proxy);
    wire.end().await;
}
