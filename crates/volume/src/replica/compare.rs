//! Hashes of the newest content, and how much a way home will have to send.

use super::Replica;
use super::core::each_entry;
use crate::error::{ContentError, StorageError};
use crate::medium::within;
use crate::sync::{lock, read};
use landfall_index::ExtentMap;
use landfall_types::{ByteRange, DiskIndex, LogId, Lsn};
use std::collections::BTreeMap;

/// Bytes read at once while hashing.
const HASH_READ_BYTES: u64 = 1 << 20;
/// Granularity of the estimate: what a catch-up in compare mode sends at least (design section 13,
/// B4).
const ESTIMATE_BLOCK_BYTES: u64 = 4096;

/// What is known beforehand about a way home (RQ-RE-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Estimate {
    /// Bytes of the 4 KiB blocks that are known to differ.
    pub bytes: u64,
    /// Sum of the disks' sizes.
    pub total_bytes: u64,
    /// False when records that would tell more were trimmed: it may be more.
    pub complete: bool,
}

impl Replica {
    /// 16 bytes of BLAKE3 for each block of the range, of the newest content; the last block may be
    /// shorter.
    ///
    /// # Errors
    /// [`ContentError::NotYet`] when the log does not reach `after`; [`ContentError::OutOfRange`];
    /// storage errors.
    pub fn hash(
        &self,
        disk: DiskIndex,
        range: ByteRange,
        block_bytes: u32,
        after: Lsn,
    ) -> Result<Vec<[u8; 16]>, ContentError> {
        let line = self.line();
        let newest = line.log.tail().lsn;
        if newest < after {
            return Err(ContentError::NotYet { newest, asked: after });
        }
        let size = line.geometry(disk).ok_or(ContentError::UnknownDisk(disk))?.size_bytes;
        within(range.start, range.len(), size)?;
        let block_bytes = u64::from(block_bytes.max(1));
        let mut hashes = Vec::new();
        let mut buf = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let block_end = range.end.min(at + block_bytes);
            let mut hasher = blake3::Hasher::new();
            while at < block_end {
                let length = (block_end - at).min(HASH_READ_BYTES);
                buf.resize(usize::try_from(length).expect("at most 1 MiB"), 0);
                let _trims = read(&self.medium.trims);
                line.read(&self.medium, disk, at, &mut buf)?;
                hasher.update(&buf);
                at += length;
            }
            let mut hash = [0; 16];
            hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            hashes.push(hash);
        }
        Ok(hashes)
    }

    /// What a way home would send: the blocks that the branch's log touches since the fork, and
    /// those that the old log touches behind it, each once. What the old disks took in after their
    /// last replicated record is not known.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn estimate(&self) -> Result<Estimate, StorageError> {
        let core = lock(&self.core);
        let body = core.store.body()?.clone();
        let fork = body.authority_branch().map_or(body.points_from, |branch| branch.fork);
        let branch_log = body.authority_branch().map_or(body.log, |branch| branch.log);
        let mut logs: Vec<(LogId, Lsn)> = vec![(branch_log, fork)];
        let tails =
            body.divergence.iter().filter_map(|entry| entry.log.map(|log| (log, entry.after)));
        logs.extend(tails);
        if !body.committed() {
            logs.push((body.log, fork));
        }
        let mut touched: BTreeMap<DiskIndex, ExtentMap<()>> = BTreeMap::new();
        let mut complete = true;
        for (log, after) in logs {
            // Discarded divergence is gone: what it touched is not known any more.
            let Ok((log, _)) = core.log(log) else {
                complete = false;
                continue;
            };
            let from = after.max(log.base().0);
            complete &= from == after;
            each_entry(log, from, log.tail().lsn, |entry| {
                let Some(range) = entry.header.range() else { return };
                let start = range.start / ESTIMATE_BLOCK_BYTES * ESTIMATE_BLOCK_BYTES;
                let end = range.end.next_multiple_of(ESTIMATE_BLOCK_BYTES);
                touched.entry(entry.header.disk).or_default().insert(ByteRange { start, end }, ());
            })?;
        }
        let size = |disk: DiskIndex| body.disk(disk).map_or(0, |disk| disk.geometry.size_bytes);
        let of_disk = |(disk, map): (&DiskIndex, &ExtentMap<()>)| {
            let size = size(*disk);
            map.iter()
                .map(|(range, ())| range.end.min(size).saturating_sub(range.start))
                .sum::<u64>()
        };
        Ok(Estimate {
            bytes: touched.iter().map(of_disk).sum(),
            total_bytes: body.disks.iter().map(|disk| disk.geometry.size_bytes).sum(),
            complete,
        })
    }
}
