//! What is captured of a disk, where a capture comes from, and what of a disk is dirty.

use crate::LostReason;
use landfall_types::ByteRange;

/// What is captured of one disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Every write, with its bytes, in order; the bitmap is kept beneath.
    Data,
    /// Changed ranges only, since this happened.
    Bitmap(LostReason),
}

/// Where a capture comes from: decides what an agent that starts has to do first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A new load. Nothing is known of what was written before it.
    Fresh,
    /// The pinned capture of an earlier process goes on: same incarnation, same ring, same bitmaps.
    Resumed,
    /// A new load that was active before an earlier one was detached, and has taken over its
    /// bitmaps: a new incarnation, and of each disk that has a baseline only what is dirty is
    /// missing.
    Replaced,
}

/// What of a disk may differ from the target, beside the records that are not durable there yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dirty {
    /// These ranges at most: in order, disjoint, of whole blocks of the bitmap and within the disk.
    Ranges(Vec<ByteRange>),
    /// Anything: the ranges are not known. The cheap answer is a comparison by hashes.
    Everything(LostReason),
}

impl Dirty {
    /// True when nothing is dirty.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }
}
