//! A source and a sink in memory.

use async_trait::async_trait;
use bytes::Bytes;
use landfall_repl::{
    Admission, Batch, Durable, HashReply, HashRequest, ImageData, LogSink, LogSource,
    ReceiverPosition, Refusal, SessionToken, SourceIdentity, Standing, admit,
};
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, InstanceId, Lineage, Lsn, Record, ReplicaId,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// Locks; a test that panicked has failed anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A sender for this replica, in the first epoch.
#[must_use]
pub fn identity(replica: u128) -> SourceIdentity {
    SourceIdentity {
        replica: ReplicaId::from_bytes(replica.to_be_bytes()),
        lineage: Lineage::root(Epoch { number: 1, id: EpochId::new(1), parent: None }),
        incarnation: Incarnation::new(1),
        instance: InstanceId::from_bytes([1; 16]),
    }
}

/// Record `lsn`: that many bytes which tell its position.
///
/// # Panics
/// Never.
#[must_use]
pub fn record(lsn: u64, bytes: usize) -> Record {
    let fill = u8::try_from(lsn % 251).expect("less than 251");
    Record::write(Lsn::new(lsn), DiskIndex(0), lsn * 512, Bytes::from(vec![fill; bytes]))
}

/// Records 1 …, all of them kept.
#[derive(Debug)]
pub struct MemorySource {
    /// Who sends; takes effect with the next connection.
    pub identity: Mutex<SourceIdentity>,
    records: watch::Sender<Vec<(Record, Epoch)>>,
    /// What was acknowledged last.
    pub durable: watch::Sender<Durable>,
    /// Bytes that were read.
    pub read: Mutex<u64>,
    /// What was refused, in order.
    pub refusals: Mutex<Vec<Refusal>>,
}

impl MemorySource {
    /// With no records yet.
    #[must_use]
    pub fn new(identity: SourceIdentity) -> Arc<Self> {
        Arc::new(Self {
            identity: Mutex::new(identity),
            records: watch::Sender::new(vec![]),
            durable: watch::Sender::new(Durable::default()),
            read: Mutex::new(0),
            refusals: Mutex::new(vec![]),
        })
    }

    /// Its replica.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        lock(&self.identity).replica
    }

    /// Writes that many records of that many bytes each, in the present epoch.
    pub fn write(&self, count: u64, bytes: usize) {
        let epoch = lock(&self.identity).lineage.epoch();
        self.records.send_modify(|records| {
            let next = records.len() as u64 + 1;
            records.extend((next..next + count).map(|lsn| (record(lsn, bytes), epoch)));
        });
    }

    /// Goes back to the first `keep` records, as a machine does that was failed over.
    pub fn keep(&self, keep: usize) {
        self.records.send_modify(|records| records.truncate(keep));
    }

    /// Position of the last record.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.records.borrow().len() as u64
    }

    /// The chain at a position.
    #[must_use]
    pub fn chain_at(&self, lsn: Lsn) -> Option<Chain> {
        let records = self.records.borrow();
        let count = usize::try_from(lsn.get()).ok().filter(|count| *count <= records.len())?;
        Some(records[..count].iter().fold(Chain::ROOT, |chain, (record, _)| record.chain(chain)))
    }

    /// Waits until this is acknowledged by the next hop.
    pub async fn until_here(&self, lsn: u64) {
        self.until(|durable| durable.here >= Lsn::new(lsn)).await;
    }

    /// Waits until this is acknowledged at the target.
    pub async fn until_at_target(&self, lsn: u64) {
        self.until(|durable| durable.at_target >= Lsn::new(lsn)).await;
    }

    async fn until(&self, what: impl FnMut(&Durable) -> bool) {
        // The channel is this source's own: it can't be gone.
        let _ = self.durable.subscribe().wait_for(what).await;
    }
}

#[async_trait]
impl LogSource for MemorySource {
    fn identity(&self) -> SourceIdentity {
        lock(&self.identity).clone()
    }

    async fn resume(&self, position: &ReceiverPosition) -> Result<(), Refusal> {
        if self.chain_at(position.durable) != Some(position.chain) {
            return Err(Refusal::ChainMismatch { lsn: position.durable });
        }
        Ok(())
    }

    async fn read(&self, from: Lsn, bytes_max: usize) -> Result<Batch, Refusal> {
        let at = usize::try_from(from.prev().get()).unwrap_or(usize::MAX);
        let mut records = self.records.subscribe();
        let gone = || Refusal::Unavailable { reason: "the source is gone".into() };
        let records = records.wait_for(|records| records.len() > at).await.map_err(|_| gone())?;
        let chain_before =
            records[..at].iter().fold(Chain::ROOT, |chain, (record, _)| record.chain(chain));
        let epoch = records[at].1;
        let mut batch = Batch {
            epoch,
            incarnation: lock(&self.identity).incarnation,
            chain_before,
            source_position: 0,
            records: vec![],
        };
        for (record, of) in &records[at..] {
            let more = batch.bytes() + record.payload.len();
            if !of.is(&epoch) || (!batch.records.is_empty() && more > bytes_max) {
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

    fn refused(&self, refusal: &Refusal) {
        lock(&self.refusals).push(refusal.clone());
    }
}

/// Replicas that appear when somebody sends for them; every record is checked against the one
/// before.
#[derive(Debug)]
pub struct MemorySink {
    replicas: Mutex<HashMap<ReplicaId, Held>>,
    /// While true, appends wait.
    pub full: watch::Sender<bool>,
    /// Who may send; `None`: anyone.
    pub instance: Mutex<Option<InstanceId>>,
    /// The history of all replicas.
    pub lineage: Mutex<Lineage>,
    /// Pieces in order of their arrival.
    pub pieces: Mutex<Vec<ImageData>>,
}

impl Default for MemorySink {
    fn default() -> Self {
        Self {
            replicas: Mutex::default(),
            full: watch::Sender::new(false),
            instance: Mutex::default(),
            lineage: Mutex::new(identity(0).lineage),
            pieces: Mutex::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    records: Vec<Record>,
    durable: usize,
    serial: u64,
    open: bool,
}

impl MemorySink {
    /// What is durable, in order.
    #[must_use]
    pub fn durable_records(&self, replica: ReplicaId) -> Vec<Record> {
        let replicas = lock(&self.replicas);
        replicas.get(&replica).map_or(vec![], |held| held.records[..held.durable].to_vec())
    }

    /// A sender is connected.
    #[must_use]
    pub fn is_open(&self, replica: ReplicaId) -> bool {
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
        let lineage = lock(&self.lineage).clone();
        let (tail, instance) = (Lsn::new(held.durable as u64), *lock(&self.instance));
        if admit(identity, &Standing { lineage: &lineage, tail, instance })? == Admission::Newer {
            let reason = "a new epoch comes by order, not by a sender".into();
            return Err(Refusal::Unavailable { reason });
        }
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
            rotten: vec![],
        };
        Ok((SessionToken { replica: identity.replica, serial: held.serial }, position))
    }

    async fn append(&self, session: SessionToken, batch: Batch) -> Result<(), Refusal> {
        let mut full = self.full.subscribe();
        // The channel is this sink's own: it can't be gone.
        let _ = full.wait_for(|full| !full).await;
        self.with(session, |held| {
            let expected = Lsn::new(held.records.len() as u64 + 1);
            if batch.first() != expected {
                return Err(Refusal::Gap { expected, found: batch.first() });
            }
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
