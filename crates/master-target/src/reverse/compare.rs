//! Comparing the branch's newest content with home's, by hashes from coarse to fine, and appending
//! what differs.
//!
//! A verdict "equal" holds although neither side stands still: between the moment at which home was
//! hashed and the one at which the branch was read, both take in the same records of the same log.
//! A block that differs is read again under the branch's append lock, so it is never older than a
//! record before it (trap T-2).

use super::Reverse;
use crate::blocking::blocking;
use landfall_repl::{HashRequest, Refusal};
use landfall_types::{ByteRange, Class, DiskIndex, Lsn, PAYLOAD_BYTES_MAX, Record};
use landfall_volume::{Branch, ContentError};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Bytes per hash at each step: coarse ones keep the common case cheap, the last is what file
/// systems write.
const BLOCK_BYTES: [u32; 3] = [1 << 20, 64 << 10, 4 << 10];
/// Bytes of a disk that are looked at together.
const STRIPE_BYTES: u64 = 8 << 20;
/// Stripes under way at once: hides the round trips of the three steps behind each other.
const STRIPES_AT_ONCE: usize = 6;
/// Finest unit in which zeroes are told from data.
const ZERO_UNIT: usize = 4096;
/// Pause after home could not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Why a comparison ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    /// The branch.
    #[error("the branch's content")]
    Content(#[from] ContentError),
    /// Home.
    #[error("home's hashes")]
    Refused(#[source] Refusal),
}

impl Reverse {
    /// Compares all disks.
    pub(super) async fn compare_disks(&self) -> Result<(), CompareError> {
        let sizes = self.branch.disks().into_iter().map(|disk| {
            (disk, self.branch.geometry(disk).map_or(0, |geometry| geometry.size_bytes))
        });
        let sizes: Vec<(DiskIndex, u64)> = sizes.collect();
        self.tracker.total(sizes.iter().map(|(_, size)| size).sum());
        let mut stripes = sizes.into_iter().flat_map(|(disk, size)| {
            let range = move |start| ByteRange { start, end: size.min(start + STRIPE_BYTES) };
            (0..size).step_by(to_usize(STRIPE_BYTES)).map(move |start| (disk, range(start)))
        });
        let mut running: JoinSet<Result<(u64, u64), CompareError>> = JoinSet::new();
        loop {
            while running.len() < STRIPES_AT_ONCE
                && let Some((disk, range)) = stripes.next()
            {
                let stripe = Stripe {
                    sender: self.sender.clone(),
                    branch: Arc::clone(&self.branch),
                    disk,
                    range,
                };
                running.spawn(stripe.equalize());
            }
            match running.join_next().await {
                None => return Ok(()),
                Some(Ok(ended)) => {
                    let (done, sent) = ended?;
                    self.tracker.advance(done, sent);
                }
                Some(Err(failed)) if failed.is_panic() => {
                    std::panic::resume_unwind(failed.into_panic())
                }
                Some(Err(_)) => return Ok(()),
            }
        }
    }
}

/// A part of a disk.
struct Stripe {
    sender: landfall_transport::SenderHandle,
    branch: Arc<Branch>,
    disk: DiskIndex,
    range: ByteRange,
}

impl Stripe {
    /// Returns bytes looked at and bytes appended.
    async fn equalize(self) -> Result<(u64, u64), CompareError> {
        let ours = Arc::new(self.read().await?);
        let mut differing = vec![self.range];
        for block_bytes in BLOCK_BYTES {
            let mut finer = Vec::new();
            for range in differing {
                let theirs = self.hashes(range, block_bytes).await?;
                let (ours, start) = (Arc::clone(&ours), self.range.start);
                let found = blocking(move || {
                    let bytes = &ours[to_usize(range.start - start)..to_usize(range.end - start)];
                    differing_blocks(bytes, range.start, block_bytes, &theirs)
                });
                finer.extend(found.await);
            }
            differing = finer;
        }
        let mut sent = 0;
        for range in differing {
            sent += append_newest(&self.branch, self.disk, range).await?;
        }
        Ok((self.range.len(), sent))
    }

    async fn read(&self) -> Result<Vec<u8>, ContentError> {
        let (branch, disk, range) = (Arc::clone(&self.branch), self.disk, self.range);
        blocking(move || {
            let mut bytes = vec![0; to_usize(range.len())];
            branch.read(disk, range.start, &mut bytes)?;
            Ok(bytes)
        })
        .await
    }

    async fn hashes(
        &self,
        range: ByteRange,
        block_bytes: u32,
    ) -> Result<Vec<[u8; 16]>, CompareError> {
        loop {
            let request = HashRequest {
                after: Lsn::ZERO,
                disk: self.disk,
                offset: range.start,
                length: range.len(),
                block_bytes,
            };
            match self.sender.hash(request).await {
                Ok(reply) => return Ok(reply.hashes),
                Err(refusal) if refusal.class() == Class::Transient => {
                    tracing::debug!(%refusal, "home could not hash; asked again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(refusal) => return Err(CompareError::Refused(refusal)),
            }
        }
    }
}

/// Appends the range with the content of the moment, durably; returns the bytes that have to be
/// sent for it.
pub(super) async fn append_newest(
    branch: &Arc<Branch>,
    disk: DiskIndex,
    range: ByteRange,
) -> Result<u64, ContentError> {
    let branch = Arc::clone(branch);
    blocking(move || {
        let mut sent = 0;
        let step = PAYLOAD_BYTES_MAX as u64;
        for start in (range.start..range.end).step_by(PAYLOAD_BYTES_MAX) {
            let piece = ByteRange { start, end: range.end.min(start + step) };
            branch.append_with(|lsn, newest| {
                let mut bytes = vec![0; to_usize(piece.len())];
                newest.read(disk, piece.start, &mut bytes)?;
                let records = catch_up_records(lsn, disk, piece.start, bytes);
                sent += records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
                Ok(records)
            })?;
        }
        branch.flush()?;
        Ok(sent)
    })
    .await
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a stripe fits into memory")
}

/// The ranges of `bytes` (which begin at `offset` of the disk) whose hashes differ, neighbors
/// joined. A missing hash counts as different: sending too much is safe.
fn differing_blocks(
    bytes: &[u8],
    offset: u64,
    block_bytes: u32,
    theirs: &[[u8; 16]],
) -> Vec<ByteRange> {
    let block = usize::try_from(block_bytes).expect("at most 1 MiB");
    let mut found: Vec<ByteRange> = Vec::new();
    for (n, ours) in bytes.chunks(block).enumerate() {
        let equal = theirs.get(n).is_some_and(|hash| blake3::hash(ours).as_bytes()[..16] == *hash);
        if equal {
            continue;
        }
        let start = offset + (n * block) as u64;
        let range = ByteRange { start, end: start + ours.len() as u64 };
        match found.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => found.push(range),
        }
    }
    found
}

/// Bytes as catch-up records: stretches of zeroes take no bytes.
fn catch_up_records(first: Lsn, disk: DiskIndex, offset: u64, bytes: Vec<u8>) -> Vec<Record> {
    let bytes = bytes::Bytes::from(bytes);
    let zero = |unit: &[u8]| unit.iter().all(|byte| *byte == 0);
    let mut runs: Vec<(usize, usize, bool)> = Vec::new();
    for (n, unit) in bytes.chunks(ZERO_UNIT).enumerate() {
        let start = n * ZERO_UNIT;
        match runs.last_mut() {
            Some((_, end, kind)) if *kind == zero(unit) => *end = start + unit.len(),
            _ => runs.push((start, start + unit.len(), zero(unit))),
        }
    }
    let mut lsn = first;
    let mut records = Vec::with_capacity(runs.len());
    for (start, end, zero) in runs {
        let at = offset + start as u64;
        let record = if zero {
            Record::zero(lsn, disk, at, (end - start) as u64)
        } else {
            Record::write(lsn, disk, at, bytes.slice(start..end))
        };
        records.push(record.as_catch_up());
        lsn = lsn.next();
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_types::RecordKind;

    #[test]
    fn differing_blocks_are_joined_and_missing_hashes_differ() {
        let mut bytes = vec![7; 10_000];
        let hash = |block: &[u8]| blake3::hash(block).as_bytes()[..16].try_into().expect("16");
        let theirs: Vec<[u8; 16]> = bytes.chunks(4096).map(hash).collect();
        assert!(differing_blocks(&bytes, 0, 4096, &theirs).is_empty());
        bytes[4096] = 8;
        bytes[9000] = 8;
        let found = differing_blocks(&bytes, 512, 4096, &theirs);
        assert_eq!(found, [ByteRange { start: 4608, end: 10_512 }]);
        assert_eq!(differing_blocks(&bytes, 0, 4096, &[]), [ByteRange { start: 0, end: 10_000 }]);
    }

    /// Records are dense, cover the range exactly, and give its bytes back.
    #[test]
    fn zeroes_are_told_from_data() {
        let mut bytes = vec![0; 5 * ZERO_UNIT + 512];
        bytes[2 * ZERO_UNIT + 1] = 1;
        bytes[5 * ZERO_UNIT] = 2;
        let records = catch_up_records(Lsn::new(9), DiskIndex(1), 100, bytes.clone());
        let kinds: Vec<RecordKind> = records.iter().map(|record| record.header.kind).collect();
        use RecordKind::{Write, Zero};
        assert_eq!(kinds, [Zero, Write, Zero, Write]);
        let mut rebuilt = vec![9; bytes.len()];
        for (n, record) in (9..).zip(&records) {
            assert_eq!((record.header.lsn, record.header.catch_up), (Lsn::new(n), true));
            let start = to_usize(record.header.offset - 100);
            let out = &mut rebuilt[start..start + to_usize(record.header.length)];
            if record.header.kind == Write {
                out.copy_from_slice(&record.payload)
            } else {
                out.fill(0)
            }
        }
        assert_eq!(rebuilt, bytes);
    }
}
