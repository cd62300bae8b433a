//! When a fold may go on: it is never urgent, and must leave the disks to ingest and branches.

/// Decides, before each piece that a fold writes, when that may be. Brings the clock that this
/// crate has not.
pub trait FoldPace: Sync {
    /// Called before about `bytes` are written (what becomes a hole counts as one), never by two
    /// threads at a time; may block for as long as the fold is to pause. False ends the fold with
    /// [`crate::FoldError::Stopped`]: it is taken up again, where its last checkpoint was, by the
    /// next one.
    fn before(&self, bytes: u64) -> bool;

    /// Bytes between two checkpoints: what a fold that was cut off does again at most. Each costs a
    /// flush of the images and a version of the superblock.
    fn checkpoint_bytes(&self) -> u64 {
        1 << 30
    }
}

/// As fast as the disks go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unpaced;

impl FoldPace for Unpaced {
    fn before(&self, _: u64) -> bool {
        true
    }
}
