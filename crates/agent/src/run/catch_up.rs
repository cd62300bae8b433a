//! Reads the disks and sends what the target lacks: first copies, dirty ranges, comparisons, ranges
//! of failed writes.

mod compare;
mod image;

use super::reader::DiskReader;
use crate::plan::{DiskWork, Plan};
use crate::source::Source;
use crate::status::Status;
use crate::uplink::Uplink;
use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_capture::{Capture, CaptureError, Dirty, LostReason, Mode};
use landfall_repl::Refusal;
use landfall_types::{ByteRange, DiskIndex, WindowId, WindowMode};
use std::sync::Arc;
use std::time::Duration;

/// Bytes read from a disk at once.
const READ_BYTES: u64 = 4 << 20;
/// Longest wait for writes in flight; then it is tried again, with a word in the log.
const BARRIER_MAX: Duration = Duration::from_secs(30);
/// Pause after a refusal that may pass.
const RETRY: Duration = Duration::from_secs(1);

/// Why a catch-up can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatchUpError {
    #[error("read {disk}")]
    Read {
        disk: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("the target refuses: {0}")]
    Refused(Refusal),
    #[error("a part of it was ended: {0}")]
    Ended(tokio::task::JoinError),
}

/// One catch-up and what it works with.
#[derive(Clone)]
pub(crate) struct CatchUp {
    pub(crate) source: Arc<Source>,
    pub(crate) capture: Arc<Capture>,
    pub(crate) uplink: Arc<dyn Uplink>,
    pub(crate) status: Arc<Status>,
    pub(crate) disks: Vec<Disk>,
    /// How long bitmap mode is kept before data mode is tried again.
    pub(crate) return_after: Duration,
}

/// Whether bytes can be captured again on this disk in this load.
pub(crate) const fn can_return(reason: LostReason) -> bool {
    !matches!(reason, LostReason::NoData | LostReason::Grown)
}

impl CatchUp {
    /// Does the work of a window that is open, closes it, and lets the bitmap forget what it was
    /// for when the closing is durable at the target (trap T-3).
    pub(crate) async fn carry_out(self, plan: Plan, window: WindowId) -> Result<(), CatchUpError> {
        let mode = if plan.compares() { WindowMode::Compare } else { WindowMode::Copy };
        let total: u64 = self.disks.iter().map(|disk| disk.geometry.size_bytes).sum();
        self.status.catch_up.begin(plan.reason, mode, plan.image.is_some().then_some(total));
        let exact = self.back_to_data().await?;
        self.barrier().await?;
        let mut worked: Vec<DiskIndex> = plan.disks.iter().map(|(disk, _)| *disk).collect();
        if let Some(image) = &plan.image {
            worked = self.disks.iter().map(|disk| disk.index).collect();
            for disk in &worked {
                self.collect(*disk).await?;
            }
            self.copy_into_image(image, window).await?;
        }
        self.send_rotten(&plan, window).await?;
        let compare = self.send_dirty(&plan, window).await?;
        self.compare_disks(window, &compare).await?;
        self.close(window, exact, &worked).await
    }

    /// Puts every disk back into data mode; false when one can't be. From then on what is read can
    /// be corrected by what is captured; without, no moment ever looked like the copy (trap T-5).
    async fn back_to_data(&self) -> Result<bool, CatchUpError> {
        let mut exact = true;
        let mut waited = false;
        for disk in &self.disks {
            match self.capture.mode(disk.index) {
                Mode::Data => {}
                Mode::Bitmap(reason) if !can_return(reason) => exact = false,
                Mode::Bitmap(_) => {
                    if !std::mem::replace(&mut waited, true) {
                        self.status.catch_up.phase("waiting in bitmap mode", 0, 0);
                        tokio::time::sleep(self.return_after).await;
                    }
                    self.status.catch_up.phase("back to data mode", 0, 0);
                    let index = disk.index;
                    self.patiently(move |capture| capture.return_to_data(index, BARRIER_MAX))
                        .await?;
                    self.status.count_return();
                }
            }
        }
        self.status.show_modes(&self.capture);
        Ok(exact)
    }

    /// Waits for the writes that were in flight when the window was opened: before the first read
    /// (design section 14.4).
    async fn barrier(&self) -> Result<(), CatchUpError> {
        self.status.catch_up.phase("waiting for writes in flight", 0, 0);
        self.patiently(|capture| capture.barrier(BARRIER_MAX).map(drop)).await
    }

    async fn collect(&self, disk: DiskIndex) -> Result<Dirty, CatchUpError> {
        self.patiently(move |capture| capture.collect(disk, BARRIER_MAX)).await
    }

    /// Asks the capture for something that waits for writes in flight, as often as it takes.
    async fn patiently<T: Send + 'static>(
        &self,
        ask: impl Fn(&Capture) -> Result<T, CaptureError> + Clone + Send + 'static,
    ) -> Result<T, CatchUpError> {
        loop {
            let (capture, ask) = (Arc::clone(&self.capture), ask.clone());
            match tokio::task::spawn_blocking(move || ask(&capture)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error @ CaptureError::Barrier { .. })) => {
                    tracing::warn!(%error, "a disk of the machine is very slow");
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(error) => return Err(CatchUpError::Ended(error)),
            }
        }
    }

    /// Sends what the target can't read any more: before anything is compared, because it can't
    /// hash that either.
    async fn send_rotten(&self, plan: &Plan, window: WindowId) -> Result<(), CatchUpError> {
        let total = plan.ranges.iter().map(|(_, range)| range.len()).sum();
        if total > 0 {
            self.status.catch_up.phase("sending what has rotted at the target", 0, total);
        }
        for (disk, range) in &plan.ranges {
            self.source.extend_window(window, *disk, &[*range]);
            self.send_ranges(window, *disk, [*range]).await?;
        }
        Ok(())
    }

    /// Sends the dirty ranges of each disk; gives the disks that have to be compared.
    async fn send_dirty(
        &self,
        plan: &Plan,
        window: WindowId,
    ) -> Result<Vec<DiskIndex>, CatchUpError> {
        let mut compare = Vec::new();
        let mut dirty = Vec::new();
        for (disk, work) in &plan.disks {
            // Collected also where all is compared: what is pending is settled by either.
            match (work, self.collect(*disk).await?) {
                (DiskWork::Dirty, Dirty::Ranges(ranges)) => dirty.push((*disk, ranges)),
                (DiskWork::Dirty, Dirty::Everything(reason)) => {
                    tracing::info!(%disk, reason = reason.code(), "what is dirty is not known");
                    let whole = self.disks.iter().filter(|known| known.index == *disk);
                    let whole =
                        whole.map(|disk| ByteRange { start: 0, end: disk.geometry.size_bytes });
                    self.source.extend_window(window, *disk, &whole.collect::<Vec<_>>());
                    compare.push(*disk);
                }
                (DiskWork::Compare, _) => compare.push(*disk),
            }
        }
        let total = dirty.iter().flat_map(|(_, ranges)| ranges).map(ByteRange::len).sum();
        if total > 0 {
            self.status.catch_up.estimate(total);
            self.status.catch_up.phase("sending what is dirty", 0, total);
        }
        for (disk, ranges) in &dirty {
            self.source.extend_window(window, *disk, ranges);
            self.send_ranges(window, *disk, ranges.iter().copied()).await?;
        }
        Ok(compare)
    }

    /// Reads ranges that are pending, and sends them where they still are.
    async fn send_ranges(
        &self,
        window: WindowId,
        index: DiskIndex,
        ranges: impl IntoIterator<Item = ByteRange>,
    ) -> Result<(), CatchUpError> {
        let Some(disk) = self.disks.iter().find(|disk| disk.index == index) else { return Ok(()) };
        let reader = open(disk)?;
        let sector = u64::from(disk.geometry.sector_bytes);
        for range in ranges {
            let range = ByteRange {
                start: range.start / sector * sector,
                end: range.end.next_multiple_of(sector).min(disk.geometry.size_bytes),
            };
            for piece in pieces(range, READ_BYTES) {
                let data = read(&reader, disk, piece).await?;
                let head = self.capture.head();
                let sent = self.append(window, head, disk.index, piece, &data, &[piece]).await;
                self.status.catch_up.advance(piece.len(), sent);
            }
        }
        Ok(())
    }

    /// Closes the window, when the log has reached the head as of the end of the last read, and
    /// every range of a failed write was read again.
    async fn close(
        &self,
        window: WindowId,
        exact: bool,
        worked: &[DiskIndex],
    ) -> Result<(), CatchUpError> {
        let lsn = loop {
            self.source.drained_to(self.capture.head()).await;
            let unknown = self.source.take_unknown(window);
            for (disk, set) in &unknown {
                self.barrier().await?;
                self.send_ranges(window, *disk, set.iter()).await?;
            }
            if !unknown.is_empty() {
                continue;
            }
            // After the last read, before the closing: a disk that has left data mode since may
            // have been read in two states. The pump opens a window where that happened.
            if exact && !self.all_in_data_mode() {
                return Ok(());
            }
            match self.source.close_window(window, exact) {
                Some(lsn) => break lsn,
                None if self.source.catches_up(window) => {}
                None => return Ok(()),
            }
        };
        self.source.image.end();
        self.status.catch_up.closed(lsn);
        // Not before: an agent that dies until then finds the ranges dirty still.
        self.source.durable_at_target(lsn).await;
        self.source.bits_dropped(lsn);
        for disk in worked {
            self.capture.settled_all(*disk);
        }
        Ok(())
    }

    fn all_in_data_mode(&self) -> bool {
        self.disks.iter().all(|disk| self.capture.mode(disk.index) == Mode::Data)
    }

    /// Appends `different` parts of what was read in `chunk`, where still pending; the rest of the
    /// chunk is settled.
    ///
    /// `head` is the ring's at the end of the read: the log must have reached it, so that every
    /// write which the read may have missed has left the pending set, or stands behind what is
    /// appended here (trap T-2). Waiting longer is harmless: whatever is written meanwhile leaves
    /// the pending set too.
    async fn append(
        &self,
        window: WindowId,
        head: u64,
        disk: DiskIndex,
        chunk: ByteRange,
        data: &Bytes,
        different: &[ByteRange],
    ) -> u64 {
        self.source.room_for_catch_up().await;
        self.source.drained_to(head).await;
        let sent = different
            .iter()
            .map(|range| {
                self.source.append_read(window, disk, range.start, &part(data, chunk, *range))
            })
            .sum();
        self.source.settle(window, disk, chunk);
        sent
    }
}
fn open(disk: &Disk) -> Result<Arc<DiskReader>, CatchUpError> {
    DiskReader::open(disk).map_err(|source| CatchUpError::Read { disk: disk.path.clone(), source })
}

async fn read(
    reader: &Arc<DiskReader>,
    disk: &Disk,
    range: ByteRange,
) -> Result<Bytes, CatchUpError> {
    let data = reader.read(range).await;
    data.map_err(|source| CatchUpError::Read { disk: disk.path.clone(), source })
}

/// A range in pieces of at most `bytes`, in order; pieces begin at multiples of `bytes`.
fn pieces(range: ByteRange, bytes: u64) -> impl Iterator<Item = ByteRange> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        if start >= range.end {
            return None;
        }
        let end = ((start / bytes + 1) * bytes).min(range.end);
        let piece = ByteRange { start, end };
        start = end;
        Some(piece)
    })
}

/// The bytes of `range` of what was read in `chunk`.
fn part(data: &Bytes, chunk: ByteRange, range: ByteRange) -> Bytes {
    let at =
        |position: u64| usize::try_from(position - chunk.start).expect("a chunk fits into memory");
    data.slice(at(range.start)..at(range.end))
}
