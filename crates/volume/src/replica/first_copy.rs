//! The first copy: straight into the image, while captured writes go to the log (design section
//! 14.5).

use super::Replica;
use crate::body::{BaseContent, ImageCopy};
use crate::error::{IngestError, StorageError};
use crate::sync::{lock, read};
use landfall_types::{ByteRange, DiskIndex, Lsn, WindowId};

/// A piece of a first copy. Pieces of one disk come in order and without gaps.
#[derive(Clone, Copy, Debug)]
pub struct ImagePiece<'a> {
    /// The window that it belongs to.
    pub window: WindowId,
    /// Disk.
    pub disk: DiskIndex,
    /// First byte.
    pub offset: u64,
    /// Bytes covered.
    pub length: u64,
    /// `None`: all zeroes.
    pub data: Option<&'a [u8]>,
}

impl Replica {
    /// Puts a piece into the image; durable after [`Replica::image_flush`]. The log always lies
    /// over the image, so the order between pieces and records does not matter. A window that is
    /// new starts from the disks' beginning.
    ///
    /// # Errors
    /// [`IngestError::Piece`] for a piece out of order or where the image has exact content
    /// already,
    /// [`IngestError::OutOfBounds`], storage errors.
    pub fn image_write(&self, piece: ImagePiece<'_>) -> Result<(), IngestError> {
        if self.body()?.base == BaseContent::Exact {
            return Err(IngestError::Piece("the image has exact content already"));
        }
        // Held over the write: a freeze waits for it.
        let receiving = read(&self.receiving);
        let receiving = receiving.as_ref().ok_or_else(|| self.not_replicating())?;
        let geometry = receiving.log.line().geometry(piece.disk);
        let size = geometry.ok_or(IngestError::Piece("there is no such disk"))?.size_bytes;
        let range = ByteRange::at(piece.offset, piece.length).filter(|range| range.end <= size);
        let range = range.ok_or(IngestError::Piece("it lies outside the disk"))?;
        if piece.data.is_some_and(|data| data.len() as u64 != piece.length) {
            return Err(IngestError::Piece("its length is not what it says"));
        }
        // Nothing is written beneath a recovery point: it would show later content.
        let legal = receiving
            .log
            .line()
            .with_timeline(|timeline| timeline.newest_legal(Lsn::ZERO, Lsn::MAX).is_some());
        if !self.piece_is_new(&piece, range, legal)? {
            return Ok(());
        }
        let devices = self.medium.devices()?;
        let device = devices.get(&piece.disk).ok_or(IngestError::Piece("there is no such disk"))?;
        match piece.data {
            Some(data) => device.write_at(piece.offset, data),
            None => device.zero(piece.offset, piece.length),
        }
        .map_err(StorageError::device("write image"))?;
        self.piece_was_written(&piece, range);
        Ok(())
    }

    /// Makes durable what was written, and notes how far the copy has come. Several pieces can
    /// share one call.
    ///
    /// # Errors
    /// Storage errors.
    pub fn image_flush(&self) -> Result<Option<ImageCopy>, StorageError> {
        // Taken before the flush: what is written meanwhile is not covered by it.
        let received = lock(&self.image_received).clone();
        self.medium.flush_images()?;
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if body.image_copy != received {
            body.image_copy.clone_from(&received);
            core.store.write(body)?;
        }
        Ok(received)
    }

    fn piece_is_new(
        &self,
        piece: &ImagePiece<'_>,
        range: ByteRange,
        legal: bool,
    ) -> Result<bool, IngestError> {
        let mut received = lock(&self.image_received);
        let same = received.as_ref().filter(|copy| copy.window == piece.window);
        let disk = same.and_then(|c| c.durable_bytes.iter().find(|(disk, _)| *disk == piece.disk));
        if legal && disk.is_none_or(|(_, bytes)| *bytes < range.end) {
            return Err(IngestError::Piece("there are recovery points over the image already"));
        }
        if received.as_ref().is_none_or(|copy| copy.window != piece.window) {
            // The copy writes beneath what is known of the image; the first scrub takes it anew.
            for sums in self.medium.sums().values() {
                sums.reset()?;
            }
            *received = Some(ImageCopy { window: piece.window, durable_bytes: vec![] });
        }
        let have = received.as_ref().and_then(|copy| {
            copy.durable_bytes.iter().find(|(disk, _)| *disk == piece.disk).map(|(_, bytes)| *bytes)
        });
        let have = have.unwrap_or(0);
        if range.start > have {
            return Err(IngestError::Piece("a piece before it is missing"));
        }
        Ok(range.end > have)
    }

    fn piece_was_written(&self, piece: &ImagePiece<'_>, range: ByteRange) {
        let mut received = lock(&self.image_received);
        let Some(copy) = received.as_mut().filter(|copy| copy.window == piece.window) else {
            return;
        };
        match copy.durable_bytes.iter_mut().find(|(disk, _)| *disk == piece.disk) {
            Some((_, bytes)) => *bytes = (*bytes).max(range.end),
            None => copy.durable_bytes.push((piece.disk, range.end)),
        }
    }
}
