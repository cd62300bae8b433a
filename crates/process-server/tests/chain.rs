//! Two process servers in a row between a source and a target, over real connections that break:
//! agent → process server → process server → master target.

mod common;

use bytes::Bytes;
use common::{Listening, open};
use landfall_pki::Role;
use landfall_process_server::ProcessServer;
use landfall_repl::{HashRequest, ImageData, SenderOptions, SourceIdentity};
use landfall_transport::testing::{
    Fault, Fleet, MemberTls, MemorySink, MemorySource, Proxy, identity, lock, record,
};
use landfall_transport::{Limiter, SenderConfig, SenderHandle, run_sender};
use landfall_types::{DiskIndex, Lsn, Record, WindowId};
use landfall_wire::Compression;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;

const CACHE_BYTES: u64 = 64 << 20;
/// Hops: to the first relay, to the second, to the target.
const HOPS: usize = 3;

struct Node {
    _dir: TempDir,
    relay: Arc<ProcessServer>,
    listening: Listening,
}

impl Node {
    async fn new(fleet: &Fleet) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let tls = fleet.member(Role::ProcessServer);
        let relay = open(&dir, &tls, CACHE_BYTES).await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = Listening::at(any, &tls, Arc::clone(&relay) as _).await;
        Self { _dir: dir, relay, listening }
    }

    async fn route(&self, identity: &SourceIdentity, next_hop: SocketAddr) {
        let next_hop = next_hop.to_string();
        let routed =
            self.relay.route(identity.replica, next_hop, &identity.lineage, identity.instance);
        routed.await.expect("kept");
    }
}

struct Rig {
    agent: MemberTls,
    near: Node,
    far: Node,
    sink: Arc<MemorySink>,
    target: Listening,
}

impl Rig {
    async fn new() -> Self {
        let fleet = Fleet::new();
        let sink = Arc::new(MemorySink::default());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let tls = fleet.member(Role::MasterTarget);
        let target = Listening::at(any, &tls, Arc::clone(&sink) as _).await;
        let (near, far) = (Node::new(&fleet).await, Node::new(&fleet).await);
        Self { agent: fleet.member(Role::Agent), near, far, sink, target }
    }

    /// A proxy before each hop; the one of `fault` cuts its first connection.
    async fn proxies(&self, fault: Option<(usize, Fault)>) -> [Proxy; HOPS] {
        let of = |hop| match fault {
            Some((at, fault)) if at == hop => fault,
            _ => Fault::None,
        };
        [
            Proxy::new(self.near.listening.address, of(0)).await,
            Proxy::new(self.far.listening.address, of(1)).await,
            Proxy::new(self.target.address, of(2)).await,
        ]
    }

    async fn route(&self, identity: &SourceIdentity, proxies: &[Proxy; HOPS]) {
        self.near.route(identity, proxies[1].address).await;
        self.far.route(identity, proxies[2].address).await;
    }

    fn send(&self, to: SocketAddr, source: &Arc<MemorySource>) -> SenderHandle {
        let config = SenderConfig {
            limiter: Arc::new(Limiter::new(None)),
            address: to.to_string(),
            tls: Arc::clone(&self.agent.client),
            compression: Compression::Adaptive,
            options: SenderOptions::default(),
        };
        run_sender(config, Arc::clone(source) as _)
    }
}

fn expected(records: u64) -> Vec<Record> {
    (1..=records).map(|lsn| record(lsn, 60)).collect()
}

/// Records, a piece of a first copy, a question of a comparison, and records again: all of it
/// arrives once and in order, whatever the proxies do.
async fn session(rig: &Rig, replica: u128, proxies: &[Proxy; HOPS]) {
    let identity = identity(replica);
    rig.route(&identity, proxies).await;
    let source = MemorySource::new(identity);
    let handle = rig.send(proxies[0].address, &source);
    source.write(3, 60);
    source.until_at_target(3).await;
    let piece = ImageData {
        window: WindowId(1),
        disk: DiskIndex(0),
        offset: 0,
        length: 40,
        data: Some(Bytes::from_static(&[7; 40])),
    };
    assert_eq!(handle.image(piece).await, Ok(()));
    let ask = HashRequest {
        after: Lsn::new(3),
        disk: DiskIndex(0),
        offset: 1,
        length: 512,
        block_bytes: 512,
    };
    assert_eq!(handle.hash(ask).await.expect("answered").hashes.len(), 1);
    source.write(2, 60);
    source.until_at_target(5).await;
    assert_eq!(rig.sink.durable_records(source.replica()), expected(5));
    handle.stop().await;
    for node in [&rig.near, &rig.far] {
        node.relay.unroute(source.replica(), true).await.expect("everything is delivered");
    }
}

/// Guards P2 and P3 over the whole chain (fault F4): a cut after byte *k*, of each hop in either
/// direction, costs time only. `LANDFALL_CUT_STEP=1` tries every byte (some 20 000 sessions); the
/// default tries every 97th, from a random one on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_after_any_byte_of_any_hop_loses_nothing() {
    let step: u64 = std::env::var("LANDFALL_CUT_STEP")
        .map_or(97, |text| text.parse().expect("LANDFALL_CUT_STEP is a number"));
    let seed = landfall_testkit::seed("a_cut_after_any_byte_of_any_hop_loses_nothing");
    let rig = Arc::new(Rig::new().await);
    let recorded = rig.proxies(None).await;
    session(&rig, 0, &recorded).await;
    let mut cuts = vec![];
    for (hop, proxy) in recorded.iter().enumerate() {
        let [up, down] = [0, 1].map(|way| proxy.bytes[way].load(Ordering::Relaxed));
        assert!(up > 1000 && down > 1000, "hop {hop}: {up} and {down} bytes");
        let bytes = |end: u64| (seed % step..end).step_by(usize::try_from(step).expect("small"));
        cuts.extend(bytes(up).map(|after| (hop, Fault::CutUp(after))));
        cuts.extend(bytes(down).map(|after| (hop, Fault::CutDown(after))));
    }
    eprintln!("{} cuts", cuts.len());
    let mut running = tokio::task::JoinSet::new();
    for (n, fault) in cuts.into_iter().enumerate() {
        if running.len() >= 16 {
            running.join_next().await.expect("some").expect("no cut does harm");
        }
        let rig = Arc::clone(&rig);
        running.spawn(async move {
            let proxies = rig.proxies(Some(fault)).await;
            let done = session(&rig, ((n as u128) + 1) << 8, &proxies);
            let done = tokio::time::timeout(Duration::from_secs(60), done).await;
            done.unwrap_or_else(|_| panic!("{fault:?}: does not come through"));
        });
    }
    while let Some(result) = running.join_next().await {
        result.expect("no cut does harm");
    }
}

/// Guards P2: both links behind the machine break while it writes, one after the other comes back:
/// each relay keeps what it acknowledged, and says how far the target is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_relay_keeps_what_it_acknowledged_until_the_next_has_it() {
    let rig = Rig::new().await;
    let proxies = rig.proxies(None).await;
    let identity = identity(1);
    rig.route(&identity, &proxies).await;
    let source = MemorySource::new(identity);
    let _handle = rig.send(proxies[0].address, &source);
    source.write(10, 60);
    source.until_at_target(10).await;
    let [_, middle, last] = proxies;
    drop(last);
    source.write(10, 60);
    source.until_here(20).await;
    until_durable(&rig.far, 20).await;
    drop(middle);
    source.write(10, 60);
    source.until_here(30).await;
    assert_eq!(source.durable.borrow().at_target, Lsn::new(10), "nobody claims more than is so");
    assert_eq!(rig.sink.durable_records(source.replica()), expected(10));
    // Other addresses: routes can be led anew while a spool waits.
    let identity = lock(&source.identity).clone();
    let last = Proxy::new(rig.target.address, Fault::None).await;
    rig.far.route(&identity, last.address).await;
    let middle = Proxy::new(rig.far.listening.address, Fault::None).await;
    rig.near.route(&identity, middle.address).await;
    source.until_at_target(30).await;
    assert_eq!(rig.sink.durable_records(source.replica()), expected(30));
    for node in [&rig.near, &rig.far] {
        let report = node.relay.reports().remove(0);
        assert_eq!((report.durable_here, report.durable_at_target), (Lsn::new(30), Lsn::new(30)));
    }
    // In order, from the target on: no listener waits for a session that will never end.
    for listening in [rig.target, rig.far.listening, rig.near.listening] {
        listening.end().await;
    }
}

async fn until_durable(node: &Node, lsn: u64) {
    let reached = async {
        while node.relay.reports().remove(0).durable_here < Lsn::new(lsn) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("in time");
}
