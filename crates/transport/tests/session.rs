//! The shells over loopback: real TLS, a source and a sink in memory, and a network that breaks.

use bytes::Bytes;
use landfall_pki::Role;
use landfall_repl::limits::LOG_WINDOW_BYTES;
use landfall_repl::{
    HashRequest, ImageData, LogSource, Refusal, SenderOptions, SenderPhase, SourceIdentity,
};
use landfall_transport::testing::{
    Fault, Fleet, MemberTls, MemorySink, MemorySource, Proxy, identity, lock, record,
};
use landfall_transport::{
    Limiter, ReceiverConfig, SenderConfig, SenderHandle, SenderStatus, run_sender, serve_receiver,
};
use landfall_types::{DiskIndex, InstanceId, Lsn, WindowId};
use landfall_wire::Compression;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Rig {
    fleet: Fleet,
    agent: MemberTls,
    target: MemberTls,
    sink: Arc<MemorySink>,
    address: SocketAddr,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Rig {
    async fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let fleet = Fleet::new();
        let (agent, target) = (fleet.member(Role::Agent), fleet.member(Role::MasterTarget));
        Self::on(fleet, listener, agent, target, Arc::new(MemorySink::default()))
    }

    fn on(
        fleet: Fleet,
        listener: TcpListener,
        agent: MemberTls,
        target: MemberTls,
        sink: Arc<MemorySink>,
    ) -> Self {
        let node = agent.node;
        let authorize = move |peer: &landfall_pki::PeerIdentity, identity: &SourceIdentity| {
            assert_eq!(peer.node, node);
            match identity.replica.as_bytes()[15] {
                0xff => Err(Refusal::UnknownReplica(identity.replica)),
                _ => Ok(()),
            }
        };
        let config = ReceiverConfig::new(Arc::clone(&target.server), Arc::new(authorize));
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let serve = serve_receiver(listener, config, Arc::clone(&sink) as Arc<_>, shutdown.clone());
        let server = tokio::spawn(serve);
        Self { fleet, agent, target, sink, address, shutdown, server }
    }

    fn send(&self, to: SocketAddr, source: &Arc<MemorySource>) -> SenderHandle {
        let config = SenderConfig {
            limiter: Arc::new(Limiter::new(None)),
            address: to.to_string(),
            tls: Arc::clone(&self.agent.client),
            compression: Compression::Fast,
            options: SenderOptions::default(),
        };
        run_sender(config, Arc::clone(source) as Arc<_>)
    }
}

async fn until(handle: &SenderHandle, what: impl FnMut(&SenderStatus) -> bool) -> SenderStatus {
    let mut status = handle.status();
    let wait = status.wait_for(what);
    let found = tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
    found.expect("the sender runs").clone()
}

/// Guards P2 end to end: what is acknowledged is what the sink holds, in order; requests beside the
/// log are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_pieces_and_hashes_cross() {
    let rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    let handle = rig.send(rig.address, &source);
    source.write(1000, 700);
    source.until_at_target(1000).await;
    let expected: Vec<_> = (1..=1000).map(|lsn| record(lsn, 700)).collect();
    assert_eq!(rig.sink.durable_records(source.replica()), expected);

    let piece = |n: u64| ImageData {
        window: WindowId(1),
        disk: DiskIndex(0),
        offset: n << 20,
        length: 1 << 20,
        data: n.is_multiple_of(2).then(|| Bytes::from(vec![1; 1 << 20])),
    };
    // More than the window, from tasks of their own, begun in order.
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.image(piece(n)).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("runs"), Ok(()));
    }
    assert_eq!(lock(&rig.sink.pieces).len(), 40);

    let ask = |disk, offset| HashRequest {
        after: Lsn::ZERO,
        disk: DiskIndex(disk),
        offset,
        length: 10_000,
        block_bytes: 4096,
    };
    let reply = handle.hash(ask(0, 7)).await.expect("answered");
    assert_eq!(reply.hashes.iter().map(|hash| hash[15]).collect::<Vec<_>>(), [7, 8, 9]);
    let refused = handle.hash(ask(1, 0)).await;
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })), "one refusal ends nothing");

    // What breaks a limit is refused here: sent, it would end this session and every new one.
    let mut oversized = piece(0);
    oversized.length += 1;
    assert!(matches!(handle.image(oversized).await, Err(Refusal::Protocol { .. })));
    let mut many = ask(0, 0);
    many.length = 1 << 40;
    assert!(matches!(handle.hash(many).await, Err(Refusal::Protocol { .. })));

    let status = until(&handle, |status| status.rtt_us.is_some()).await;
    assert_eq!(status.phase, SenderPhase::Live);
    assert_eq!((status.sent, status.acked.durable.at_target), (Lsn::new(1000), Lsn::new(1000)));
    assert!(status.wire_bytes > 5_000 && status.connected_since.is_some(), "{status:?}");
    handle.stop().await;
    assert!(handle.hash(ask(0, 0)).await.is_err(), "stopped");
}

/// Guards P6 and "no hot loop": refused for good, told to the owner, and tried again only when he
/// says so.
#[tokio::test]
async fn a_fatal_refusal_stops_the_sender_until_its_owner_acts() {
    let rig = Rig::new().await;
    *lock(&rig.sink.instance) = Some(InstanceId::from_bytes([9; 16]));
    let source = MemorySource::new(identity(1));
    let handle = rig.send(rig.address, &source);
    let status = until(&handle, |status| status.phase == SenderPhase::Stopped).await;
    let instance = source.identity().instance;
    assert_eq!(status.refusal, Some(Refusal::OtherInstance(instance)));
    let asked = handle.image(ImageData {
        window: WindowId(1),
        disk: DiskIndex(0),
        offset: 0,
        length: 512,
        data: None,
    });
    assert_eq!(asked.await, Err(Refusal::OtherInstance(instance)), "nobody waits for ever");
    *lock(&rig.sink.instance) = Some(instance);
    handle.restart().await;
    source.write(1, 10);
    source.until_at_target(1).await;
    let status = until(&handle, |status| status.phase == SenderPhase::Live).await;
    assert_eq!(status.refusal, None);
}

#[tokio::test]
async fn who_may_send_is_asked_before_the_sink_is() {
    let rig = Rig::new().await;
    let source = MemorySource::new(identity(0xff));
    let handle = rig.send(rig.address, &source);
    let status = until(&handle, |status| status.phase == SenderPhase::Stopped).await;
    assert_eq!(status.refusal, Some(Refusal::UnknownReplica(source.replica())));
    assert!(!rig.sink.is_open(source.replica()));
}

/// Guards "every buffer is bounded": a sink that does not take records stops the reading at the
/// source.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_sink_holds_the_source_back() {
    let rig = Rig::new().await;
    rig.sink.full.send_replace(true);
    let source = MemorySource::new(identity(1));
    let handle = rig.send(rig.address, &source);
    source.write(400, 256 * 1024);
    let window = usize::try_from(LOG_WINDOW_BYTES).expect("small");
    until(&handle, |status| status.sent.get() as usize * 256 * 1024 >= window).await;
    // A hash request goes past the records, and is answered behind everything sent before it.
    let ask = HashRequest {
        after: Lsn::ZERO,
        disk: DiskIndex(0),
        offset: 0,
        length: 512,
        block_bytes: 512,
    };
    handle.hash(ask).await.expect("answered");
    let most = LOG_WINDOW_BYTES + 2 * 1024 * 1024;
    assert!(*lock(&source.read) <= most, "{} bytes read", lock(&source.read));
    assert_eq!(source.durable.borrow().here, Lsn::ZERO);
    rig.sink.full.send_replace(false);
    source.until_at_target(400).await;
}

/// Guards P2 and P3 on real sockets: a cut after every byte of a session, in either direction,
/// costs time only. `LANDFALL_CUT_STEP=1` tries every byte (about 7000 sessions); the default tries
/// every fifth, from a random one on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_after_any_byte_loses_nothing() {
    let step: u64 = std::env::var("LANDFALL_CUT_STEP")
        .map_or(5, |text| text.parse().expect("LANDFALL_CUT_STEP is a number"));
    let first = landfall_testkit::seed("a_cut_after_any_byte_loses_nothing") % step;
    let rig = Arc::new(Rig::new().await);
    let recorded = Proxy::new(rig.address, Fault::None).await;
    session(&rig, 0, &recorded).await;
    let [up, down] = [0, 1].map(|way| recorded.bytes[way].load(Ordering::Relaxed));
    assert!(up > 1000 && down > 1000, "{up} and {down} bytes");
    let cuts = (first..up).step_by(step as usize).map(Fault::CutUp);
    let cuts: Vec<_> =
        cuts.chain((first..down).step_by(step as usize).map(Fault::CutDown)).collect();
    eprintln!("{} cuts in sessions of {up} and {down} bytes", cuts.len());
    let mut running = tokio::task::JoinSet::new();
    for (n, fault) in cuts.into_iter().enumerate() {
        if running.len() >= 64 {
            running.join_next().await.expect("some").expect("no cut does harm");
        }
        let rig = Arc::clone(&rig);
        running.spawn(async move {
            let proxy = Proxy::new(rig.address, fault).await;
            let done = tokio::time::timeout(
                Duration::from_secs(30),
                session(&rig, ((n as u128) + 1) << 8, &proxy),
            );
            done.await.unwrap_or_else(|_| panic!("{fault:?}: does not come through"));
        });
    }
    while let Some(result) = running.join_next().await {
        result.expect("no cut does harm");
    }
}

/// A short session with records, a piece and a hash.
async fn session(rig: &Rig, replica: u128, proxy: &Proxy) {
    let source = MemorySource::new(identity(replica));
    let handle = rig.send(proxy.address, &source);
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
        after: Lsn::ZERO,
        disk: DiskIndex(0),
        offset: 1,
        length: 512,
        block_bytes: 512,
    };
    assert_eq!(handle.hash(ask).await.expect("answered").hashes.len(), 1);
    source.write(2, 60);
    source.until_at_target(5).await;
    let expected: Vec<_> = (1..=5).map(|lsn| record(lsn, 60)).collect();
    assert_eq!(rig.sink.durable_records(source.replica()), expected);
    handle.stop().await;
}

/// Fault F4: a half-open connection is noticed by both ends, and the sender comes back.
#[tokio::test]
async fn a_half_open_connection_is_given_up_by_both_ends() {
    let rig = Rig::new().await;
    let proxy = Proxy::new(rig.address, Fault::None).await;
    let source = MemorySource::new(identity(1));
    let handle = rig.send(proxy.address, &source);
    source.write(1, 10);
    source.until_at_target(1).await;
    proxy.black_hole.send_replace(true);
    source.write(1, 10);
    until(&handle, |status| status.sent == Lsn::new(2)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16)).await;
    until(&handle, |status| status.phase != SenderPhase::Live).await;
    proxy.black_hole.send_replace(false);
    tokio::time::resume();
    source.until_at_target(2).await;
}

/// The receiver goes and comes back at the same address: the sender needs no help.
#[tokio::test]
async fn a_receiver_that_restarts_is_found_again() {
    let rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    let handle = rig.send(rig.address, &source);
    source.write(1, 10);
    source.until_at_target(1).await;
    rig.shutdown.cancel();
    rig.server.await.expect("ends");
    assert!(!rig.sink.is_open(source.replica()), "the sink was told");
    until(&handle, |status| status.phase != SenderPhase::Live).await;
    source.write(1, 10);
    let refused = until(&handle, |status| status.connect_error.is_some()).await;
    assert!(refused.connect_error.expect("set").contains(&rig.address.to_string()));
    let listener = TcpListener::bind(rig.address).await.expect("free again");
    let _again = Rig::on(rig.fleet, listener, rig.agent, rig.target, rig.sink);
    source.until_at_target(2).await;
}

/// Certificates of both sides are rotated beneath a running session: it goes on as if nothing had
/// happened, and the next one, which shows the new ones, needs no restart of anybody.
#[tokio::test]
async fn rotated_certificates_interrupt_nothing() {
    let rig = Rig::new().await;
    let proxy = Proxy::new(rig.address, Fault::None).await;
    let source = MemorySource::new(identity(1));
    let handle = rig.send(proxy.address, &source);
    source.write(1, 10);
    source.until_at_target(1).await;
    let before = until(&handle, |status| status.connected_since.is_some()).await;
    for round in 0..3 {
        rig.fleet.renew(&rig.agent);
        rig.fleet.renew(&rig.target);
        source.write(1, 10);
        source.until_at_target(2 + round).await;
    }
    assert_eq!(handle.status().borrow().connected_since, before.connected_since, "no new session");
    // The next session: a cut, and the same proxy carries it on.
    proxy.cut();
    source.write(1, 10);
    source.until_at_target(5).await;
    let after = until(&handle, |status| status.phase == SenderPhase::Live).await;
    assert!(after.connected_since > before.connected_since, "{after:?}");
}

/// Strangers and noise harm nobody.
#[tokio::test]
async fn noise_and_strangers_are_turned_away() {
    let rig = Rig::new().await;
    let mut noise = TcpStream::connect(rig.address).await.expect("listens");
    noise.write_all(&[0x41; 4096]).await.expect("connected");
    let mut config = SenderConfig {
        limiter: Arc::new(Limiter::new(None)),
        address: rig.address.to_string(),
        tls: Fleet::new().member(Role::Agent).client,
        compression: Compression::Off,
        options: SenderOptions::default(),
    };
    let stranger = MemorySource::new(identity(2));
    let turned_away = run_sender(config.clone(), Arc::clone(&stranger) as Arc<_>);
    until(&turned_away, |status| status.connect_error.is_some()).await;
    config.tls = Arc::clone(&rig.agent.client);
    let source = MemorySource::new(identity(1));
    let _handle = run_sender(config, Arc::clone(&source) as Arc<_>);
    source.write(1, 10);
    source.until_at_target(1).await;
    assert!(!rig.sink.is_open(stranger.replica()));
}
