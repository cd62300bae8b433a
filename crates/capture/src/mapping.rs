//! Memory shared with the kernel, and buffers aligned for direct I/O: one of the modules with
//! `unsafe` code.
#![allow(unsafe_code)]

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mapping of a BPF map's memory, or of anonymous memory.
pub(crate) struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; all shared words are accessed as
// atomics, and other bytes only in the way that `copy` demands.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` of a map from `offset` on, shared with the kernel.
    pub(crate) fn of_map(
        fd: &impl AsFd,
        offset: u64,
        bytes: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of ours.
        let address = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, offset)
        }?;
        Ok(Self::own(address, bytes))
    }

    /// Memory of our own, zeroed.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above.
        let address = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)
        }?;
        Ok(Self::own(address, bytes))
    }

    fn own(address: *mut c_void, bytes: usize) -> Self {
        let address = NonNull::new(address.cast()).expect("mmap without MAP_FIXED never gives 0");
        Self { address, bytes }
    }

    /// The word at `offset`, shared with the program.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes, "a word of the mapping");
        // SAFETY: in bounds and aligned (checked above; mappings begin at a page); the other side
        // writes it only by single aligned stores and atomic operations.
        unsafe { AtomicU64::from_ptr(self.address.as_ptr().add(offset).cast()) }
    }

    /// A word of `u32`s and `u8`s that nobody writes any more.
    pub(crate) fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    /// Copies bytes that nobody writes any more: those of a committed record that is not released
    /// yet.
    pub(crate) fn copy(&self, offset: usize, bytes: usize) -> Bytes {
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.bytes),
            "within the mapping"
        );
        // SAFETY: in bounds (checked above). The program wrote these bytes before the commit word
        // that the caller has read with acquire ordering, and writes there again only when the
        // caller has moved the tail.
        Bytes::copy_from_slice(unsafe {
            std::slice::from_raw_parts(self.address.as_ptr().add(offset), bytes)
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping; no reference outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a whole mapping of ours can be unmapped");
    }
}

/// Memory that begins at a page: good for direct I/O on any disk.
pub struct AlignedBuffer(Mapping);

impl AlignedBuffer {
    /// Zeroed memory.
    ///
    /// # Errors
    /// When the system has none left.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        Mapping::anonymous(bytes).map(Self)
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: private, readable memory of this length, borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.0.address.as_ptr(), self.0.bytes) }
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: private, writable memory of this length, borrowed alone as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.0.address.as_ptr(), self.0.bytes) }
    }
}
