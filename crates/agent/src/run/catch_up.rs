//! Reads the disks and sends what the target lacks: first copies, comparisons, ranges of failed
//! writes.

use super::reader::DiskReader;
use crate::differences::{BLOCK_BYTES, differing};
use crate::log::is_zero;
use crate::plan::{ImagePlan, Plan};
use crate::ranges::RangeSet;
use crate::source::Source;
use crate::status::Status;
use crate::uplink::{Together, Uplink};
use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_capture::{Capture, CaptureError};
use landfall_repl::limits::{IMAGE_DATA_BYTES_MAX, IMAGE_ZERO_BYTES_MAX};
use landfall_repl::{HashRequest, ImageCopyPosition, ImageData, Refusal};
use landfall_types::{ByteRange, Class, DiskIndex, Lsn, WindowId, WindowMode, WindowReason};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Bytes read from a disk at once.
const READ_BYTES: u64 = 4 << 20;
/// Bytes compared as one piece of work.
const COMPARE_BYTES: u64 = 8 << 20;
/// Pieces of work at once: hides the round trips of the questions.
const COMPARE_AT_ONCE: usize = 4;
/// Pieces of a first copy whose answers are waited for at once.
const IMAGE_AT_ONCE: usize = 16;
/// Longest wait for writes in flight; then the barrier is tried again, with a word in the log.
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
}

/// How far the first copy is: survives the load of the capture.
#[derive(Default)]
pub(crate) struct ImageProgress(Mutex<Option<ImageCopyPosition>>);

impl ImageProgress {
    /// The copy, if one has begun and not ended.
    pub(crate) fn unfinished(&self) -> Option<ImageCopyPosition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, copy: Option<ImageCopyPosition>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = copy;
    }

    fn advance(&self, disk: DiskIndex, through: u64) {
        if let Some(copy) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            copy.durable_bytes.retain(|(other, _)| *other != disk);
            copy.durable_bytes.push((disk, through));
        }
    }
}

/// Pieces of a first copy whose answers are open.
struct ImageAnswers {
    open: Together<()>,
    /// Disk, end of the piece, its length, bytes sent for it.
    pieces: VecDeque<(DiskIndex, u64, u64, u64)>,
}

impl ImageAnswers {
    const fn new() -> Self {
        Self { open: Together::new(), pieces: VecDeque::new() }
    }
}

/// One catch-up and what it works with.
#[derive(Clone)]
pub(crate) struct CatchUp {
    pub(crate) source: Arc<Source>,
    pub(crate) capture: Arc<Capture>,
    pub(crate) uplink: Arc<dyn Uplink>,
    pub(crate) status: Arc<Status>,
    pub(crate) image: Arc<ImageProgress>,
    pub(crate) disks: Vec<Disk>,
}

impl CatchUp {
    /// Does the work of a window that is open, and closes it.
    pub(crate) async fn carry_out(self, plan: Plan, window: WindowId) -> Result<(), CatchUpError> {
        let mode = if plan.compare { WindowMode::Compare } else { WindowMode::Copy };
        let total: u64 = self.disks.iter().map(|disk| disk.geometry.size_bytes).sum();
        let estimate = plan.image.is_some().then_some(total);
        self.status.catch_up.begin(plan.reason, mode, estimate);
        self.barrier().await?;
        if let Some(image) = &plan.image {
            self.copy_into_image(image, window).await?;
        }
        if plan.compare {
            self.compare_disks(window).await?;
        }
        self.close().await;
        Ok(())
    }

    /// Reads ranges again whose content became unknown by failed writes.
    pub(crate) async fn reread(
        self,
        _window: WindowId,
        ranges: BTreeMap<DiskIndex, RangeSet>,
    ) -> Result<(), CatchUpError> {
        let total = ranges.values().map(RangeSet::bytes).sum();
        self.status.catch_up.begin(WindowReason::CaptureGap, WindowMode::Copy, Some(total));
        self.status.catch_up.phase("reading again", 0, total);
        self.barrier().await?;
        for disk in &self.disks {
            let reader = open(disk)?;
            let sector = u64::from(disk.geometry.sector_bytes);
            for range in ranges.get(&disk.index).iter().flat_map(|set| set.iter()) {
                let range = ByteRange {
                    start: range.start / sector * sector,
                    end: range.end.next_multiple_of(sector).min(disk.geometry.size_bytes),
                };
                for piece in pieces(range, READ_BYTES) {
                    let data = read(&reader, disk, piece).await?;
                    let head = self.capture.head();
                    let sent = self.append(head, disk.index, piece, &data, &[piece]).await;
                    self.status.catch_up.advance(piece.len(), sent);
                }
            }
        }
        self.close().await;
        Ok(())
    }

    /// Waits for the writes that were in flight when the window was opened: before the first read
    /// (design section 14.4).
    async fn barrier(&self) -> Result<(), CatchUpError> {
        self.status.catch_up.phase("waiting for writes in flight", 0, 0);
        loop {
            let capture = Arc::clone(&self.capture);
            let done = tokio::task::spawn_blocking(move || capture.barrier(BARRIER_MAX)).await;
            match done {
                Ok(Ok(_)) | Err(_) => return Ok(()),
                Ok(Err(error @ CaptureError::Barrier { .. })) => {
                    tracing::warn!(%error, "a disk of the machine is very slow");
                }
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// The window closes when the log has reached the head as of the end of the last read.
    async fn close(&self) {
        self.source.drained_to(self.capture.head()).await;
        let lsn = self.source.close_windows();
        self.image.set(None);
        self.status.catch_up.closed(lsn);
    }

    async fn copy_into_image(
        &self,
        plan: &ImagePlan,
        opened: WindowId,
    ) -> Result<(), CatchUpError> {
        let window = plan.window.unwrap_or(opened);
        let durable_bytes = plan.durable_bytes.clone();
        self.image.set(Some(ImageCopyPosition { window, durable_bytes }));
        loop {
            let copy =
                self.image.unfinished().expect("it was set above, and only this task unsets it");
            let done: u64 = copy.durable_bytes.iter().map(|(_, bytes)| bytes).sum();
            let total = self.disks.iter().map(|disk| disk.geometry.size_bytes).sum();
            self.status.catch_up.phase("first copy", done, total);
            match self.copy_from(&copy).await {
                Ok(()) => break,
                Err(CatchUpError::Refused(refusal)) if refusal.class() == Class::Transient => {
                    tracing::info!(%refusal, "the first copy waits");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
        // The pieces count only while captured writes of the same time are in the log.
        self.source.drained_to(self.capture.head()).await;
        self.image.set(None);
        Ok(())
    }

    async fn copy_from(&self, copy: &ImageCopyPosition) -> Result<(), CatchUpError> {
        for disk in &self.disks {
            let begun = copy.durable_bytes.iter().find(|(index, _)| *index == disk.index);
            let start = begun.map_or(0, |(_, bytes)| *bytes);
            let reader = open(disk)?;
            let mut answers = ImageAnswers::new();
            // Zeroes are collected: one piece for as many as come in a row.
            let mut zeroes: Option<ByteRange> = None;
            let range = ByteRange { start, end: disk.geometry.size_bytes };
            for chunk in pieces(range, READ_BYTES) {
                let data = read(&reader, disk, chunk).await?;
                for piece in pieces(chunk, IMAGE_DATA_BYTES_MAX as u64) {
                    let bytes = part(&data, chunk, piece);
                    if is_zero(&bytes) {
                        match &mut zeroes {
                            Some(run) if run.len() + piece.len() <= IMAGE_ZERO_BYTES_MAX => {
                                run.end = piece.end;
                                continue;
                            }
                            run => {
                                if let Some(full) = run.replace(piece) {
                                    self.send(copy.window, disk, full, None, &mut answers).await?;
                                }
                                continue;
                            }
                        }
                    }
                    if let Some(run) = zeroes.take() {
                        self.send(copy.window, disk, run, None, &mut answers).await?;
                    }
                    self.send(copy.window, disk, piece, Some(bytes), &mut answers).await?;
                }
            }
            if let Some(run) = zeroes.take() {
                self.send(copy.window, disk, run, None, &mut answers).await?;
            }
            while answers.open.len() > 0 {
                self.answered(&mut answers).await?;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        window: WindowId,
        disk: &Disk,
        range: ByteRange,
        data: Option<Bytes>,
        answers: &mut ImageAnswers,
    ) -> Result<(), CatchUpError> {
        while answers.open.len() >= IMAGE_AT_ONCE {
            self.answered(answers).await?;
        }
        let piece =
            ImageData { window, disk: disk.index, offset: range.start, length: range.len(), data };
        let through = piece.offset + piece.length;
        let sent = piece.data.as_ref().map_or(0, |data| data.len() as u64);
        answers.pieces.push_back((disk.index, through, piece.length, sent));
        answers.open.push(self.uplink.image(piece)).await;
        Ok(())
    }

    /// Waits for the oldest answer.
    async fn answered(&self, answers: &mut ImageAnswers) -> Result<(), CatchUpError> {
        let Some(answer) = answers.open.oldest().await else { return Ok(()) };
        answer.map_err(CatchUpError::Refused)?;
        let piece = answers.pieces.pop_front();
        let (disk, through, length, sent) = piece.expect("each answer belongs to a piece");
        self.image.advance(disk, through);
        self.status.catch_up.advance(length, sent);
        Ok(())
    }

    async fn compare_disks(&self, window: WindowId) -> Result<(), CatchUpError> {
        let total = self.disks.iter().map(|disk| disk.geometry.size_bytes).sum();
        self.status.catch_up.phase("comparing", 0, total);
        let mut at_once: JoinSet<Result<(), CatchUpError>> = JoinSet::new();
        for disk in &self.disks {
            let reader = open(disk)?;
            for chunk in
                pieces(ByteRange { start: 0, end: disk.geometry.size_bytes }, COMPARE_BYTES)
            {
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
        let pending = self.source.pending_bytes(disk.index, chunk);
        let sent = if pending == 0 {
            0
        } else {
            loop {
                // Read anew after a refusal: what was read before may be old by then.
                let data = read(reader, disk, chunk).await?;
                let head = self.capture.head();
                match self.differences(window, disk.index, chunk, &data).await {
                    Ok(different) => {
                        break self.append(head, disk.index, chunk, &data, &different).await;
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

    /// Appends `different` parts of what was read in `chunk`, where still pending; the rest of the
    /// chunk is settled.
    ///
    /// `head` is the ring's at the end of the read: the log must have reached it, so that every
    /// write which the read may have missed has left the pending set, or stands behind what is
    /// appended here (trap T-2). Waiting longer is harmless: whatever is written meanwhile leaves
    /// the pending set too.
    async fn append(
        &self,
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
            .map(|range| self.source.append_read(disk, range.start, &part(data, chunk, *range)))
            .sum();
        self.source.settle(disk, chunk);
        sent
    }
}

fn finished(
    joined: Option<Result<Result<(), CatchUpError>, tokio::task::JoinError>>,
) -> Result<(), CatchUpError> {
    match joined {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(CatchUpError::Read {
            disk: "a disk in the background".to_owned(),
            source: std::io::Error::other(error),
        }),
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
