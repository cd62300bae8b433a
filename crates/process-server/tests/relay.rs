//! A source in memory, a process server with its spool on disk, and a target in memory, over real
//! connections.

mod common;

use bytes::Bytes;
use common::{Listening, open, try_open};
use landfall_api_types::order::OrderOutcome;
use landfall_blockdev::FsDir;
use landfall_journal::{JournalError, Log};
use landfall_pki::Role;
use landfall_process_server::{ProcessServer, RelayError};
use landfall_repl::{
    Batch, HashRequest, ImageData, LogSink as _, Refusal, SenderOptions, SenderPhase,
    SourceIdentity,
};
use landfall_transport::testing::{
    Fleet, MemberTls, MemorySink, MemorySource, identity, lock, record,
};
use landfall_transport::{Limiter, SenderConfig, SenderHandle, SenderStatus, run_sender};
use landfall_types::{
    Control, DiskIndex, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn, Record, ReplicaId,
    WindowId, WindowMode, WindowOpen, WindowReason,
};
use landfall_wire::Compression;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const CACHE_BYTES: u64 = 64 << 20;

struct Rig {
    dir: TempDir,
    agent: MemberTls,
    relay_tls: MemberTls,
    target_tls: MemberTls,
    sink: Arc<MemorySink>,
    target: Option<Listening>,
    target_address: SocketAddr,
    relay: Arc<ProcessServer>,
    upstream: Option<Listening>,
    upstream_address: SocketAddr,
}

impl Rig {
    async fn new() -> Self {
        Self::with_cache(CACHE_BYTES).await
    }

    async fn with_cache(cache_bytes: u64) -> Self {
        let fleet = Fleet::new();
        let dir = tempfile::tempdir().expect("temp dir");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (agent, relay_tls) = (fleet.member(Role::Agent), fleet.member(Role::ProcessServer));
        let target_tls = fleet.member(Role::MasterTarget);
        let sink = Arc::new(MemorySink::default());
        let target = Listening::at(any, &target_tls, Arc::clone(&sink) as _).await;
        let relay = open(&dir, &relay_tls, cache_bytes).await;
        let upstream = Listening::at(any, &relay_tls, Arc::clone(&relay) as _).await;
        Self {
            dir,
            agent,
            relay_tls,
            target_tls,
            sink,
            target_address: target.address,
            target: Some(target),
            relay,
            upstream_address: upstream.address,
            upstream: Some(upstream),
        }
    }

    async fn route(&self, identity: &SourceIdentity) {
        let next_hop = self.target_address.to_string();
        self.relay
            .route(identity.replica, next_hop, &identity.lineage, identity.instance)
            .await
            .expect("kept");
    }

    fn send(&self, source: &Arc<MemorySource>) -> SenderHandle {
        let config = SenderConfig {
            limiter: Arc::new(Limiter::new(None)),
            address: self.upstream_address.to_string(),
            tls: Arc::clone(&self.agent.client),
            compression: Compression::Adaptive,
            options: SenderOptions::default(),
        };
        run_sender(config, Arc::clone(source) as _)
    }

    async fn target_goes(&mut self) {
        self.target.take().expect("there").end().await;
    }

    async fn target_comes(&mut self) {
        let listening =
            Listening::at(self.target_address, &self.target_tls, Arc::clone(&self.sink) as _);
        self.target = Some(listening.await);
    }

    /// The relay's process ends and starts again; `lost`: without its spool.
    async fn restart_relay(&mut self, replica: ReplicaId, lost: bool) {
        self.upstream.take().expect("there").end().await;
        self.relay.stop().await;
        if lost {
            let route = self.dir.path().join(replica.to_string());
            for entry in std::fs::read_dir(route).expect("there") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    std::fs::remove_dir_all(path).expect("removable");
                }
            }
        }
        // A process that has ended holds no spool; in this one the former relay has to be let go.
        let elsewhere = TempDir::new().expect("temp dir");
        self.relay = open(&elsewhere, &self.relay_tls, CACHE_BYTES).await;
        self.relay = loop {
            match try_open(&self.dir, &self.relay_tls, CACHE_BYTES).await {
                Err(RelayError::Spool(JournalError::InUse { .. })) => {
                    tokio::task::yield_now().await;
                }
                opened => break opened.expect("opens"),
            }
        };
        let listening =
            Listening::at(self.upstream_address, &self.relay_tls, Arc::clone(&self.relay) as _);
        self.upstream = Some(listening.await);
    }

    async fn drain(&self, replica: ReplicaId, wait_ms: u64) -> (u64, u64, f64) {
        match self.relay.drain(replica, Duration::from_millis(wait_ms)).await.expect("drains") {
            OrderOutcome::Drained { bytes, records, age_s } => (bytes, records, age_s),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the target; everything that can go wrong on the way shows as a timeout with the
    /// reports.
    async fn until_held(&self, replica: ReplicaId, records: usize) {
        let held = async {
            while self.sink.durable_records(replica).len() < records {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), held).await.is_err() {
            panic!("not delivered: {:#?}", self.relay.reports());
        }
    }
}

async fn until(handle: &SenderHandle, what: impl FnMut(&SenderStatus) -> bool) -> SenderStatus {
    let mut status = handle.status();
    let found = tokio::time::timeout(Duration::from_secs(20), status.wait_for(what)).await;
    found.expect("in time").expect("the sender runs").clone()
}

fn expected(records: u64, bytes: usize) -> Vec<Record> {
    (1..=records).map(|lsn| record(lsn, bytes)).collect()
}

/// The lineage of [`identity`] with a second epoch that forks at `fork`.
fn second(fork: u64) -> Lineage {
    let first = identity(0).lineage;
    let parent = Some(first.epoch().id);
    let epoch = Epoch { number: 2, id: EpochId::new(2), parent };
    first.extend(epoch, Lsn::new(fork)).expect("rises")
}

/// RQ-PS-1, and guards P2: what is acknowledged at the target is what the target holds; the rest
/// passes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_a_first_copy_and_questions_cross_the_relay() {
    let rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    rig.route(&identity(1)).await;
    let handle = rig.send(&source);
    source.write(500, 900);
    source.until_at_target(500).await;
    assert_eq!(rig.sink.durable_records(source.replica()), expected(500, 900));
    let piece = |n: u64| ImageData {
        window: WindowId(1),
        disk: DiskIndex(0),
        offset: n * 4096,
        length: 4096,
        data: Some(Bytes::from(vec![1; 4096])),
    };
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.image(piece(n)).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("runs"), Ok(()));
    }
    assert_eq!(lock(&rig.sink.pieces).len(), 50);
    let ask = HashRequest {
        after: Lsn::new(500),
        disk: DiskIndex(0),
        offset: 0,
        length: 9000,
        block_bytes: 4096,
    };
    assert_eq!(handle.hash(ask).await.expect("answered").hashes.len(), 3);
    let report = rig.relay.reports().remove(0);
    assert!(report.upstream && report.downstream && report.refusal.is_none(), "{report:?}");
    assert_eq!((report.durable_here, report.spool_bytes), (Lsn::new(500), 0));
    assert!(report.cache_free > 0.99 && report.rtt_ms.is_some(), "{report:?}");
}

/// T-14: the machine dies while the relay holds what it acknowledged. Drained before the promotion,
/// nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_what_was_acknowledged_is_delivered_before_the_promotion() {
    let mut rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    rig.route(&identity(1)).await;
    let handle = rig.send(&source);
    source.write(10, 700);
    source.until_at_target(10).await;
    rig.target_goes().await;
    source.write(200, 700);
    source.until_here(210).await;
    handle.stop().await;
    let (bytes, records, age_s) = rig.drain(source.replica(), 10).await;
    assert_eq!((bytes, records), (200 * 732, 200));
    assert!(age_s > 0.0);
    // Whoever comes back now is not taken in: it would move the goal.
    let again = rig.send(&source);
    let refused = until(&again, |status| status.refusal.is_some()).await;
    assert_eq!(refused.refusal.expect("set").code(), "not-replicating");
    again.stop().await;
    // The line comes back, and the drain is repeated, as a job does: now it waits for the end.
    rig.target_comes().await;
    assert_eq!(rig.drain(source.replica(), 20_000).await, (0, 0, 0.0));
    assert_eq!(rig.sink.durable_records(source.replica()), expected(210, 700));
}

/// T-14: promoted without a drain. What the target refuses is kept as divergence, readable; the old
/// epoch is refused here, too, for ever; and the new epoch's sender gets a spool of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_what_is_refused_later_is_kept_as_divergence() {
    let mut rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    let replica = source.replica();
    rig.route(&identity(1)).await;
    let old = rig.send(&source);
    source.write(10, 700);
    source.until_at_target(10).await;
    rig.target_goes().await;
    source.write(20, 700);
    source.until_here(30).await;
    *lock(&rig.sink.lineage) = second(10);
    rig.target_comes().await;
    let status = until(&old, |status| status.phase == SenderPhase::Stopped).await;
    assert_eq!(
        status.refusal.expect("set").code(),
        "fenced",
        "the machine learns it from the relay"
    );
    assert_eq!(rig.sink.durable_records(replica).len(), 10);

    rig.restart_relay(replica, false).await;
    let again = rig.send(&source);
    let status = until(&again, |status| status.phase == SenderPhase::Stopped).await;
    assert_eq!(status.refusal.expect("set").code(), "fenced", "also after a restart");

    let home = SourceIdentity {
        lineage: second(10),
        incarnation: Incarnation::new(2),
        instance: InstanceId::from_bytes([2; 16]),
        ..identity(1)
    };
    rig.route(&home).await;
    let returned = MemorySource::new(identity(1));
    returned.write(10, 700);
    *lock(&returned.identity) = home;
    let _new = rig.send(&returned);
    returned.write(5, 700);
    returned.until_at_target(15).await;
    assert_eq!(rig.sink.durable_records(replica), expected(15, 700));
    let kept = rig.relay.divergence(replica);
    let [divergence] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((divergence.through, divergence.epoch.number), (Lsn::new(30), 1));
    let path = rig.dir.path().join(replica.to_string()).join(&divergence.dir);
    let (log, _) = Log::open(Arc::new(FsDir::open(path).expect("there"))).expect("readable");
    let batch = log.batch(Lsn::new(11), 1 << 20).expect("readable").expect("there");
    assert_eq!(batch.records, expected(30, 700)[10..]);
    let refused = rig.relay.unroute(replica, false).await;
    assert!(matches!(refused, Err(RelayError::NotDelivered { .. })), "not without being told");
    rig.relay.unroute(replica, true).await.expect("discarded");
    assert!(rig.relay.reports().is_empty());
}

/// Guards P2: a relay that restarts without target and configuration server has all that it
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_restarts_goes_on_by_itself() {
    let mut rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    rig.route(&identity(1)).await;
    let _handle = rig.send(&source);
    source.write(10, 700);
    source.until_at_target(10).await;
    rig.target_goes().await;
    source.write(90, 700);
    source.until_here(100).await;
    rig.restart_relay(source.replica(), false).await;
    // The source goes on while the target is still away: the spool answers alone.
    source.write(20, 700);
    source.until_here(120).await;
    assert_eq!(rig.relay.reports().remove(0).durable_here, Lsn::new(120));
    rig.target_comes().await;
    source.until_at_target(120).await;
    assert_eq!(rig.sink.durable_records(source.replica()), expected(120, 700));
}

/// Guards "never a skip" (fault F6): a relay that lost its spool resumes from the target's
/// position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_spool_is_filled_again_from_the_targets_position() {
    let mut rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    rig.route(&identity(1)).await;
    let handle = rig.send(&source);
    source.write(10, 700);
    source.until_at_target(10).await;
    rig.target_goes().await;
    source.write(90, 700);
    source.until_here(100).await;
    rig.restart_relay(source.replica(), true).await;
    // Nobody knows where to go on before the target is asked.
    let waiting = until(&handle, |status| status.refusal.is_some()).await;
    assert_eq!(waiting.refusal.expect("set").code(), "unavailable");
    rig.target_comes().await;
    source.until_at_target(100).await;
    assert_eq!(rig.sink.durable_records(source.replica()), expected(100, 700));
}

/// T-11 and "no route, no service".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_clones_are_refused() {
    let rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    let handle = rig.send(&source);
    let status = until(&handle, |status| status.phase == SenderPhase::Stopped).await;
    assert_eq!(status.refusal, Some(Refusal::UnknownReplica(source.replica())));
    rig.route(&identity(1)).await;
    handle.restart().await;
    source.write(1, 10);
    source.until_at_target(1).await;
    let instance = InstanceId::from_bytes([0xcc; 16]);
    let clone = MemorySource::new(SourceIdentity { instance, ..identity(1) });
    let cloned = rig.send(&clone);
    let status = until(&cloned, |status| status.phase == SenderPhase::Stopped).await;
    assert_eq!(status.refusal, Some(Refusal::OtherInstance(instance)));
    source.write(1, 10);
    source.until_at_target(2).await;
    assert_eq!(until(&handle, |status| status.phase == SenderPhase::Live).await.refusal, None);
}

/// RQ-PS-6: at 20 % free nothing more is acknowledged, nothing acknowledged is dropped, and it goes
/// on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_cache_holds_the_source_back() {
    let mut rig = Rig::with_cache(4 << 20).await;
    let source = MemorySource::new(identity(1));
    rig.route(&identity(1)).await;
    let _handle = rig.send(&source);
    source.write(1, 100_000);
    source.until_at_target(1).await;
    rig.target_goes().await;
    source.write(200, 100_000);
    let pressed = async {
        while rig.relay.cache_health().1 > 0.20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), pressed).await.expect("fills");
    let report = rig.relay.reports().remove(0);
    assert!(report.durable_here < Lsn::new(70), "{report:?}");
    assert!(report.spool_bytes < 6 << 20, "{report:?}");
    rig.target_comes().await;
    source.until_at_target(201).await;
    assert_eq!(rig.sink.durable_records(source.replica()), expected(201, 100_000));
    rig.until_held(source.replica(), 201).await;
    assert!(rig.relay.cache_health().1 > 0.99);
}

/// Guards T-4 across a restart: the windows that are open at the spool's end are told to the
/// sender, and a first copy's progress is, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_windows_and_a_first_copy_are_remembered() {
    let mut rig = Rig::new().await;
    let identity = identity(1);
    rig.route(&identity).await;
    let (session, fresh) = rig.relay.open(&identity).await.expect("admitted");
    assert_eq!((fresh.durable, fresh.open_windows.len()), (Lsn::ZERO, 0));
    let window = WindowId(7);
    let open = Control::WindowOpen(WindowOpen {
        window,
        reason: WindowReason::FirstCopy,
        mode: WindowMode::Copy,
        disks: vec![0],
        into_image: true,
    });
    let batch = Batch {
        epoch: identity.lineage.epoch(),
        incarnation: identity.incarnation,
        chain_before: fresh.chain,
        source_position: 77,
        records: vec![Record::control(Lsn::new(1), &open), record(2, 100)],
    };
    rig.relay.append(session, batch.clone()).await.expect("taken");
    rig.relay.append(session, batch.clone()).await.expect("a duplicate is dropped");
    rig.relay.flush(session).await.expect("durable");
    for n in 0..3 {
        let piece =
            ImageData { window, disk: DiskIndex(0), offset: n * 4096, length: 4096, data: None };
        rig.relay.image(session, piece).await.expect("at the target");
    }
    let (_, position) = rig.relay.open(&identity).await.expect("admitted again");
    assert_eq!((position.durable, position.chain), (Lsn::new(2), batch.chain_after()));
    assert_eq!((position.source_position, position.open_windows), (77, vec![window]));
    let copied = position.image_copy.expect("in progress").durable_bytes;
    assert_eq!(copied, [(DiskIndex(0), 3 * 4096)]);
    let late = rig.relay.append(session, batch).await;
    assert_eq!(late, Err(Refusal::Superseded), "the older session is over");

    rig.target_goes().await;
    rig.restart_relay(identity.replica, false).await;
    let (_, position) = rig.relay.open(&identity).await.expect("admitted without the target");
    assert_eq!((position.durable, position.open_windows), (Lsn::new(2), vec![window]));
}

/// T-1 at the relay's disk: other records under the same positions are refused, whatever the
/// session core has let by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_other_records_under_the_same_positions_are_refused() {
    let rig = Rig::new().await;
    let identity = identity(1);
    rig.route(&identity).await;
    let (session, fresh) = rig.relay.open(&identity).await.expect("admitted");
    let batch = |records: Vec<Record>| Batch {
        epoch: identity.lineage.epoch(),
        incarnation: identity.incarnation,
        chain_before: fresh.chain,
        source_position: 0,
        records,
    };
    let first = batch(expected(4, 100));
    rig.relay.append(session, first.clone()).await.expect("taken");
    let other = batch((1..=3).map(|lsn| record(lsn, 99)).collect());
    let lsn = Lsn::new(3);
    assert_eq!(rig.relay.append(session, other).await, Err(Refusal::ChainMismatch { lsn }));
    let mut gap = first.clone();
    gap.records = vec![record(9, 100)];
    let gap = rig.relay.append(session, gap).await;
    let (due, found) = (Lsn::new(5), Lsn::new(9));
    assert_eq!(gap, Err(Refusal::Gap { expected: due, found }));
    rig.relay.append(session, batch(expected(6, 100))).await.expect("two of six are new");
    assert_eq!(rig.relay.flush(session).await.expect("durable").here, Lsn::new(6));
}

/// A long run over many segments: what was delivered is forgotten on disk, too, and a restart still
/// fits the target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivered_segments_are_forgotten() {
    let mut rig = Rig::new().await;
    let source = MemorySource::new(identity(1));
    rig.route(&identity(1)).await;
    let handle = rig.send(&source);
    for _ in 0..6 {
        source.write(40, 250_000);
        let last = source.tail();
        source.until_at_target(last).await;
    }
    handle.stop().await;
    rig.restart_relay(source.replica(), false).await;
    let spool = std::fs::read_dir(rig.dir.path().join(source.replica().to_string()))
        .expect("there")
        .map(|entry| entry.expect("readable").path())
        .find(|path| path.is_dir())
        .expect("a spool");
    let bytes: u64 = std::fs::read_dir(spool)
        .expect("there")
        // What is forgotten between the listing and the look is what the test waits for.
        .map(|entry| entry.expect("readable").metadata().map_or(0, |file| file.len()))
        .sum();
    assert!(bytes < 40 << 20, "{bytes} bytes of 60 MB are kept");
    let _again = rig.send(&source);
    source.write(1, 10);
    source.until_at_target(241).await;
    assert_eq!(rig.sink.durable_records(source.replica()).len(), 241);
}
