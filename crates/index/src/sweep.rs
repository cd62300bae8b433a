use crate::piece::{block_of, class_bytes};
use crate::resolve::{Extent, Layer, Source, resolve};
use crate::{CHUNK_BYTES, chunk_of};
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::collections::VecDeque;

/// All stretches of one disk that some record of the layers holds, in the order of the disk,
/// neighbors of one record put together. Needs memory for one chunk, and time for the chunks that
/// were written: not for the size of the disk, the length of a discard, or versions that can't be
/// seen.
#[derive(Debug)]
pub struct Sweep<T> {
    disk: DiskIndex,
    /// Everything before here was given out or is in `ready`.
    at: u64,
    end: u64,
    ready: VecDeque<Extent<T>>,
}

impl<T: Copy + PartialEq> Sweep<T> {
    /// The stretches within `range` of a disk.
    #[must_use]
    pub const fn new(disk: DiskIndex, range: ByteRange) -> Self {
        Self { disk, at: range.start, end: range.end, ready: VecDeque::new() }
    }

    /// The next stretch. From one call to the next the layers may be others that say the same.
    ///
    /// # Errors
    /// Whatever the sources end with; the same stretch is tried again by the next call.
    pub fn next_extent<S: Source>(
        &mut self,
        layers: &[Layer<S, T>],
    ) -> Result<Option<Extent<T>>, S::Error> {
        // The last one that is ready may go on behind what was looked at so far.
        while self.ready.len() < 2 && self.at < self.end {
            self.advance(layers)?;
        }
        Ok(self.ready.pop_front())
    }

    fn advance<S: Source>(&mut self, layers: &[Layer<S, T>]) -> Result<(), S::Error> {
        let chunk = chunk_of(self.at);
        let next_small = self.next_small(layers, chunk)?;
        if next_small == Some(chunk) {
            let found = resolve(layers, self.disk, chunk, &[], Lsn::ZERO)?;
            let within = ByteRange { start: self.at, end: self.end };
            for extent in found {
                if let Some(range) = extent.range.intersect(&within) {
                    self.push(Extent { range, ..extent });
                }
            }
            self.at = chunk.saturating_add(CHUNK_BYTES);
            return Ok(());
        }
        // Nothing but blocks up to the next chunk with something smaller.
        let (holder, limit) = self.blocks(layers, self.at)?;
        let stop = limit.min(next_small.unwrap_or(self.end)).min(self.end);
        if let Some(extent) = holder {
            self.push(Extent { range: ByteRange { start: self.at, end: stop }, ..extent });
        }
        self.at = stop;
        Ok(())
    }

    /// The first chunk at or behind `chunk` that has pieces within.
    fn next_small<S: Source>(
        &self,
        layers: &[Layer<S, T>],
        chunk: u64,
    ) -> Result<Option<u64>, S::Error> {
        let mut first: Option<u64> = None;
        for layer in layers {
            if let Some(piece) = layer.next(self.disk, 0, chunk)? {
                let found = chunk_of(piece.start);
                first = Some(first.map_or(found, |first| first.min(found)));
            }
        }
        Ok(first)
    }

    /// The newest block over a byte, and up to where nothing changes among the blocks.
    fn blocks<S: Source>(
        &self,
        layers: &[Layer<S, T>],
        at: u64,
    ) -> Result<(Option<Extent<T>>, u64), S::Error> {
        let mut newest: Option<Extent<T>> = None;
        let mut limit = u64::MAX;
        for layer in layers {
            for class in layer.block_classes() {
                let start = block_of(at, class);
                let end = start.saturating_add(class_bytes(class));
                if let Some(piece) = layer.block(self.disk, class, start)? {
                    limit = limit.min(end);
                    if newest.is_none_or(|extent| extent.holder.lsn < piece.holder.lsn) {
                        let range = ByteRange { start, end };
                        newest = Some(Extent { range, holder: piece.holder, tag: layer.tag });
                    }
                }
                if let Some(piece) = layer.next(self.disk, class, end)? {
                    limit = limit.min(piece.start);
                }
            }
        }
        Ok((newest, limit))
    }

    fn push(&mut self, extent: Extent<T>) {
        match self.ready.back_mut() {
            Some(last)
                if last.range.end == extent.range.start
                    && (last.holder, last.tag) == (extent.holder, extent.tag) =>
            {
                last.range.end = extent.range.end;
            }
            _ => self.ready.push_back(extent),
        }
    }
}
