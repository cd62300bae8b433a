//! `landfall vault`: a retention volume without its master target and without the configuration
//! server. Only `promote` and `rekey` write it; what else is opened is repaired in memory alone.

mod export;
mod inspect;
mod promote;
mod rekey;

use crate::args::{VaultCommand, VolumeArgs};
use crate::failure::Failure;
use crate::output::Format;
use landfall_api_types::{ApiError, codes};
use landfall_blockdev::{FsDir, OverlayDir};
use landfall_crypt::KeySource;
use landfall_journal::LogConfig;
use landfall_master_target::claim_retention_volume;
use landfall_types::ReplicaId;
use landfall_volume::{ReadOnlyImages, Replica, RoleError, StorageError, Vault};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn vault(command: &VaultCommand, format: Format) -> Result<(), Failure> {
    match command {
        VaultCommand::Inspect(args) => inspect::inspect(args, format),
        VaultCommand::Export(args) => export::export(args, format),
        VaultCommand::Rekey(args) => rekey::rekey(args, format),
        VaultCommand::Promote(args) => promote::promote(args, format),
    }
}

/// A volume that nobody else uses while this is held.
struct Opened {
    vault: Vault,
    path: PathBuf,
    /// A master target that wrote meanwhile would change under our eyes what a superblock says.
    _claim: File,
}

impl Opened {
    fn open(args: &VolumeArgs) -> Result<Self, Failure> {
        let path = args.path.clone();
        let claim = claim(&path)?;
        let failed = |error: anyhow::Error| error.context(path.display().to_string());
        let dir = OverlayDir::open(&path).map_err(|error| failed(error.into()))?;
        let images = ReadOnlyImages { folder: args.images.clone() };
        let segment_bytes = LogConfig::SEGMENT_BYTES_DEFAULT;
        let vault = Vault::open_existing(Arc::new(dir), Arc::new(images), segment_bytes);
        let vault = vault.map_err(|error| refused(error.code(), &error))?;
        let vault = vault.with_key(args.key.clone());
        Ok(Self { vault, path, _claim: claim })
    }

    /// As [`Opened::open`], to be written.
    fn writable(path: &Path, key: Option<KeySource>) -> Result<Self, Failure> {
        let claim = claim(path)?;
        let failed = |error: anyhow::Error| error.context(path.display().to_string());
        let dir = FsDir::open(path).map_err(|error| failed(error.into()))?;
        let images = ReadOnlyImages { folder: None };
        let segment_bytes = LogConfig::SEGMENT_BYTES_DEFAULT;
        let vault = Vault::open_existing(Arc::new(dir), Arc::new(images), segment_bytes);
        let vault = vault.map_err(|error| refused(error.code(), &error))?.with_key(key);
        Ok(Self { vault, path: path.to_owned(), _claim: claim })
    }

    /// The replica of a machine, or of this ID, opened.
    fn one(&self, wanted: &str) -> Result<(ReplicaId, Replica), Failure> {
        let found = self.find(Some(wanted))?;
        let [id] = found[..] else {
            let ids: Vec<String> = found.iter().map(ToString::to_string).collect();
            let cause = format!("{wanted} has several replicas here: {}", ids.join(", "));
            let error = ApiError::new(&codes::BAD_REQUEST, cause);
            return Err(error.cure("give --machine with the ID of one").into());
        };
        let replica = self.vault.open_replica(id).map_err(|error| storage(&error))?;
        let never = || ApiError::new(&codes::NOT_FOUND, "the making of the replica never ended");
        Ok((id, replica.ok_or_else(|| Failure::Api(never()))?))
    }

    /// Replicas of a machine, or the one of this ID; all without a name.
    fn find(&self, wanted: Option<&str>) -> Result<Vec<ReplicaId>, Failure> {
        let all = self.vault.list().map_err(|error| refused(error.code(), &error))?;
        let Some(wanted) = wanted else { return Ok(all) };
        let named = |id: &ReplicaId| {
            let summary = self.vault.summary(*id).ok().flatten();
            id.to_string() == wanted || summary.is_some_and(|s| s.machine_name == wanted)
        };
        let found: Vec<ReplicaId> = all.into_iter().filter(named).collect();
        if found.is_empty() {
            let cause = format!("{} holds no replica of {wanted:?}", self.path.display());
            let error = ApiError::new(&codes::NOT_FOUND, cause);
            return Err(error.cure("see `landfall vault inspect` for what it holds").into());
        }
        Ok(found)
    }
}

fn claim(path: &Path) -> Result<File, Failure> {
    claim_retention_volume(path).map_err(|error| {
        Failure::Api(error.api_error().cure("stop the master target that uses it, or ask it"))
    })
}

/// What the store refuses, with its code and all causes.
fn refusal(code: &str, error: &dyn std::error::Error) -> ApiError {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    ApiError::new(codes::find(code).unwrap_or(&codes::INTERNAL), cause)
}

fn refused(code: &str, error: &dyn std::error::Error) -> Failure {
    Failure::Api(refusal(code, error))
}

pub(super) fn storage(error: &StorageError) -> Failure {
    refused(error.code(), error)
}

fn role(error: &RoleError) -> Failure {
    refused(error.code(), error)
}

#[cfg(test)]
mod tests;
