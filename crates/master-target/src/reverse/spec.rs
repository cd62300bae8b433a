//! What is known of a way home across restarts: a small file in the role's state directory.

use crate::blocking::blocking;
use landfall_api_types::{ApiError, codes};
use landfall_types::{InstanceId, ReplicaId};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a branch's log goes, and how far that has come.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ReverseSpec {
    /// The replica at home.
    pub(crate) to: ReplicaId,
    /// `host:port` of the process server.
    pub(crate) next_hop: String,
    /// The instance that the home replica expects.
    pub(crate) instance: InstanceId,
    /// The comparison has ended and its window is closed.
    pub(crate) compared: bool,
}

impl ReverseSpec {
    /// Of all replicas that have one.
    pub(crate) fn load_all(folder: &Path) -> io::Result<Vec<(ReplicaId, Self)>> {
        let mut all = Vec::new();
        if !folder.exists() {
            return Ok(all);
        }
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let (Ok(replica), Some("json")) =
                (name.parse(), path.extension().and_then(|e| e.to_str()))
            else {
                continue;
            };
            match serde_json::from_slice(&std::fs::read(&path)?) {
                Ok(spec) => all.push((replica, spec)),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a way home can't be read; order it again")
                }
            }
        }
        Ok(all)
    }

    /// Makes it durable.
    pub(crate) async fn save(&self, folder: &Path, replica: ReplicaId) -> Result<(), ApiError> {
        let (folder, path) = (folder.to_owned(), file(folder, replica));
        let text = serde_json::to_vec(self).expect("plain fields can be written as JSON");
        let written = blocking(move || write(&folder, &path, &text)).await;
        written.map_err(|error| {
            ApiError::new(&codes::NODE_FAILED, format!("note the way home: {error}"))
        })
    }

    /// Forgets it; gone already is no error.
    pub(crate) async fn remove(folder: &Path, replica: ReplicaId) {
        let path = file(folder, replica);
        blocking(move || {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a way home that has ended is still noted");
            }
        })
        .await;
    }
}

fn file(folder: &Path, replica: ReplicaId) -> PathBuf {
    folder.join(format!("{replica}.json"))
}

/// Under another name first: a cut leaves the old text or the new one.
fn write(folder: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    std::fs::File::open(folder)?.sync_all()
}
