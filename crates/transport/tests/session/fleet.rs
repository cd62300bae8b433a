//! Certificates, a source and a sink in memory, and a proxy that breaks connections.

use async_trait::async_trait;
use bytes::Bytes;
use landfall_pki::{Credentials, FleetAuthority, KeyAndRequest, Member, PeerIdentity, Role, tls};
use landfall_repl::{
    Admission, Batch, Durable, HashReply, HashRequest, ImageData, LogSink, LogSource,
    ReceiverPosition, Refusal, SessionToken, SourceIdentity, Standing, admit,
};
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn, NodeId, Record,
    ReplicaId,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use tokio::sync::watch;

pub(crate) struct Fleet {
    pub(crate) server: Arc<rustls::ServerConfig>,
    pub(crate) client: Arc<rustls::ClientConfig>,
    pub(crate) agent: NodeId,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let authority =
            FleetAuthority::open_or_create(dir.path(), SystemTime::now()).expect("made");
        let (agent, target) = (NodeId::generate(), NodeId::generate());
        let agent_credentials = member(&authority, dir.path(), agent, Role::Agent);
        let target_credentials = member(&authority, dir.path(), target, Role::MasterTarget);
        Self {
            server: tls::data_server(&target_credentials, &[Role::Agent]).expect("config"),
            client: tls::data_client(&agent_credentials, &[Role::MasterTarget]).expect("config"),
            agent,
        }
    }
}

fn member(authority: &FleetAuthority, dir: &Path, id: NodeId, role: Role) -> Credentials {
    let made = KeyAndRequest::generate().expect("key");
    let signed = authority
        .sign(&made.request_pem, PeerIdentity { role, node: id }, SystemTime::now())
        .expect("signed");
    let member =
        Member { id, role, name: role.name().into(), server_url: "https://localhost:1".into() };
    Credentials::create(&dir.join(id.to_string()), &member, &made.key_pem, &signed).expect("kept")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds a lock")
}

pub(crate) fn identity(replica: u128) -> SourceIdentity {
    SourceIdentity {
        replica: ReplicaId::from_bytes(replica.to_be_bytes()),
        lineage: Lineage::root(Epoch { number: 1, id: EpochId::new(1), parent: None }),
        incarnation: Incarnation::new(1),
        instance: InstanceId::from_bytes([1; 16]),
    }
}

pub(crate) fn record(lsn: u64, bytes: usize) -> Record {
    let fill = u8::try_from(lsn % 251).expect("small");
    Record::write(Lsn::new(lsn), DiskIndex(0), lsn * 512, Bytes::from(vec![fill; bytes]))
}

/// Records 1 …, all of them kept.
pub(crate) struct MemorySource {
    identity: SourceIdentity,
    records: watch::Sender<Vec<Record>>,
    pub(crate) durable: watch::Sender<Durable>,
    pub(crate) read: Mutex<u64>,
}

impl MemorySource {
    pub(crate) fn new(identity: SourceIdentity) -> Arc<Self> {
        let records = watch::Sender::new(vec![]);
        let durable = watch::Sender::new(Durable::default());
        Arc::new(Self { identity, records, durable, read: Mutex::new(0) })
    }

    pub(crate) fn write(&self, count: u64, bytes: usize) {
        self.records.send_modify(|records| {
            let next = records.len() as u64 + 1;
            records.extend((next..next + count).map(|lsn| record(lsn, bytes)));
        });
    }

    pub(crate) async fn until_at_target(&self, lsn: u64) {
        let mut durable = self.durable.subscribe();
        durable.wait_for(|durable| durable.at_target >= Lsn::new(lsn)).await.expect("kept");
    }
}

#[async_trait]
impl LogSource for MemorySource {
    fn identity(&self) -> SourceIdentity {
        self.identity.clone()
    }

    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal> {
        let records = self.records.borrow();
        let durable = usize::try_from(position.durable.get()).expect("small");
        let chain = records.iter().take(durable).fold(Chain::ROOT, |chain, r| r.chain(chain));
        if records.len() < durable || chain != position.chain {
            return Err(Refusal::ChainMismatch { lsn: position.durable });
        }
        Ok(())
    }

    async fn read(&self, from: Lsn, bytes_max: usize) -> Result<Batch, Refusal> {
        let at = usize::try_from(from.get() - 1).expect("small");
        let mut records = self.records.subscribe();
        let records = records.wait_for(|records| records.len() > at).await.expect("kept");
        let chain_before = records[..at].iter().fold(Chain::ROOT, |chain, r| r.chain(chain));
        let mut batch = Batch {
            epoch: self.identity.lineage.epoch(),
            incarnation: self.identity.incarnation,
            chain_before,
            source_position: 0,
            records: vec![],
        };
        for record in &records[at..] {
            if !batch.records.is_empty() && batch.bytes() + record.payload.len() > bytes_max {
                break;
            }
            batch.records.push(record.clone());
        }
        *lock(&self.read) += batch.bytes() as u64;
        Ok(batch)
    }

    fn acknowledged(&self, durable: Durable) {
        self.durable.send_replace(durable);
    }
}

/// Replicas that appear when somebody sends for them; every record is checked against the one before.
#[derive(Default)]
pub(crate) struct MemorySink {
    replicas: Mutex<HashMap<ReplicaId, Held>>,
    /// While true, appends wait.
    pub(crate) full: watch::Sender<bool>,
    pub(crate) instance: Mutex<Option<InstanceId>>,
    pub(crate) pieces: Mutex<Vec<ImageData>>,
}

#[derive(Default)]
struct Held {
    records: Vec<Record>,
    durable: usize,
    serial: u64,
    open: bool,
}

impl MemorySink {
    pub(crate) fn durable_records(&self, replica: ReplicaId) -> Vec<Record> {
        let replicas = lock(&self.replicas);
        replicas.get(&replica).map_or(vec![], |held| held.records[..held.durable].to_vec())
    }

    pub(crate) fn is_open(&self, replica: ReplicaId) -> bool {
        lock(&self.replicas).get(&replica).is_some_and(|held| held.open)
    }

    fn with<T>(
        &self,
        session: SessionToken,
        then: impl FnOnce(&mut Held) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut replicas = lock(&self.replicas);
        match replicas.get_mut(&session.replica) {
            Some(held) if held.serial == session.serial => then(held),
            _ => Err(Refusal::Superseded),
        }
    }
}

fn durable(held: &Held) -> Durable {
    let here = Lsn::new(held.durable as u64);
    Durable { here, at_target: here }
}

#[async_trait]
impl LogSink for MemorySink {
    async fn open(
        &self,
        identity: &SourceIdentity,
    ) -> Result<(SessionToken, ReceiverPosition), Refusal> {
        let mut replicas = lock(&self.replicas);
        let held = replicas.entry(identity.replica).or_default();
        let lineage = crate::fleet::identity(0).lineage;
        let (tail, instance) = (Lsn::new(held.durable as u64), *lock(&self.instance));
        let admission = admit(identity, &Standing { lineage: &lineage, tail, instance })?;
        assert_eq!(admission, Admission::Same);
        held.serial += 1;
        held.open = true;
        held.records.truncate(held.durable);
        let position = ReceiverPosition {
            lineage,
            incarnation: identity.incarnation,
            durable: tail,
            chain: held.records.iter().fold(Chain::ROOT, |chain, record| record.chain(chain)),
            source_position: 0,
            durable_at_target: tail,
            image_copy: None,
            open_windows: vec![],
        };
        Ok((SessionToken { replica: identity.replica, serial: held.serial }, position))
    }

    async fn append(&self, session: SessionToken, batch: Batch) -> Result<(), Refusal> {
        let mut full = self.full.subscribe();
        full.wait_for(|full| !full).await.expect("kept");
        self.with(session, |held| {
            assert_eq!(batch.first(), Lsn::new(held.records.len() as u64 + 1), "in order");
            held.records.extend(batch.records);
            Ok(())
        })
    }

    async fn flush(&self, session: SessionToken) -> Result<Durable, Refusal> {
        self.with(session, |held| {
            held.durable = held.records.len();
            Ok(durable(held))
        })
    }

    async fn durable_beyond(&self, _: SessionToken, _: Durable) -> Result<Durable, Refusal> {
        std::future::pending().await
    }

    async fn image(&self, _: SessionToken, piece: ImageData) -> Result<(), Refusal> {
        lock(&self.pieces).push(piece);
        Ok(())
    }

    async fn hash(&self, _: SessionToken, request: HashRequest) -> Result<HashReply, Refusal> {
        if request.disk != DiskIndex(0) {
            return Err(Refusal::Unavailable { reason: "no such disk".into() });
        }
        let blocks = request.length.div_ceil(request.block_bytes.into());
        let hash = |n: u64| u128::from(request.offset + n).to_be_bytes();
        Ok(HashReply { hashes: (0..blocks).map(hash).collect() })
    }

    async fn close(&self, session: SessionToken) {
        let mut replicas = lock(&self.replicas);
        if let Some(held) = replicas.get_mut(&session.replica)
            && held.serial == session.serial
        {
            held.open = false;
        }
    }
}
