//! Storage that says exactly what is durable: block devices, and directories of flat files.
//!
//! Everything above (journal, replicas, images) is written against [`BlockDevice`], [`Dir`] and
//! [`File`], and so runs unchanged on real disks ([`FileDevice`], [`FsDir`]) and on a simulated one
//! (`sim`) that loses power at every point.
//!
//! # Invariants
//! * Nothing is durable before the sync that covers it has returned: data by [`File::sync_data`] or
//!   [`BlockDevice::flush`], names (create, remove, rename) by [`Dir::sync`].
//! * After a failed sync the handle is *poisoned*: it takes no more writes and no more syncs,
//!   because the kernel has dropped the pages and a second sync would lie (fault F3). The holder
//!   reopens and recovers.
//! * Reads and writes are whole or an error; a short transfer never looks like a complete one.
//!
//! # Where to start
//! [`Dir`] and [`File`] in `dir.rs`; then `sim::for_each_power_cut` (feature `testing`).
//!
//! # Deliberately absent
//! Async: callers put blocking I/O on threads of their own. Caching: the kernel's, or none.

mod aligned;
mod device;
mod dir;
mod disk_file;
mod error;
mod file_device;
mod fs_dir;
mod keyed;
mod overlay;
mod raw;
mod room;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

pub use aligned::{ALIGN_BYTES, AlignedBuf};
pub use device::BlockDevice;
pub use dir::{Claim, Dir, File, NAME_BYTES_MAX};
pub use disk_file::DiskFile;
pub use error::{Action, DeviceError};
pub use file_device::{FileDevice, OpenMode};
pub use fs_dir::FsDir;
pub use keyed::KeyedDir;
pub use overlay::OverlayDir;
pub use room::{Rank, RankNow, RankedDir, Room};

use error::range_check;
