//! The superblock on disk: four files, two copies of each version, so that neither a power cut nor
//! a rotten copy takes the role back. Normative: `docs/formats/volume.md`.

use crate::body::Body;
use crate::error::StorageError;
use crate::frame::{FRAME_BODY_BYTES_MAX, FrameError, seal, unseal};
use crate::ranks::Ranks;
use landfall_blockdev::{Dir, File};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LFREPLSB";
/// Written when a replica's creation has ended: without it a replica without superblock is an
/// unfinished one, with it, a damaged one that must never be made anew.
const COMPLETE: &str = "complete";
/// Version `n` stands in files `2 × (n mod 2)` and the one after.
const COPIES: usize = 4;

fn name(copy: usize) -> String {
    format!("superblock.{copy}")
}

/// The only writer of a replica's superblock.
#[derive(Debug)]
pub(crate) struct Store {
    files: Vec<Arc<dyn File>>,
    sequence: u64,
    body: Body,
    ranks: Ranks,
    /// A write has failed: what is on disk is not known, so nothing may be decided on `body` any
    /// more.
    poisoned: bool,
}

/// What a directory holds.
pub(crate) enum Found {
    /// A replica.
    Replica(Box<Store>),
    /// One whose creation never finished: may be removed.
    Unfinished,
}

impl Store {
    /// Makes the superblock of a new replica; durable when this returns (but for the name of the
    /// directory).
    pub(crate) fn create(dir: &dyn Dir, body: Body) -> Result<Self, StorageError> {
        let mut files = Vec::with_capacity(COPIES);
        for copy in 0..COPIES {
            files.push(dir.create(&name(copy)).map_err(StorageError::device("create superblock"))?);
        }
        let mut store = Self {
            files,
            sequence: 0,
            ranks: Ranks::of(&body),
            body: body.clone(),
            poisoned: false,
        };
        store.write(body)?;
        // The names first, then the sign: a cut between the two leaves an unfinished replica, which
        // is removed; the other way round it could leave a sign without a superblock, and a new
        // replica would count as damaged.
        dir.sync().map_err(StorageError::device("sync the replica's directory"))?;
        let sign = dir.create(COMPLETE).map_err(StorageError::device("create replica"))?;
        sign.sync_data().map_err(StorageError::device("create replica"))?;
        dir.sync().map_err(StorageError::device("sync the replica's directory"))?;
        Ok(store)
    }

    /// Reads the newest version.
    pub(crate) fn open(dir: &dyn Dir) -> Result<Found, StorageError> {
        let names = dir.list().map_err(StorageError::device("list the replica's directory"))?;
        if !names.iter().any(|name| name == COMPLETE) {
            return Ok(Found::Unfinished);
        }
        let mut files = Vec::with_capacity(COPIES);
        for copy in 0..COPIES {
            // A missing file is made again: its copy counts as lost, the other copies decide.
            let open = if names.contains(&name(copy)) {
                dir.open(&name(copy))
            } else {
                dir.create(&name(copy))
            };
            files.push(open.map_err(StorageError::device("open superblock"))?);
        }
        let (sequence, body) = newest(&files)?;
        let mut store = Self { files, sequence, ranks: Ranks::of(&body), body, poisoned: false };
        store.repair()?;
        dir.sync().map_err(StorageError::device("sync the replica's directory"))?;
        Ok(Found::Replica(Box::new(store)))
    }

    /// Makes a replica count as unfinished, before its files are removed one by one: a cut in the
    /// middle must not leave one that looks damaged.
    pub(crate) fn condemn(dir: &dyn Dir) -> Result<(), StorageError> {
        let device = || StorageError::device("remove replica");
        if dir.list().map_err(device())?.iter().any(|name| name == COMPLETE) {
            dir.remove(COMPLETE).map_err(device())?;
            dir.sync().map_err(device())?;
        }
        Ok(())
    }

    /// The newest durable version.
    pub(crate) fn body(&self) -> Result<&Body, StorageError> {
        if self.poisoned { Err(StorageError::Poisoned) } else { Ok(&self.body) }
    }

    /// The rank of each log, which follows every version.
    pub(crate) const fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Makes a new version durable.
    pub(crate) fn write(&mut self, body: Body) -> Result<(), StorageError> {
        if self.poisoned {
            return Err(StorageError::Poisoned);
        }
        // Refused before anything is changed: a frame that is too long could be written, and never
        // be read again.
        let bytes = sealed(self.sequence + 1, &body)?;
        self.sequence += 1;
        self.body = body;
        self.put(&bytes)?;
        self.ranks.follow(&self.body);
        Ok(())
    }

    /// Both copies of this version again: one may have been lost to a cut or to rot, and what was
    /// read may still be only in memory after a kill. Decisions are made on it from now on, so it
    /// must be durable first. An intact copy is not written, and the others one by one: a cut can
    /// garble what is being written, and were that both copies, the version before, with the role
    /// before, would hold again.
    fn repair(&mut self) -> Result<(), StorageError> {
        let bytes = sealed(self.sequence, &self.body)?;
        let mut lost = Vec::new();
        for copy in pair(self.sequence) {
            let file = &self.files[copy];
            file.sync_data().map_err(StorageError::device("sync superblock"))?;
            let mut found = vec![0; bytes.len()];
            let long = file.len().map_err(StorageError::device("read superblock"))?;
            if long >= bytes.len() as u64 {
                file.read_at(0, &mut found).map_err(StorageError::device("read superblock"))?;
            }
            if found != bytes {
                lost.push(copy);
            }
        }
        for copy in lost {
            let file = &self.files[copy];
            file.write_at(0, &bytes).map_err(StorageError::device("write superblock"))?;
            file.sync_data().map_err(StorageError::device("sync superblock"))?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        // Set while the write is under way: if it fails, memory and disk may differ.
        self.poisoned = true;
        for copy in pair(self.sequence) {
            self.files[copy]
                .write_at(0, bytes)
                .map_err(StorageError::device("write superblock"))?;
        }
        for copy in pair(self.sequence) {
            self.files[copy].sync_data().map_err(StorageError::device("sync superblock"))?;
        }
        self.poisoned = false;
        Ok(())
    }
}

/// A version as it is written.
fn sealed(sequence: u64, body: &Body) -> Result<Vec<u8>, StorageError> {
    let body = minicbor_serde::to_vec(body).map_err(|_| StorageError::Encode)?;
    if body.len() > FRAME_BODY_BYTES_MAX {
        return Err(StorageError::TooLong(body.len()));
    }
    Ok(seal(MAGIC, sequence, &body))
}

/// The files of a version.
fn pair(sequence: u64) -> [usize; 2] {
    if sequence.is_multiple_of(2) { [0, 1] } else { [2, 3] }
}

/// The newest readable version among the copies.
fn newest(files: &[Arc<dyn File>]) -> Result<(u64, Body), StorageError> {
    let mut best: Option<(u64, Vec<u8>)> = None;
    for file in files {
        let length = file.len().map_err(StorageError::device("read superblock"))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| StorageError::Superblock)?];
        file.read_at(0, &mut bytes).map_err(StorageError::device("read superblock"))?;
        match unseal(MAGIC, &bytes) {
            Ok((sequence, body)) => match &best {
                // Two copies of one version that differ: not written by us, never guessed between.
                Some((found, other)) if *found == sequence && other != body => {
                    return Err(StorageError::Superblock);
                }
                Some((found, _)) if *found >= sequence => {}
                _ => best = Some((sequence, body.to_vec())),
            },
            Err(FrameError::Version(found)) => return Err(StorageError::Version { found }),
            Err(_) => {}
        }
    }
    let (sequence, bytes) = best.ok_or(StorageError::Superblock)?;
    let body = minicbor_serde::from_slice(&bytes).map_err(|_| StorageError::Superblock)?;
    Ok((sequence, body))
}

#[cfg(test)]
mod tests;
