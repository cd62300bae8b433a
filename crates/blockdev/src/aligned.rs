use std::ops::{Deref, DerefMut};

/// Alignment of an [`AlignedBuf`]'s first byte: what direct I/O wants at most.
pub const ALIGN_BYTES: usize = 4096;

/// Bytes in memory whose first one is aligned to [`ALIGN_BYTES`], so that transfers need no copy in
/// between.
///
/// A `Vec` that is larger by one alignment, and never grows by itself.
#[derive(Debug)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuf {
    /// `length` zeroes.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        let memory = vec![0; length + ALIGN_BYTES];
        let start = memory.as_ptr().align_offset(ALIGN_BYTES);
        // `align_offset` may refuse (documented so for const evaluation): then the bytes are merely
        // not aligned.
        let start = if start <= ALIGN_BYTES { start } else { 0 };
        Self { memory, start, length }
    }

    /// Bytes that it could have without new memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.len() - ALIGN_BYTES
    }

    /// Makes it `length` bytes long; what it held before stays up to the shorter length, new bytes
    /// are whatever was there.
    pub fn set_len(&mut self, length: usize) {
        if length > self.capacity() {
            let mut grown = Self::zeroed(length.max(self.capacity() * 2));
            grown.length = length;
            grown[..self.length].copy_from_slice(self);
            *self = grown;
        } else {
            self.length = length;
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Direct I/O is refused for memory that is not aligned.
    #[test]
    fn stays_aligned_and_keeps_bytes_when_it_grows() {
        let mut buf = AlignedBuf::zeroed(10);
        buf.copy_from_slice(b"0123456789");
        for length in [100, 5000, 70_000] {
            buf.set_len(length);
            assert_eq!(buf.len(), length);
            assert_eq!(&buf[..10], b"0123456789");
            assert_eq!(buf.as_ptr().addr() % ALIGN_BYTES, 0);
        }
        buf.set_len(3);
        assert_eq!(&*buf, b"012");
    }
}
