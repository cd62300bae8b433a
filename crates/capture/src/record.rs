use crate::LostReason;
use bytes::Bytes;
use landfall_types::DiskIndex;

/// What a captured write does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CapturedKind {
    /// Bytes.
    Write(Bytes),
    /// The range reads as zeroes from here on.
    Zero,
    /// The range was given up; what it reads as depends on the disk (trap T-23).
    Discard,
    /// What the disk holds there is unknown, read it again: an earlier write to the range ended
    /// with an error, its end was not seen, or two writes of it were in flight at once (trap T-22).
    /// The range is pending ([`crate::Capture::pending`]) until that is settled.
    Failed,
}

/// One record of the ring. A large write comes as several, of at most 256 KiB, one behind the
/// other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Which disk.
    pub disk: DiskIndex,
    /// What it does.
    pub kind: CapturedKind,
    /// First byte of the disk.
    pub offset: u64,
    /// Bytes of the disk.
    pub length: u64,
    /// The ring's position *after* it: what [`crate::Capture::release`] takes.
    pub ring_position: u64,
    /// When it was captured, nanoseconds of the monotonic clock.
    pub time_ns: u64,
}

/// The end of data mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Why.
    pub reason: LostReason,
    /// The disk whose write it was, where that is known.
    pub disk: Option<DiskIndex>,
    /// Records before this position of the ring are a consistent prefix; there are none behind.
    pub at: u64,
}
