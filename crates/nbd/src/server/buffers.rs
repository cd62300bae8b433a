use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of buffers that a connection keeps for its next reads.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Buffers for large reads, used again and again: fresh memory would have to be mapped and cleared
/// by the kernel page by page, which takes longer than to fill it.
#[derive(Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer that goes back when it, or the last [`Bytes`] made of it, is dropped. Its content is
/// left over from an earlier read of the same connection until it is written.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    length: usize,
    home: Arc<Mutex<Kept>>,
}

impl Buffers {
    /// A buffer of `length` bytes.
    pub(super) fn take(&self, length: usize) -> Buffer {
        let found = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = kept.buffers.iter().position(|buffer| buffer.len() >= length);
            let found = fits.map(|at| kept.buffers.swap_remove(at));
            kept.bytes -= found.as_ref().map_or(0, Vec::len);
            found
        };
        let memory = found.unwrap_or_else(|| vec![0; length]);
        Buffer { memory, length, home: Arc::clone(&self.0) }
    }
}

impl Buffer {
    /// As it is sent.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut kept = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + memory.len() <= KEPT_BYTES_MAX {
            kept.bytes += memory.len();
            kept.buffers.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_bytes_go_and_the_store_is_bounded() {
        let buffers = Buffers::default();
        let mut first = buffers.take(100_000);
        first.fill(7);
        let sent = first.freeze();
        let part = sent.slice(5..10);
        drop(sent);
        assert_eq!(part, [7; 5][..]);
        drop(part);
        let again = buffers.take(90_000);
        assert_eq!((again.len(), again[0]), (90_000, 7), "the same memory");
        let many: Vec<_> = (0..3).map(|_| buffers.take(4 << 20)).collect();
        drop(many);
        drop(again);
        let kept = buffers.0.lock().expect("no panic");
        assert_eq!(kept.buffers.len(), 2, "the third and the small one are over the bound");
        assert_eq!(kept.bytes, 8 << 20);
    }
}
