//! The directory on the retention volume: lists its replicas by itself, so that they can be had
//! without the configuration server.

use crate::body::{Body, ReplicaDisk, Role};
use crate::error::StorageError;
use crate::frame::{FrameError, seal, unseal};
use crate::images::Images;
use crate::index::{IndexOptions, IndexPool};
use crate::replica::{Replica, ReplicaConfig, key_context, rewrapped};
use crate::store::{Found, Store};
use landfall_blockdev::{DeviceError, Dir, KeyedDir, Rank, RankedDir, Room};
use landfall_crypt::{Envelope, KeySource};
use landfall_types::{Epoch, Lsn, MachineId, ReplicaId};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LFVAULT1";
const MANIFEST: &str = "landfall-vault";
const MANIFEST_NEW: &str = "landfall-vault.new";
const REPLICA_PREFIX: &str = "replica-";

/// A replica by its superblock alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaSummary {
    /// Of which machine.
    pub machine: MachineId,
    /// Its name.
    pub machine_name: String,
    /// Durable role.
    pub role: Role,
    /// The epoch in force.
    pub epoch: Epoch,
    /// The image's position.
    pub folded: Lsn,
    /// The disks.
    pub disks: Vec<ReplicaDisk>,
    /// Name of the key-encryption key; none where the replica is not encrypted.
    pub key: Option<String>,
}

/// A retention volume.
#[derive(Debug)]
pub struct Vault {
    dir: Arc<dyn Dir>,
    images: Arc<dyn Images>,
    segment_bytes: u64,
    pool: Arc<IndexPool>,
    room: Arc<Room>,
    /// Unwraps data keys instead of the keys that their envelopes name.
    key: Option<KeySource>,
}

/// Segments that the reserve for branches with authority holds.
const RESERVE_SEGMENTS: u64 = 4;

impl Vault {
    /// Opens a vault; an empty directory becomes one.
    ///
    /// # Errors
    /// [`StorageError::Manifest`] when the manifest can't be read: not ours, or damaged; storage
    /// errors.
    pub fn open(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        Self::open_with(dir, images, segment_bytes, IndexOptions::default())
    }

    /// As [`Vault::open`], with other bounds for the memory of its replicas' indexes.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_with(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        segment_bytes: u64,
        index: IndexOptions,
    ) -> Result<Self, StorageError> {
        let device = || StorageError::device("open the retention volume's manifest");
        if dir.list().map_err(device())?.iter().any(|name| name == MANIFEST) {
            let file = dir.open(MANIFEST).map_err(device())?;
            let length = file.len().map_err(device())?.min(4096);
            let mut bytes = vec![0; usize::try_from(length).expect("at most 4096")];
            file.read_at(0, &mut bytes).map_err(device())?;
            unseal(MAGIC, &bytes).map_err(|error| match error {
                FrameError::Version(found) => StorageError::Version { found },
                _ => StorageError::Manifest,
            })?;
        } else {
            Self::make(&*dir)?;
        }
        let room = Room::new(Arc::clone(&dir), RESERVE_SEGMENTS.saturating_mul(segment_bytes));
        Ok(Self { dir, images, segment_bytes, pool: IndexPool::new(index), room, key: None })
    }

    /// Data keys are unwrapped with this key, whatever their envelopes name: for a volume that is
    /// read on another machine.
    #[must_use]
    pub fn with_key(self, key: Option<KeySource>) -> Self {
        Self { key, ..self }
    }

    /// The caches that its replicas share.
    #[must_use]
    pub const fn index_pool(&self) -> &Arc<IndexPool> {
        &self.pool
    }

    /// As [`Vault::open`], of a directory that is one already.
    ///
    /// # Errors
    /// [`StorageError::NoVault`]; as [`Vault::open`].
    pub fn open_existing(
        dir: Arc<dyn Dir>,
        images: Arc<dyn Images>,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        let names = dir.list().map_err(StorageError::device("look for a retention volume"))?;
        if !names.iter().any(|name| name == MANIFEST) {
            return Err(StorageError::NoVault);
        }
        Self::open(dir, images, segment_bytes)
    }

    /// What a replica's superblock alone says, also where its logs or images can't be opened.
    /// `None` when its making never ended.
    ///
    /// # Errors
    /// As [`Vault::open_replica`].
    pub fn summary(&self, id: ReplicaId) -> Result<Option<ReplicaSummary>, StorageError> {
        if !self.list()?.contains(&id) {
            return Err(StorageError::UnknownReplica(id));
        }
        let device = StorageError::device("open a replica's directory");
        let dir = self.dir.subdir(&replica_dir(id)).map_err(device)?;
        let Found::Replica(store) = Store::open(&*dir)? else { return Ok(None) };
        let body = store.body()?;
        Ok(Some(ReplicaSummary {
            machine: body.machine,
            machine_name: body.machine_name.clone(),
            role: body.role,
            epoch: body.lineage_in_force().epoch(),
            folded: body.folded,
            disks: body.disks.clone(),
            key: body.encryption.as_ref().map(|envelope| envelope.key.clone()),
        }))
    }

    /// Written under another name first: a cut leaves no manifest, or a whole one.
    fn make(dir: &dyn Dir) -> Result<(), StorageError> {
        let device = || StorageError::device("write the retention volume's manifest");
        if dir.list().map_err(device())?.iter().any(|name| name == MANIFEST_NEW) {
            dir.remove(MANIFEST_NEW).map_err(device())?;
        }
        let file = dir.create(MANIFEST_NEW).map_err(device())?;
        file.write_at(0, &seal(MAGIC, 1, b"a retention volume of Landfall\n")).map_err(device())?;
        file.sync_data().map_err(device())?;
        dir.rename(MANIFEST_NEW, MANIFEST).map_err(device())?;
        dir.sync().map_err(device())
    }

    /// The replicas that are here, also those that can't be opened.
    ///
    /// # Errors
    /// Storage errors.
    pub fn list(&self) -> Result<Vec<ReplicaId>, StorageError> {
        let names = self.dir.list_subdirs().map_err(StorageError::device("list replicas"))?;
        let ids = names.iter().filter_map(|name| name.strip_prefix(REPLICA_PREFIX)?.parse().ok());
        Ok(ids.collect())
    }

    /// Makes a replica, durable when this returns. One whose making was cut off is replaced.
    ///
    /// # Errors
    /// [`StorageError::Exists`], storage errors.
    pub fn create(&self, config: ReplicaConfig) -> Result<Replica, StorageError> {
        self.create_encrypted(config, None)
    }

    /// As [`Vault::create`], encrypted where a key-encryption key is given: it wraps the replica's
    /// new data key. Without it the replica can never be read.
    ///
    /// # Errors
    /// As [`Vault::create`]; [`StorageError::Key`], [`StorageError::NotSealable`].
    pub fn create_encrypted(
        &self,
        config: ReplicaConfig,
        key: Option<&KeySource>,
    ) -> Result<Replica, StorageError> {
        let id = config.replica;
        if self.list()?.contains(&id) {
            if self.open_replica(id)?.is_some() {
                return Err(StorageError::Exists(id));
            }
            self.remove(id)?;
        }
        // Before anything is made: a key that is not there leaves nothing behind.
        let context = key_context(id);
        let made = key.map(|key| Envelope::create(key, &context)).transpose()?;
        let (encryption, data_key) = made.unzip();
        let device = || StorageError::device("create a replica's directory");
        let dir = self.replica_dir(id).map_err(device())?;
        let dir = match data_key {
            Some(key) => KeyedDir::over(dir, key),
            None => dir,
        };
        let config = ReplicaConfig { segment_bytes: self.segment_bytes, encryption, ..config };
        let replica =
            Replica::create_with(dir, Arc::clone(&self.images), config, Arc::clone(&self.pool))?;
        self.dir.sync().map_err(device())?;
        Ok(replica)
    }

    /// A replica's directory, in which room is handed out by rank.
    fn replica_dir(&self, id: ReplicaId) -> Result<Arc<dyn Dir>, DeviceError> {
        let inner = self.dir.subdir(&replica_dir(id))?;
        // Logs say who they are; the rest is small.
        Ok(RankedDir::new(inner, Arc::clone(&self.room), Arc::new(|| Rank::Authority)))
    }

    /// Who gets how much of the volume's room (trap T-21).
    #[must_use]
    pub const fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Size of the segments in which logs take room, in bytes.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Opens a replica; `None` when its making never ended.
    ///
    /// # Errors
    /// [`StorageError::UnknownReplica`], [`StorageError::Superblock`], [`StorageError::Key`] (it
    /// can be opened when the key is there), storage errors.
    pub fn open_replica(&self, id: ReplicaId) -> Result<Option<Replica>, StorageError> {
        if !self.list()?.contains(&id) {
            return Err(StorageError::UnknownReplica(id));
        }
        let device = StorageError::device("open a replica's directory");
        let dir = self.replica_dir(id).map_err(device)?;
        let dir = match (&self.key, self.envelope(id)?) {
            (Some(key), Some(envelope)) => {
                KeyedDir::over(dir, envelope.open_with(key, &key_context(id))?)
            }
            _ => dir,
        };
        let (images, pool) = (Arc::clone(&self.images), Arc::clone(&self.pool));
        Replica::open_with(dir, images, self.segment_bytes, pool)
    }

    /// The wrapped data key of a replica; none where it is not encrypted.
    ///
    /// # Errors
    /// As [`Vault::summary`].
    pub fn envelope(&self, id: ReplicaId) -> Result<Option<Envelope>, StorageError> {
        let device = StorageError::device("open a replica's directory");
        let dir = self.dir.subdir(&replica_dir(id)).map_err(device)?;
        let Found::Replica(store) = Store::open(&*dir)? else { return Ok(None) };
        Ok(store.body()?.encryption.clone())
    }

    /// Wraps a replica's data key with another key-encryption key, durably, without opening the
    /// replica; nobody else has it open. The old one is [`Vault::with_key`]'s, or the one that the
    /// envelope names.
    ///
    /// # Errors
    /// [`StorageError::UnknownReplica`], [`StorageError::NotEncrypted`], [`StorageError::Key`],
    /// storage errors.
    pub fn rekey(&self, id: ReplicaId, to: &KeySource) -> Result<(), StorageError> {
        if !self.list()?.contains(&id) {
            return Err(StorageError::UnknownReplica(id));
        }
        let device = StorageError::device("open a replica's directory");
        let dir = self.dir.subdir(&replica_dir(id)).map_err(device)?;
        let Found::Replica(mut store) = Store::open(&*dir)? else {
            return Err(StorageError::NotEncrypted);
        };
        let body = store.body()?.clone();
        let envelope = body.encryption.as_ref().ok_or(StorageError::NotEncrypted)?;
        let envelope = rewrapped(envelope, self.key.as_ref(), to, id)?;
        store.write(Body { encryption: Some(envelope), ..body })
    }

    /// Removes a replica's directory: logs, branches, undo. The caller has closed it. Its images
    /// stay. Gone already: no error.
    ///
    /// # Errors
    /// Storage errors.
    pub fn remove(&self, id: ReplicaId) -> Result<(), StorageError> {
        let device = || StorageError::device("remove a replica's directory");
        if self.list()?.contains(&id) {
            let dir = self.dir.subdir(&replica_dir(id)).map_err(device())?;
            Store::condemn(&*dir)?;
            self.dir.remove_subdir(&replica_dir(id)).map_err(device())?;
        }
        self.dir.sync().map_err(device())
    }

    /// Removes an image of our own.
    ///
    /// # Errors
    /// Storage errors.
    pub fn remove_image(&self, path: &str) -> Result<(), StorageError> {
        self.images.remove(path).map_err(StorageError::device("remove image"))
    }
}

fn replica_dir(id: ReplicaId) -> String {
    format!("{REPLICA_PREFIX}{id}")
}
