//! A replica on a simulated medium, and the naive oracle: the content of all disks after every
//! record.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod world;

use bytes::Bytes;
use landfall_blockdev::sim::SimMedium;
use landfall_blockdev::{BlockDevice, DeviceError, Dir, DiskFile};
use landfall_types::{
    Chain, Control, DiskGeometry, DiskId, DiskIndex, Epoch, EpochId, Incarnation, InstanceId,
    Lineage, Lsn, MachineId, Marker, MarkerKind, Record, RecordKind, ReplicaId, WindowClose,
    WindowId, WindowMode, WindowOpen, WindowReason,
};
use landfall_volume::{
    Frame, ImageOwner, Images, IndexOptions, IndexPool, Replica, ReplicaConfig, ReplicaDisk, View,
};
use std::sync::Arc;

pub const SECTOR: u64 = 512;
pub const DISKS: [u64; 2] = [12 * SECTOR, 8 * SECTOR];
pub const SEGMENT_BYTES: u64 = 64 * 1024;

/// Images as files of the simulated medium.
#[derive(Debug)]
pub struct SimImages(pub Arc<dyn Dir>);

impl Images for SimImages {
    fn open(&self, path: &str, _: ImageOwner) -> Result<Arc<dyn BlockDevice>, DeviceError> {
        Ok(Arc::new(DiskFile::open(&*self.0, path, 512)?))
    }
    fn create(&self, path: &str, geometry: DiskGeometry) -> Result<(), DeviceError> {
        if self.0.list()?.iter().any(|name| name == path) {
            self.0.remove(path)?;
        }
        DiskFile::create(&*self.0, path, geometry.size_bytes, 512)?;
        self.0.sync()
    }
    fn grow(&self, path: &str, size_bytes: u64) -> Result<(), DeviceError> {
        let file = self.0.open(path)?;
        file.set_len(size_bytes)?;
        file.sync_data()
    }
    fn remove(&self, path: &str) -> Result<(), DeviceError> {
        self.0.remove(path)
    }
}

pub fn images(medium: &SimMedium) -> Arc<dyn Images> {
    Arc::new(SimImages(medium.root().subdir("images").expect("made")))
}

pub fn replica_dir(medium: &SimMedium) -> Arc<dyn Dir> {
    medium.root().subdir("replica").expect("made")
}

pub fn epoch(number: u64) -> Epoch {
    Epoch { number, id: EpochId::new(number * 0x1001), parent: None }
}

pub fn lineage() -> Lineage {
    Lineage::root(epoch(1))
}

pub fn instance() -> InstanceId {
    InstanceId::from_bytes([7; 16])
}

pub fn replica_id() -> ReplicaId {
    ReplicaId::from_bytes([1; 16])
}

pub fn config(owner: ImageOwner, lineage: Lineage, base: Lsn, base_chain: Chain) -> ReplicaConfig {
    let disk = |(index, size_bytes): (u16, u64)| ReplicaDisk {
        index: DiskIndex(index),
        id: DiskId::from_bytes([10 + index as u8; 16]),
        geometry: DiskGeometry { size_bytes, sector_bytes: 512 },
        image: format!("disk-{index}"),
        owner,
    };
    ReplicaConfig {
        replica: replica_id(),
        machine: MachineId::from_bytes([2; 16]),
        machine_name: "m".to_owned(),
        instance: instance(),
        disks: (0..).zip(DISKS).map(disk).collect(),
        lineage,
        base,
        base_chain,
        old_content: landfall_volume::OldContent::Kept,
        retention: landfall_types::RetentionPolicy::for_seconds(60),
        segment_bytes: SEGMENT_BYTES,
        encryption: None,
    }
}

/// So little memory that run files are written, merged and read in every test, by whoever appends:
/// the steps are the same in each run.
pub fn pool() -> Arc<IndexPool> {
    IndexPool::new(IndexOptions {
        tail_records: 3,
        page_cache_bytes: 64 << 10,
        chunk_cache_bytes: 8 << 10,
        background: false,
    })
}

pub fn create(medium: &SimMedium, config: ReplicaConfig) -> Replica {
    let (dir, images) = (replica_dir(medium), images(medium));
    Replica::create_with(dir, images, config, pool()).expect("created")
}

pub fn open(medium: &SimMedium) -> Result<Option<Replica>, landfall_volume::StorageError> {
    Replica::open_with(replica_dir(medium), images(medium), SEGMENT_BYTES, pool())
}

/// A new replica whose images are its own.
pub fn new_replica(medium: &SimMedium) -> Replica {
    let config = config(ImageOwner::Ours, lineage(), Lsn::ZERO, Chain::ROOT);
    let replica = create(medium, config);
    medium.root().sync().expect("synced");
    replica
}

pub fn open_replica(medium: &SimMedium) -> Replica {
    open(medium).expect("opens").expect("was complete")
}

/// The content of all disks.
pub type Content = Vec<Vec<u8>>;

pub fn blank() -> Content {
    DISKS.iter().map(|size| vec![0; *size as usize]).collect()
}

pub fn apply(content: &mut Content, record: &Record) {
    let Some(range) = record.header.range() else { return };
    let disk = &mut content[usize::from(record.header.disk.0)];
    let bytes = &mut disk[range.start as usize..range.end as usize];
    match record.header.kind {
        RecordKind::Write => bytes.copy_from_slice(&record.payload),
        _ => bytes.fill(0),
    }
}

/// One log as a producer sees it, with the oracle's content and verdict after each of its records.
#[derive(Clone, Debug)]
pub struct Producer {
    pub epoch: Epoch,
    pub incarnation: Incarnation,
    pub base: Lsn,
    /// `chains[n]`, `contents[n]`, `legal[n]` after `n` records.
    pub chains: Vec<Chain>,
    pub contents: Vec<Content>,
    pub legal: Vec<bool>,
    pub records: Vec<Record>,
    open: Vec<(WindowId, u64)>,
    /// How many windows had been opened when the last inexact one closed; none: all is exact.
    fuzzy: Option<u64>,
    opened: u64,
}

impl Producer {
    pub fn new(epoch: Epoch, base: Lsn, chain: Chain, content: Content, exact: bool) -> Self {
        Self {
            epoch,
            incarnation: Incarnation::new(epoch.number * 77),
            base,
            chains: vec![chain],
            contents: vec![content],
            legal: vec![exact],
            records: vec![],
            open: vec![],
            fuzzy: (!exact).then_some(0),
            opened: 0,
        }
    }

    pub fn lsn(&self) -> Lsn {
        self.base.plus(self.records.len() as u64)
    }
    pub fn chain(&self) -> Chain {
        *self.chains.last().expect("one")
    }
    pub fn content(&self) -> &Content {
        self.contents.last().expect("one")
    }
    fn index(&self, lsn: Lsn) -> usize {
        usize::try_from(lsn.get() - self.base.get()).expect("small")
    }
    pub fn content_at(&self, lsn: Lsn) -> &Content {
        &self.contents[self.index(lsn)]
    }
    pub fn chain_at(&self, lsn: Lsn) -> Chain {
        self.chains[self.index(lsn)]
    }
    pub fn legal_at(&self, lsn: Lsn) -> bool {
        self.legal[self.index(lsn)]
    }
    /// Newest legal position up to `through`.
    pub fn newest_legal(&self, from: Lsn, through: Lsn) -> Option<Lsn> {
        (from.get().max(self.base.get())..=through.get())
            .rev()
            .map(Lsn::new)
            .find(|lsn| self.legal_at(*lsn))
    }

    /// This log up to `lsn`, continued in another epoch.
    pub fn fork(&self, lsn: Lsn, epoch: Epoch, incarnation: Incarnation) -> Self {
        assert!(self.legal_at(lsn));
        let kept = self.index(lsn);
        let mut fork = self.clone();
        fork.epoch = epoch;
        fork.incarnation = incarnation;
        fork.records.truncate(kept);
        fork.chains.truncate(kept + 1);
        fork.contents.truncate(kept + 1);
        fork.legal.truncate(kept + 1);
        fork.open.clear();
        fork.fuzzy = None;
        fork
    }

    pub fn push(&mut self, make: impl FnOnce(Lsn) -> Record) -> Record {
        let record = make(self.lsn().next());
        self.take(&record);
        record
    }

    /// Follows a record that was made elsewhere.
    pub fn take(&mut self, record: &Record) {
        assert_eq!(record.header.lsn, self.lsn().next());
        let mut content = self.content().clone();
        apply(&mut content, record);
        if record.header.kind == RecordKind::Control {
            self.follow(&Control::decode(&record.payload).expect("ours"));
        }
        self.chains.push(record.chain(self.chain()));
        self.contents.push(content);
        self.legal.push(self.open.is_empty() && self.fuzzy.is_none());
        self.records.push(record.clone());
    }

    fn follow(&mut self, control: &Control) {
        match control {
            Control::WindowOpen(open) => {
                self.open.push((open.window, self.opened));
                self.opened += 1;
            }
            Control::WindowClose(close) => {
                let at = self.open.iter().rposition(|(id, _)| *id == close.window).expect("open");
                let (_, serial) = self.open.remove(at);
                if !close.exact {
                    self.fuzzy = Some(self.opened);
                } else if self.fuzzy.is_some_and(|fuzzy| fuzzy <= serial) {
                    self.fuzzy = None;
                }
            }
            Control::Marker(_) | Control::Geometry(_) => {}
        }
    }

    pub fn write(&mut self, disk: u16, offset: u64, data: &[u8]) -> Record {
        let data = Bytes::copy_from_slice(data);
        self.push(|lsn| Record::write(lsn, DiskIndex(disk), offset, data))
    }
    pub fn marker(&mut self, time: u64, name: Option<&str>) -> Record {
        let control = marker(time, name);
        self.push(|lsn| Record::control(lsn, &control))
    }
    pub fn window_open(&mut self, id: u64, into_image: bool) -> Record {
        let control = window_open(id, into_image);
        self.push(|lsn| Record::control(lsn, &control))
    }
    pub fn window_close(&mut self, id: u64, exact: bool) -> Record {
        let control = window_close(id, exact);
        self.push(|lsn| Record::control(lsn, &control))
    }
    pub fn open_windows(&self) -> Vec<WindowId> {
        self.open.iter().map(|(id, _)| *id).collect()
    }

    /// Records from `from` on as a frame.
    pub fn frame(&self, from: Lsn) -> Frame<'_> {
        self.frame_to(from, self.lsn())
    }
    pub fn frame_to(&self, from: Lsn, through: Lsn) -> Frame<'_> {
        Frame {
            epoch: self.epoch,
            incarnation: self.incarnation,
            source_position: through.get(),
            chain_before: self.chain_at(from.prev()),
            records: &self.records[self.index(from.prev())..self.index(through)],
        }
    }
    /// Brings a replica up to date and makes it durable.
    pub fn send(&self, replica: &Replica) {
        let from = replica.status().expect("status").received.next();
        replica.ingest(self.frame(from)).expect("ingested");
        replica.flush().expect("flushed");
    }
}

pub fn marker(time: u64, name: Option<&str>) -> Control {
    let kind = MarkerKind::CrashConsistent;
    Control::Marker(Marker { kind, time_unix_ns: time, name: name.map(str::to_owned), group: None })
}
pub fn window_open(id: u64, into_image: bool) -> Control {
    Control::WindowOpen(WindowOpen {
        window: WindowId(id),
        reason: if into_image { WindowReason::FirstCopy } else { WindowReason::Requested },
        mode: WindowMode::Copy,
        disks: vec![0, 1],
        into_image,
    })
}
pub fn window_close(id: u64, exact: bool) -> Control {
    Control::WindowClose(WindowClose { window: WindowId(id), exact })
}

/// A first copy of empty disks: after it the replica has its first recovery point.
pub fn first_copy(replica: &Replica, producer: &mut Producer) {
    producer.window_open(1, true);
    producer.send(replica);
    for (disk, size) in (0..).zip(DISKS) {
        let piece = landfall_volume::ImagePiece {
            window: WindowId(1),
            disk: DiskIndex(disk),
            offset: 0,
            length: size,
            data: None,
        };
        replica.image_write(piece).expect("written");
    }
    replica.image_flush().expect("flushed");
    producer.window_close(1, true);
    producer.send(replica);
}

/// A replica with its first recovery point, and its producer.
pub fn protected(medium: &SimMedium) -> (Replica, Producer) {
    let replica = new_replica(medium);
    let mut producer = Producer::new(epoch(1), Lsn::ZERO, Chain::ROOT, blank(), false);
    first_copy(&replica, &mut producer);
    (replica, producer)
}

pub fn read_view(view: &View) -> Content {
    let disk = |(disk, size): (u16, u64)| {
        let mut bytes = vec![0xa5; size as usize];
        view.read(DiskIndex(disk), 0, &mut bytes).expect("readable");
        bytes
    };
    (0..).zip(DISKS).map(disk).collect()
}

pub fn read_branch(branch: &landfall_volume::Branch) -> Content {
    let disk = |(disk, size): (u16, u64)| {
        let mut bytes = vec![0xa5; size as usize];
        branch.read(DiskIndex(disk), 0, &mut bytes).expect("readable");
        bytes
    };
    (0..).zip(DISKS).map(disk).collect()
}

pub fn read_images(medium: &SimMedium) -> Content {
    let (images, dir) = (images(medium), replica_dir(medium));
    let sealed = |disk| dir.list().expect("listed").contains(&format!("seals-{disk}"));
    let disk = |(disk, size): (u16, u64)| {
        let opened = ReplicaDisk {
            owner: if sealed(disk) { ImageOwner::Ours } else { ImageOwner::Foreign },
            ..config(ImageOwner::Ours, lineage(), Lsn::ZERO, Chain::ROOT).disks[disk as usize]
                .clone()
        };
        let device = landfall_volume::open_image(&*dir, &*images, &opened).expect("there");
        let mut bytes = vec![0; size as usize];
        device.read_at(0, &mut bytes).expect("readable");
        bytes
    };
    (0..).zip(DISKS).map(disk).collect()
}

/// Compares and says where, instead of printing both.
pub fn assert_same(found: &Content, expected: &Content, what: &str) {
    for (disk, (found, expected)) in found.iter().zip(expected).enumerate() {
        if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
            panic!(
                "{what}: disk {disk} differs at byte {at}: {} instead of {}",
                found[at], expected[at]
            );
        }
    }
}
