//! Two sites, and a machine whose log a test writes by hand.
#![allow(dead_code, unreachable_pub, reason = "shared by the tests of this crate")]

use bytes::Bytes;
use landfall_api_types::ApiError;
use landfall_api_types::alert::Condition;
use landfall_api_types::node::ReplicaReport;
use landfall_api_types::order::{MtCreate, Order, OrderOutcome, ReplicaPosition};
use landfall_api_types::request::PointChoice;
use landfall_api_types::resource::{Branch, Disk};
use landfall_master_target::{ReverseStarter, Sink, Target, TargetOptions};
use landfall_repl::{
    Batch, ImageData, LogSink, ReceiverPosition, Refusal, SessionToken, SourceIdentity,
};
use landfall_transport::testing::MemberTls;
use landfall_transport::{ReceiverConfig, serve_receiver};
use landfall_types::{
    BranchId, ByteRange, Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId,
    Incarnation, InstanceId, Lineage, Lsn, MachineId, Marker, MarkerKind, Record, ReplicaId,
    WindowClose, WindowId, WindowMode, WindowOpen, WindowReason,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const DISK_BYTES: u64 = 4 << 20;

pub fn epoch(number: u64) -> Epoch {
    Epoch { number, id: EpochId::new(number * 0x77), parent: None }
}

pub fn branch_of(outcome: OrderOutcome) -> Branch {
    match outcome {
        OrderOutcome::Branch(branch) => branch,
        other => panic!("{other:?}"),
    }
}

pub fn expect_code(outcome: Result<OrderOutcome, ApiError>, code: &str) {
    match outcome {
        Err(error) => assert_eq!(error.code, code, "{error}"),
        Ok(outcome) => panic!("{outcome:?} instead of {code}"),
    }
}

/// A master target with its listener and its socket.
pub struct Site {
    pub dir: TempDir,
    pub tls: MemberTls,
    pub target: Arc<Target>,
    pub address: String,
    nbd: Option<landfall_nbd::Listener>,
    shutdown: CancellationToken,
}

impl Site {
    pub async fn open(tls: &MemberTls) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        Self::open_in(dir, tls.clone()).await
    }

    pub async fn open_in(dir: TempDir, tls: MemberTls) -> Self {
        let state = dir.path().join("state");
        std::fs::create_dir_all(&state).expect("made");
        let mut options = TargetOptions::new(state, dir.path().join("retention"));
        options.segment_bytes = 1 << 20;
        let socket = options.nbd_socket();
        let starter = ReverseStarter { tls: Arc::clone(&tls.client) };
        let target = Target::open(options, Some(starter)).await.expect("opened");
        let nbd = target.nbd().listen_unix(&socket).expect("listens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let config = ReceiverConfig::new(Arc::clone(&tls.server), Arc::new(|_, _| Ok(())));
        let shutdown = CancellationToken::new();
        let sink = Arc::new(Sink::new(Arc::clone(&target)));
        tokio::spawn(serve_receiver(listener, config, sink, shutdown.clone()));
        target.resume_reverse().await;
        Self { dir, tls, target, address, nbd: Some(nbd), shutdown }
    }

    /// Ends the target, and returns when nothing holds it any more: until then its logs are
    /// claimed.
    pub async fn stop(&mut self) -> TempDir {
        self.shutdown.cancel();
        self.target.nbd().shutdown().await;
        self.nbd = None;
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("temp dir"));
        let other = Self::open(&self.tls).await;
        let former = Arc::downgrade(&std::mem::replace(self, other).target);
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        while former.strong_count() > 0 {
            interval.tick().await;
        }
        dir
    }

    pub async fn restart(&mut self) {
        let dir = self.stop().await;
        *self = Self::open_in(dir, self.tls.clone()).await;
        // A client that was cut off holds its branch until it has hung up or its time for that is
        // over. In the product the process has ended, and everything with it.
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        let mut waited = 0;
        while !self.target.report(&self.address).await.problems.is_empty() && waited < 1000 {
            interval.tick().await;
            self.target.retry_problems().await;
            waited += 1;
        }
        if waited > 0 {
            self.target.resume_reverse().await;
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("state/nbd.sock")
    }

    /// Where a replica lies on the retention volume.
    pub fn replica_dir(&self, replica: ReplicaId) -> PathBuf {
        self.dir.path().join(format!("retention/replica-{replica}"))
    }

    /// The image that the target has made itself.
    pub fn image(&self, replica: ReplicaId, disk: u16) -> PathBuf {
        self.dir.path().join(format!("state/images/{replica}-{disk}.img"))
    }

    pub async fn try_order(&self, order: Order) -> Result<OrderOutcome, ApiError> {
        self.target.carry_out(order).await
    }
    pub async fn order(&self, order: Order) -> OrderOutcome {
        let told = format!("{order:?}");
        self.try_order(order).await.unwrap_or_else(|error| panic!("{told}: {error}"))
    }
    pub async fn position(&self, order: Order) -> ReplicaPosition {
        match self.order(order).await {
            OrderOutcome::Position(position) => position,
            other => panic!("{other:?}"),
        }
    }

    pub async fn report(&self, replica: ReplicaId) -> ReplicaReport {
        let report = self.target.report(&self.address).await;
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        report.replicas.into_iter().find(|report| report.replica == replica).expect("here")
    }

    /// What it says is wrong and how bad that is.
    pub async fn conditions(&self) -> Vec<Condition> {
        self.target.report(&self.address).await.conditions
    }

    /// Does what nobody orders, as the process does, until it is cancelled.
    pub fn keep_in_shape(&self) -> CancellationToken {
        let shutdown = CancellationToken::new();
        tokio::spawn(Arc::clone(&self.target).maintain(shutdown.clone()));
        shutdown
    }

    /// Waits for a state that has no event of its own.
    pub async fn wait_until(
        &self,
        replica: ReplicaId,
        there: impl Fn(&ReplicaReport) -> bool,
    ) -> ReplicaReport {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..1500 {
            interval.tick().await;
            let report = self.report(replica).await;
            if there(&report) {
                return report;
            }
        }
        panic!("not reached within 30 s: {:?}", self.report(replica).await);
    }

    pub fn sink(&self) -> Sink {
        Sink::new(Arc::clone(&self.target))
    }

    pub async fn refused(&self, identity: &SourceIdentity) -> &'static str {
        self.sink().open(identity).await.expect_err("refused").code()
    }
}

/// A protected machine as its agent would present it.
pub struct Machine {
    pub replica: ReplicaId,
    machine: MachineId,
    instance: InstanceId,
    lineage: Lineage,
    incarnation: Incarnation,
    base: Lsn,
    chains: Vec<Chain>,
    records: Vec<Record>,
    sent: usize,
    session: Option<SessionToken>,
    pub disks: Vec<Vec<u8>>,
}

impl Machine {
    pub fn new() -> Self {
        Self::with_disks_of(DISK_BYTES)
    }

    /// Two disks of so many bytes.
    pub fn with_disks_of(bytes: u64) -> Self {
        Self {
            replica: ReplicaId::generate(),
            machine: MachineId::generate(),
            instance: InstanceId::from_bytes([5; 16]),
            lineage: Lineage::root(epoch(1)),
            incarnation: Incarnation::new(11),
            base: Lsn::ZERO,
            chains: vec![Chain::ROOT],
            records: vec![],
            sent: 0,
            session: None,
            disks: vec![vec![0; bytes as usize]; 2],
        }
    }

    pub fn identity(&self) -> SourceIdentity {
        SourceIdentity {
            replica: self.replica,
            lineage: self.lineage.clone(),
            incarnation: self.incarnation,
            instance: self.instance,
        }
    }

    fn api_disks(&self) -> Vec<Disk> {
        let size_bytes = self.disks[0].len() as u64;
        let disk = |index: u16| Disk {
            index: DiskIndex(index),
            id: DiskId::from_bytes([index as u8 + 1; 16]),
            path: format!("/dev/disk-{index}"),
            geometry: DiskGeometry { size_bytes, sector_bytes: 512 },
        };
        vec![disk(0), disk(1)]
    }

    pub fn create(&self) -> Order {
        Order::MtCreate(MtCreate {
            replica: self.replica,
            machine: self.machine,
            machine_name: "web".into(),
            instance: self.instance,
            disks: self.api_disks(),
            images: vec![None, None],
            lineage: self.lineage.clone(),
            base: Lsn::ZERO,
            base_chain: Chain::ROOT,
            retention: landfall_types::RetentionPolicy::for_seconds(3600),
            encrypt: None,
        })
    }

    pub fn lsn(&self) -> Lsn {
        self.base.plus(self.records.len() as u64)
    }

    fn push(&mut self, make: impl FnOnce(Lsn) -> Record) -> Lsn {
        let record = make(self.lsn().next());
        let chain = record.chain(*self.chains.last().expect("one"));
        self.chains.push(chain);
        self.records.push(record);
        self.lsn()
    }

    pub fn write(&mut self, disk: u16, offset: u64, byte: u8, length: usize) {
        let data = vec![byte; length];
        self.disks[usize::from(disk)][offset as usize..][..length].copy_from_slice(&data);
        self.push(|lsn| Record::write(lsn, DiskIndex(disk), offset, data.into()));
    }

    pub fn marker(&mut self) -> Lsn {
        let time_unix_ns = self.lsn().get() * 1_000_000;
        let kind = MarkerKind::CrashConsistent;
        let marker = Marker { kind, time_unix_ns, name: None, group: None };
        self.push(|lsn| Record::control(lsn, &Control::Marker(marker)))
    }

    async fn session(&mut self, site: &Site) -> SessionToken {
        if let Some(session) = self.session {
            return session;
        }
        let (session, position) = site.sink().open(&self.identity()).await.expect("admitted");
        assert_eq!(position.durable, self.base.plus(self.sent as u64));
        self.session = Some(session);
        session
    }

    /// Another session, whatever became of the one before, and what it begins with.
    pub async fn open_session(&mut self, site: &Site) -> (SessionToken, ReceiverPosition) {
        let opened = site.sink().open(&self.identity()).await.expect("admitted");
        assert_eq!(opened.1.durable, self.base.plus(self.sent as u64));
        self.session = Some(opened.0);
        opened
    }

    /// What an agent answers to a target whose copy has rotted: a window over exactly that.
    pub fn answer(&mut self, rotten: &[(DiskIndex, ByteRange)]) -> Lsn {
        let window = WindowId(self.lsn().next().get());
        let open = WindowOpen {
            window,
            reason: WindowReason::Rotten,
            mode: WindowMode::Copy,
            disks: vec![0, 1],
            into_image: false,
        };
        self.push(|lsn| Record::control(lsn, &Control::WindowOpen(open)));
        for (disk, range) in rotten {
            let (start, end) = (range.start as usize, range.end as usize);
            let data = self.disks[usize::from(disk.0)][start..end].to_vec();
            self.push(|lsn| Record::write(lsn, *disk, range.start, data.into()).as_catch_up());
        }
        let close = WindowClose { window, exact: true };
        self.push(|lsn| Record::control(lsn, &Control::WindowClose(close)));
        self.marker()
    }

    /// After a refusal: the next records go to a new session, which begins where the site says.
    pub fn hang_up(&mut self) {
        self.session = None;
    }

    /// Sends one batch of what is left; `None` where there is nothing.
    pub async fn try_send(&mut self, site: &Site, count: usize) -> Option<Result<(), Refusal>> {
        if self.session.is_none() {
            let opened = site.sink().open(&self.identity()).await;
            let (session, position) = match opened {
                Ok(opened) => opened,
                Err(refusal) => return Some(Err(refusal)),
            };
            self.session = Some(session);
            let durable = (position.durable.get() - self.base.get()) as usize;
            assert!(durable >= self.sent, "what was acknowledged is there");
            self.sent = durable;
        }
        let end = self.records.len().min(self.sent + count);
        if end == self.sent {
            return None;
        }
        let session = self.session.expect("just opened");
        let batch = Batch {
            epoch: self.lineage.epoch(),
            incarnation: self.incarnation,
            chain_before: self.chains[self.sent],
            source_position: 0,
            records: self.records[self.sent..end].to_vec(),
        };
        let sent = match site.sink().append(session, batch).await {
            Ok(()) => site.sink().flush(session).await.map(drop),
            Err(refusal) => Err(refusal),
        };
        if sent.is_ok() {
            self.sent = end;
        }
        Some(sent)
    }

    pub async fn send(&mut self, site: &Site) {
        let session = self.session(site).await;
        let batch = Batch {
            epoch: self.lineage.epoch(),
            incarnation: self.incarnation,
            chain_before: self.chains[self.sent],
            source_position: 0,
            records: self.records[self.sent..].to_vec(),
        };
        site.sink().append(session, batch).await.expect("taken");
        let durable = site.sink().flush(session).await.expect("flushed");
        assert_eq!(durable.at_target, self.lsn());
        self.sent = self.records.len();
    }

    pub async fn first_copy(&mut self, site: &Site) {
        let window = WindowId(1);
        let open = WindowOpen {
            window,
            reason: WindowReason::FirstCopy,
            mode: WindowMode::Copy,
            disks: vec![0, 1],
            into_image: true,
        };
        self.push(|lsn| Record::control(lsn, &Control::WindowOpen(open)));
        self.send(site).await;
        let session = self.session(site).await;
        let sink = site.sink();
        for disk in [0, 1] {
            // All under way at once: they begin in order and share flushes.
            let bytes = self.disks[0].len() as u64;
            let pieces = (0..bytes).step_by(1 << 20).map(|offset| ImageData {
                window,
                disk: DiskIndex(disk),
                offset,
                length: 1 << 20,
                data: (disk == 0).then(|| Bytes::from(vec![0; 1 << 20])),
            });
            for piece in pieces {
                sink.image(session, piece).await.expect("durable");
            }
        }
        let close = WindowClose { window, exact: true };
        self.push(|lsn| Record::control(lsn, &Control::WindowClose(close)));
        self.marker();
        self.send(site).await;
    }

    pub fn test_branch(&self, name: &str, point: PointChoice) -> Order {
        let branch = BranchId::generate();
        Order::MtTestBranch { replica: self.replica, branch, name: name.into(), point }
    }

    pub fn promote(&self, number: u64, point: PointChoice) -> Order {
        Order::MtPromote {
            replica: self.replica,
            branch: BranchId::generate(),
            name: format!("epoch-{number}"),
            point,
            epoch: epoch(number),
        }
    }

    pub fn release(&self, to: ReplicaId, at: &ReplicaPosition, number: u64) -> Order {
        Order::MtRelease { replica: to, lsn: at.durable, chain: at.chain, epoch: epoch(number) }
    }

    /// The machine is at home again, in the epoch that the recovery site follows.
    pub async fn continue_in(&mut self, site: &Site, at: &ReplicaPosition) {
        self.lineage = site.report(self.replica).await.lineage;
        self.instance = InstanceId::from_bytes([77; 16]);
        self.incarnation = Incarnation::new(12);
        self.base = at.durable;
        self.chains = vec![at.chain];
        self.records.clear();
        self.sent = 0;
        self.session = None;
    }

    /// Opens a second session and sees the first one refused.
    pub async fn supersede(&mut self, site: &Site) {
        let first = self.session(site).await;
        let (second, _) = site.sink().open(&self.identity()).await.expect("admitted");
        let refused = site.sink().flush(first).await;
        assert_eq!(refused, Err(Refusal::Superseded));
        self.write(0, 0, 1, 512);
        let batch = Batch {
            epoch: self.lineage.epoch(),
            incarnation: self.incarnation,
            chain_before: self.chains[self.sent],
            source_position: 0,
            records: self.records[self.sent..].to_vec(),
        };
        assert_eq!(site.sink().append(first, batch.clone()).await, Err(Refusal::Superseded));
        site.sink().append(second, batch).await.expect("taken");
        site.sink().close(first).await;
        assert!(site.report(self.replica).await.connected, "the newer session is still there");
        site.sink().close(second).await;
        assert!(!site.report(self.replica).await.connected);
    }
}

/// The site that the machine came from, with its old disks.
pub struct Home {
    pub site: Site,
    pub replica: ReplicaId,
    pub instance: InstanceId,
    before: std::cell::RefCell<Vec<Vec<u8>>>,
}

impl Home {
    pub async fn open(tls: &MemberTls, disks: &[Vec<u8>]) -> Self {
        let site = Site::open(tls).await;
        let home = Self {
            site,
            replica: ReplicaId::generate(),
            instance: InstanceId::from_bytes([6; 16]),
            before: disks.to_vec().into(),
        };
        home.put();
        home
    }

    pub fn path(&self, disk: usize) -> PathBuf {
        self.site.dir.path().join(format!("old-disk-{disk}"))
    }
    fn put(&self) {
        for (disk, bytes) in self.before.borrow().iter().enumerate() {
            std::fs::write(self.path(disk), bytes).expect("written");
        }
    }

    /// Something else stands there than on the branch.
    pub fn scribble(&self, disk: usize, offset: usize, length: usize) {
        self.before.borrow_mut()[disk][offset..offset + length].fill(0xee);
        self.put();
    }

    pub fn disks(&self) -> Vec<Vec<u8>> {
        (0..2).map(|disk| std::fs::read(self.path(disk)).expect("there")).collect()
    }

    pub fn untouched(&self) -> bool {
        self.disks() == *self.before.borrow()
    }

    pub fn create(&self, machine: &Machine, base: &ReplicaPosition) -> Order {
        let image = |disk| Some(self.path(disk).to_string_lossy().into_owned());
        Order::MtCreate(MtCreate {
            replica: self.replica,
            machine: machine.machine,
            machine_name: "web".into(),
            instance: self.instance,
            disks: machine.api_disks(),
            images: vec![image(0), image(1)],
            lineage: base.lineage.clone(),
            base: base.durable,
            base_chain: base.chain,
            retention: landfall_types::RetentionPolicy::for_seconds(3600),
            encrypt: None,
        })
    }
}
