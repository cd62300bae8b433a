use crate::layout;
use landfall_types::{ByteRange, DiskIndex};
use std::path::PathBuf;
use std::time::Duration;

/// Smallest ring: one segment.
pub const RING_BYTES_MIN: u64 = layout::SEGMENT_BYTES;

/// A disk to capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// How the records name it.
    pub disk: DiskIndex,
    /// Its device, for example `/dev/vda`.
    pub path: PathBuf,
}

/// What to do where bytes can't be captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// Refuse.
    Refuse,
    /// Mark only: all disks begin in [`crate::Mode::Bitmap`], with
    /// [`crate::LostReason::NoData`].
    Bitmap,
}

/// How capture is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring in bytes, rounded up to segments of 2 MiB. It is locked memory.
    pub ring_bytes: u64,
    /// Most memory for the bitmaps of all disks, bytes. Where one bit for each 4 KiB needs more,
    /// blocks are larger.
    pub bitmap_bytes_max: u64,
    /// A sleeping reader is woken early when so much has come, bytes.
    pub wake_bytes: u64,
    /// A reader that has emptied the ring is left alone for so long, unless `wake_bytes` come: one
    /// that is woken by every write takes a processor from whoever writes.
    pub rest: Duration,
    /// The live bits change their generation at most so often.
    pub rotate_after: Duration,
    /// A record that is reserved but not completed for so long never will be.
    pub stuck_after: Duration,
    /// How long a first [`crate::Capture::barrier`] waits for a moment without any write in flight.
    pub settle_max: Duration,
    /// After so long a write whose end was not seen is taken for ended, if the kernel counts none.
    /// Short, because nothing is a recovery point meanwhile; a write that ends after all is then
    /// one that was not seen, and ends data mode ([`crate::LostReason::Beside`]).
    pub give_up_after: Duration,
    /// Where bytes can't be captured.
    pub fallback: Fallback,
    /// Ranges whose writes are not wanted, for example swap: bytes of a disk. At most 8 a disk.
    pub excluded: Vec<(DiskIndex, ByteRange)>,
    /// Directory in a bpffs where programs and maps are pinned, so that capture outlives this
    /// process; `None`: it ends with it. One for each installation, for example
    /// `/sys/fs/bpf/landfall/ID`.
    pub pin: Option<PathBuf>,
    /// What the bitmaps are relative to: any number that names the replica. A pinned capture of
    /// another owner is replaced, and its bitmaps are not used.
    pub owner: u128,
    /// Added to the address of the kernel's direct map. Only tests use other values than 0: it
    /// makes the self-test fail.
    pub page_offset_error: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 20,
            bitmap_bytes_max: 256 << 20,
            wake_bytes: 4 << 20,
            rest: Duration::from_millis(1),
            rotate_after: Duration::from_secs(5),
            stuck_after: Duration::from_secs(5),
            settle_max: Duration::from_secs(2),
            give_up_after: Duration::from_secs(2),
            fallback: Fallback::Refuse,
            excluded: Vec::new(),
            pin: None,
            owner: 0,
            page_offset_error: 0,
        }
    }
}
