//! The first copy: pieces that go straight into the image.

use super::{CatchUp, CatchUpError, READ_BYTES, RETRY, open, part, pieces, read};
use crate::log::is_zero;
use crate::plan::ImagePlan;
use crate::uplink::Together;
use bytes::Bytes;
use landfall_api_types::resource::Disk;
use landfall_repl::limits::{IMAGE_DATA_BYTES_MAX, IMAGE_ZERO_BYTES_MAX};
use landfall_repl::{ImageCopyPosition, ImageData};
use landfall_types::{ByteRange, Class, DiskIndex, WindowId};
use std::collections::VecDeque;

/// Pieces whose answers are waited for at once.
const IMAGE_AT_ONCE: usize = 16;

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

impl CatchUp {
    pub(super) async fn copy_into_image(
        &self,
        plan: &ImagePlan,
        opened: WindowId,
    ) -> Result<(), CatchUpError> {
        let window = plan.window.unwrap_or(opened);
        // Another window may have taken this one's place, and has the copy in its plan then.
        while let Some(copy) = self.source.image.unfinished().filter(|copy| copy.window == window) {
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
        self.source.image.advance(disk, through);
        self.status.catch_up.advance(length, sent);
        Ok(())
    }
}
