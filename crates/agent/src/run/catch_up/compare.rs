//! Comparison of whole disks by hashes.

use super::{CatchUp, CatchUpError, RETRY, open, part, pieces, read};
use crate::differences::{BLOCK_BYTES, differing};
use crate::run::reader::DiskReader;
use crate::uplink::Together;
use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_repl::{HashRequest, Refusal};
use landfall_types::{ByteRange, Class, DiskIndex, Lsn, WindowId};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Bytes compared as one piece of work.
const COMPARE_BYTES: u64 = 8 << 20;
/// Pieces of work at once: hides the round trips of the questions.
const COMPARE_AT_ONCE: usize = 4;

impl CatchUp {
    pub(super) async fn compare_disks(
        &self,
        window: WindowId,
        which: &[DiskIndex],
    ) -> Result<(), CatchUpError> {
        let disks: Vec<&Disk> =
            self.disks.iter().filter(|disk| which.contains(&disk.index)).collect();
        if disks.is_empty() {
            return Ok(());
        }
        let total = disks.iter().map(|disk| disk.geometry.size_bytes).sum();
        self.status.catch_up.phase("comparing", 0, total);
        let mut at_once: JoinSet<Result<(), CatchUpError>> = JoinSet::new();
        for disk in disks {
            let reader = open(disk)?;
            let whole = ByteRange { start: 0, end: disk.geometry.size_bytes };
            for chunk in pieces(whole, COMPARE_BYTES) {
                if at_once.len() >= COMPARE_AT_ONCE {
                    finished(at_once.join_next().await)?;
                }
                let (this, reader, disk) = (self.clone(), Arc::clone(&reader), disk.clone());
                at_once
                    .spawn(async move { this.compare_chunk(window, &reader, &disk, chunk).await });
            }
        }
        while !at_once.is_empty() {
            finished(at_once.join_next().await)?;
        }
        Ok(())
    }

    async fn compare_chunk(
        &self,
        window: WindowId,
        reader: &Arc<DiskReader>,
        disk: &Disk,
        chunk: ByteRange,
    ) -> Result<(), CatchUpError> {
        let pending = self.source.pending_bytes(window, disk.index, chunk);
        let sent = if pending == 0 {
            0
        } else {
            loop {
                // Read anew after a refusal: what was read before may be old by then.
                let data = read(reader, disk, chunk).await?;
                let head = self.capture.head();
                match self.differences(window, disk.index, chunk, &data).await {
                    Ok(different) => {
                        break self
                            .append(window, head, disk.index, chunk, &data, &different)
                            .await;
                    }
                    Err(refusal) if refusal.class() == Class::Transient => {
                        tracing::info!(%refusal, "the comparison waits");
                        tokio::time::sleep(RETRY).await;
                    }
                    Err(refusal) => return Err(CatchUpError::Refused(refusal)),
                }
            }
        };
        self.status.catch_up.advance(chunk.len(), sent);
        Ok(())
    }

    /// Asks for coarse hashes, then for finer ones where those differ.
    ///
    /// An answer is about the target's content at some position behind the window's opening.
    /// Sectors that no write has touched since are the same at each such position; for the others
    /// the log decides, not this comparison.
    async fn differences(
        &self,
        window: WindowId,
        disk: DiskIndex,
        chunk: ByteRange,
        data: &Bytes,
    ) -> Result<Vec<ByteRange>, Refusal> {
        let mut suspects = vec![chunk];
        for block_bytes in BLOCK_BYTES {
            let asked = std::mem::take(&mut suspects);
            let mut answers = Together::new();
            for range in &asked {
                let request = HashRequest {
                    after: Lsn::new(window.0),
                    disk,
                    offset: range.start,
                    length: range.len(),
                    block_bytes,
                };
                answers.push(self.uplink.hash(request)).await;
            }
            for range in asked {
                let answer = answers.oldest().await.expect("one answer for each question");
                let theirs = answer?.hashes;
                let ours = part(data, chunk, range);
                suspects.extend(differing(&ours, range.start, block_bytes, &theirs));
            }
        }
        Ok(suspects)
    }
}

fn finished(
    joined: Option<Result<Result<(), CatchUpError>, tokio::task::JoinError>>,
) -> Result<(), CatchUpError> {
    match joined {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(CatchUpError::Ended(error)),
    }
}
