//! A replica: image and logs of one machine, its durable role, and who may do what with it.

mod branches;
mod compare;
mod core;
mod first_copy;
mod fold;
mod health;
mod indexes;
mod ingest;
mod points;
mod promote;
mod release;
mod retain;
mod rot;
mod scrub;
mod sealing;
mod status;
mod undo;
mod views;

pub use branches::{Branch, NewTestBranch};
pub use compare::Estimate;
pub use first_copy::ImagePiece;
pub use fold::{FoldPace, FoldProgress, Unpaced};
pub use indexes::{IndexReader, IndexStatus};
pub use ingest::{Frame, Standing};
pub use points::{Hold, HoldKind};
pub use promote::NewAuthority;
pub use release::Released;
pub use retain::{Due, DueCause};
pub use rot::Corrupt;
pub use scrub::{Rot, ScrubReport};
pub(crate) use sealing::{key_context, rewrapped};
pub use sealing::{open_image, replica_key};
pub use status::{BranchStatus, DivergenceStatus, PointsStatus, ReplicaStatus};
pub use views::{Choices, View};

use self::core::{Core, geometries};
use crate::body::{BaseContent, Body, DivergenceEntry, ImageCopy, ImageOwner, ReplicaDisk, Role};
use crate::error::StorageError;
use crate::images::{Images, SealedImage};
use crate::index::{IndexOptions, IndexPool, LogIndex};
use crate::line::{AppliedLog, BranchLog, Line};
use crate::medium::Medium;
use crate::ranks::Ranks;
use crate::replica::retain::Keeper;
use crate::store::{Found, Store};
use crate::sums::Sums;
use crate::sync::{lock, read, write};
use crate::tree::LogNode;
use landfall_blockdev::{Dir, Rank};
use landfall_crypt::Envelope;
use landfall_journal::{Log, LogConfig, Stamp};
use landfall_types::{
    BranchId, Chain, DiskIndex, Epoch, Incarnation, InstanceId, Lineage, LogId, Lsn, MachineId,
    ReplicaId, RetentionPolicy,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock, Weak};

/// Name of the divergence that stands for what foreign disks held before they became images (trap
/// T-15).
pub const OLD_DISKS: &str = "old-disks";

/// What becomes of the content that foreign images have when a replica is made on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldContent {
    /// A first copy overwrites it, that is what was asked for.
    Expendable,
    /// It may be the only copy of something (home's disks): untouched until it is discarded by name
    /// (trap T-15).
    Kept,
}

/// What a replica is made with.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Ours.
    pub replica: ReplicaId,
    /// Of which machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// The instance whose sessions are accepted (trap T-11).
    pub instance: InstanceId,
    /// The disks in order of their indexes, with their images. Images of our own are made here.
    pub disks: Vec<ReplicaDisk>,
    /// The history that the log continues.
    pub lineage: Lineage,
    /// The position before the first record.
    pub base: Lsn,
    /// The chain there.
    pub base_chain: Chain,
    /// Whether what foreign images hold must be discarded by name before they are written.
    pub old_content: OldContent,
    /// How long what is kept.
    pub retention: RetentionPolicy,
    /// Size of a log's segments in bytes.
    pub segment_bytes: u64,
    /// The wrapped data key of a replica that is encrypted; [`crate::Vault::create`] makes it.
    pub encryption: Option<Envelope>,
}

/// The log that takes frames, while the replica is [`Role::Replicating`].
#[derive(Debug)]
pub(crate) struct Receiving {
    log: AppliedLog,
    lineage: Lineage,
    instance: InstanceId,
}

/// A replica. All methods may be called from any thread, and block while they do I/O.
///
/// Locks are taken in the order `scrubbing`, `folding`, `receiving`, the medium's `trims`, `core`,
/// a branch's writer, a log's append lock, `keeper`, then any other. A lock that is held for
/// reading is not taken for reading again: a waiting writer comes first.
#[derive(Debug)]
pub struct Replica {
    id: ReplicaId,
    dir: Arc<dyn Dir>,
    images: Arc<dyn Images>,
    segment_bytes: u64,
    medium: Arc<Medium>,
    folding: Mutex<()>,
    /// One scrub at a time.
    scrubbing: Mutex<()>,
    /// Where later records were found to cover what has rotted: never changes for a log.
    covered: Mutex<Vec<(LogId, Rot, Lsn)>>,
    core: Mutex<Core>,
    /// The replica's log: points are chosen in it, and the image follows it.
    current: RwLock<Arc<Line>>,
    receiving: RwLock<Option<Receiving>>,
    branches: RwLock<BTreeMap<BranchId, Arc<Branch>>>,
    views: Mutex<Vec<Weak<views::ViewState>>>,
    /// The first copy as far as it was received; the durable part stands in the superblock.
    image_received: Mutex<Option<ImageCopy>>,
    /// Records from behind here on are still wanted by a sender, and not trimmed.
    trim_limit: Mutex<Lsn>,
    /// A fold that runs.
    fold_progress: Mutex<Option<FoldProgress>>,
    /// Which markers are listed, and since when.
    keeper: Mutex<Keeper>,
    /// Those of the images that are sealed.
    sealed_images: Mutex<BTreeMap<DiskIndex, Arc<SealedImage>>>,
}

impl Replica {
    /// Makes a replica in an empty directory, durable when this returns (but for the directory's
    /// own name).
    ///
    /// # Errors
    /// [`StorageError`]; what was made is then removed by the next attempt.
    pub fn create(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        config: ReplicaConfig,
    ) -> Result<Self, StorageError> {
        Self::create_with(dir, images, config, IndexPool::new(IndexOptions::default()))
    }

    /// As [`Replica::create`], with caches that it shares with others.
    ///
    /// # Errors
    /// As [`Replica::create`].
    pub fn create_with(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        config: ReplicaConfig,
        pool: Arc<IndexPool>,
    ) -> Result<Self, StorageError> {
        for disk in &config.disks {
            if disk.owner == ImageOwner::Ours {
                sealing::create_image(&*dir, &*images, disk)?;
            }
        }
        let opened = open_devices(&*dir, &*images, &config.disks)?;
        let log = LogId::generate();
        let log_config = LogConfig {
            log,
            replica: config.replica,
            epoch: config.lineage.epoch(),
            base: config.base,
            base_chain: config.base_chain,
            segment_bytes: config.segment_bytes,
        };
        make_log(&*dir, log_config, &Ranks::default(), Rank::Ingest)?;
        let segment_bytes = config.segment_bytes;
        let store = Store::create(&*dir, first_body(config, log))?;
        let replica = Self::assemble(dir, images, segment_bytes, store, pool)?;
        replica.set_opened(opened);
        replica.open_sums()?;
        Ok(replica)
    }

    /// Opens a replica as it durably is: role, branches, first copy. `None` when its creation never
    /// finished.
    ///
    /// # Errors
    /// [`StorageError`]; nothing is repaired by guessing.
    pub fn open(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        segment_bytes: u64,
    ) -> Result<Option<Self>, StorageError> {
        Self::open_with(dir, images, segment_bytes, IndexPool::new(IndexOptions::default()))
    }

    /// As [`Replica::open`], with caches that it shares with others.
    ///
    /// # Errors
    /// As [`Replica::open`].
    pub fn open_with(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        segment_bytes: u64,
        pool: Arc<IndexPool>,
    ) -> Result<Option<Self>, StorageError> {
        let Found::Replica(store) = Store::open(&*dir)? else { return Ok(None) };
        let body = store.body()?.clone();
        let dir = sealing::unlock(dir, &body)?;
        remove_strays(&*dir, &body)?;
        let replica = Self::assemble(dir, images, segment_bytes, *store, pool)?;
        if body.role != Role::Released {
            let opened = open_devices(&*replica.dir, &*replica.images, &body.disks)?;
            replica.set_opened(opened);
        }
        replica.open_sums()?;
        Ok(Some(replica))
    }

    fn assemble(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        segment_bytes: u64,
        store: Store,
        pool: Arc<IndexPool>,
    ) -> Result<Self, StorageError> {
        let body = store.body()?.clone();
        let medium = Arc::new(Medium::new(pool));
        medium.floor.raise(body.floor());
        let mut core = Core { store, logs: BTreeMap::new(), parked: None };
        for node in body.logs.iter().filter(|node| !node.dropped) {
            let opened = open_log(&*dir, node.log, core.store.ranks());
            match opened.and_then(|log| core.add_log(&medium, log, &dir)) {
                Ok(()) => {}
                // A test branch or divergence that can't be had must not keep the replica from its
                // work.
                Err(error)
                    if node.log != body.log
                        && Some(node.log) != body.authority_branch().map(|b| b.log) =>
                {
                    let (replica, log) = (body.replica, node.log);
                    tracing::warn!(%replica, %log, %error, "a log can't be opened");
                }
                Err(error) => return Err(error),
            }
        }
        let current = Arc::new(core.line(&medium, &body, body.log)?);
        let keeper = Keeper::open(&*dir, body.log);
        let replica = Self {
            id: body.replica,
            dir,
            images,
            segment_bytes,
            medium,
            folding: Mutex::new(()),
            scrubbing: Mutex::new(()),
            covered: Mutex::default(),
            core: Mutex::new(core),
            current: RwLock::new(current),
            receiving: RwLock::new(None),
            branches: RwLock::new(BTreeMap::new()),
            views: Mutex::new(vec![]),
            image_received: Mutex::new(body.image_copy.clone()),
            trim_limit: Mutex::new(Lsn::MAX),
            fold_progress: Mutex::new(None),
            keeper: Mutex::new(keeper),
            sealed_images: Mutex::default(),
        };
        replica.take_up_role(&body)?;
        Ok(replica)
    }

    fn set_opened(&self, (devices, sealed): Opened) {
        *lock(&self.sealed_images) = sealed;
        self.medium.set_devices(Some(devices));
    }

    /// Opens the checksums of the images.
    fn open_sums(&self) -> Result<(), StorageError> {
        let mut all = BTreeMap::new();
        // A sealed image needs none: its seals say what every block is.
        let plain = |disk: &&ReplicaDisk| !sealing::is_sealed(&*self.dir, disk);
        for disk in self.body()?.disks.iter().filter(plain) {
            let name = format!("sums-{}", disk.index);
            all.insert(disk.index, Arc::new(Sums::open(&*self.dir, &name)?));
        }
        self.medium.set_sums(all);
        Ok(())
    }

    /// Gives the logs to those who may append to them, as the durable role says.
    fn take_up_role(&self, body: &Body) -> Result<(), StorageError> {
        if body.role == Role::Replicating {
            *write(&self.receiving) = Some(Receiving {
                log: AppliedLog::new(self.line()),
                lineage: body.lineage.clone(),
                instance: body.instance,
            });
        }
        for entry in &body.branches {
            let authority = body.authority == Some(entry.id);
            let line = if entry.log == body.log {
                self.line()
            } else {
                match lock(&self.core).line(&self.medium, body, entry.log) {
                    Ok(line) => Arc::new(line),
                    Err(error) if !authority => {
                        let (replica, branch) = (self.id, &entry.name);
                        tracing::warn!(%replica, branch, %error, "a test branch can't be opened");
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            let log = BranchLog::new(Arc::clone(&line), branch_stamp(entry.log, entry.epoch));
            let writes = !authority || body.role == Role::Writable;
            let branch = if writes {
                Branch::open(entry.clone(), line, Arc::clone(&self.medium), Some(log))
            } else {
                lock(&self.core).parked = Some(log);
                Branch::open(entry.clone(), line, Arc::clone(&self.medium), None)
            };
            write(&self.branches).insert(entry.id, Arc::new(branch));
        }
        Ok(())
    }

    /// Ours.
    #[must_use]
    pub const fn id(&self) -> ReplicaId {
        self.id
    }

    /// The line of the replica's own log.
    fn line(&self) -> Arc<Line> {
        Arc::clone(&read(&self.current))
    }

    /// The durable superblock.
    fn body(&self) -> Result<Body, StorageError> {
        Ok(lock(&self.core).store.body()?.clone())
    }

    /// First position that can be chosen.
    fn first_choice(body: &Body) -> Lsn {
        body.horizon().max(body.points_from)
    }
}

/// Producer of a branch's records: the log proves its continuity by itself. The last 8 bytes of the
/// log's ID, which are random in every kind of UUID.
#[must_use]
pub fn branch_incarnation(log: LogId) -> Incarnation {
    let mut raw = [0; 8];
    raw.copy_from_slice(&log.as_bytes()[8..]);
    Incarnation::new(u64::from_le_bytes(raw))
}

fn branch_stamp(log: LogId, epoch: Epoch) -> Stamp {
    Stamp { epoch, incarnation: branch_incarnation(log), source_position: 0 }
}

fn first_body(config: ReplicaConfig, log: LogId) -> Body {
    let kept = config.old_content == OldContent::Kept
        && config.disks.iter().any(|disk| disk.owner == ImageOwner::Foreign);
    let old_disks = DivergenceEntry {
        name: OLD_DISKS.to_owned(),
        description: "what the old disks held before the replica was made on them".to_owned(),
        log: None,
        epoch: None,
        after: config.base,
        through: config.base,
        discarded: false,
    };
    Body {
        replica: config.replica,
        machine: config.machine,
        machine_name: config.machine_name,
        instance: config.instance,
        role: Role::Replicating,
        epoch_highest: config.lineage.epoch().number,
        lineage: config.lineage,
        log,
        logs: vec![LogNode { log, parent: None, fork: config.base, dropped: false }],
        disks: config.disks,
        base: BaseContent::Unknown,
        folded: config.base,
        folded_marker: None,
        fold_through: None,
        fold_done: None,
        doubt: None,
        scrub: None,
        points_from: config.base,
        branches: vec![],
        authority: None,
        divergence: if kept { vec![old_disks] } else { vec![] },
        image_copy: None,
        undo: None,
        demoted: None,
        retention: config.retention,
        notes: vec![],
        encryption: config.encryption,
        attestations: vec![],
    }
}

fn log_dir(log: LogId) -> String {
    format!("log-{log}")
}

/// `rank` holds until the superblock names the log.
fn make_log(
    dir: &dyn Dir,
    config: LogConfig,
    ranks: &Ranks,
    rank: Rank,
) -> Result<Log, StorageError> {
    let name = log_dir(config.log);
    let sub = dir.subdir(&name).map_err(StorageError::device("create a log's directory"))?;
    let log = Log::create(ranks.dir(sub, config.log, rank), config)?;
    dir.sync().map_err(StorageError::device("sync the replica's directory"))?;
    Ok(log)
}

fn open_log(dir: &dyn Dir, log: LogId, ranks: &Ranks) -> Result<Log, StorageError> {
    let sub = dir.subdir(&log_dir(log)).map_err(StorageError::device("open a log's directory"))?;
    let (log, report) = Log::open(ranks.dir(sub, log, Rank::History))?;
    tracing::debug!(?report, "log opened");
    Ok(log)
}

/// Removes what a cut left behind: logs of branches that were never entered, undo files that are
/// not in force.
fn remove_strays(dir: &dyn Dir, body: &Body) -> Result<(), StorageError> {
    let device = || StorageError::device("remove what a cut left behind");
    let kept = body.logs.iter().filter(|node| !node.dropped);
    let kept: Vec<String> =
        kept.flat_map(|node| [log_dir(node.log), LogIndex::dir_name(node.log)]).collect();
    for name in dir.list_subdirs().map_err(device())? {
        let ours = name.starts_with("log-") || name.starts_with("index-");
        if ours && !kept.contains(&name) {
            dir.remove_subdir(&name).map_err(device())?;
        }
    }
    for name in dir.list().map_err(device())? {
        let in_force = body.undo.as_ref().is_some_and(|undo| undo.file == name);
        if name.starts_with("undo-") && !in_force {
            dir.remove(&name).map_err(device())?;
        }
    }
    Ok(())
}

type Devices = BTreeMap<landfall_types::DiskIndex, Arc<dyn landfall_blockdev::BlockDevice>>;

/// The images, and those of them that are sealed.
type Opened = (Devices, BTreeMap<landfall_types::DiskIndex, Arc<SealedImage>>);

/// Opens the images and checks that they can hold their disks (trap T-9).
fn open_devices(
    dir: &dyn Dir,
    images: &dyn Images,
    disks: &[ReplicaDisk],
) -> Result<Opened, StorageError> {
    let (mut devices, mut sealed) = (Devices::new(), BTreeMap::new());
    for disk in disks {
        if let Some(image) = sealing::open_sealed(dir, images, disk)? {
            devices.insert(disk.index, Arc::clone(&image) as _);
            sealed.insert(disk.index, image);
            continue;
        }
        let device =
            images.open(&disk.image, disk.owner).map_err(StorageError::device("open image"))?;
        // Our own files grow when the disk does; a foreign disk with coarser sectors would tear
        // what the machine thinks is one sector.
        let foreign = disk.owner == ImageOwner::Foreign;
        let small = foreign && device.size() < disk.geometry.size_bytes;
        if small || (foreign && device.sector_bytes() > disk.geometry.sector_bytes) {
            return Err(StorageError::ImageMismatch {
                disk: disk.index,
                image: disk.image.clone(),
                needed: disk.geometry.size_bytes,
                needed_sector: disk.geometry.sector_bytes,
                size: device.size(),
                sector: device.sector_bytes(),
            });
        }
        devices.insert(disk.index, device);
    }
    Ok((devices, sealed))
}
