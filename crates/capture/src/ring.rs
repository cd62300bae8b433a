//! Reads the ring in order.

use crate::layout::{self, RECORD_BYTES, RECORD_DATA_MAX, SEGMENT_BYTES, SEGMENT_VALUE};
use crate::mapping::Mapping;
use crate::{Captured, CapturedKind, LostReason};
use bytes::Bytes;
use landfall_types::DiskIndex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the reader found at its position.
pub(crate) enum Found {
    /// A record.
    Record(Captured),
    /// Nothing that is complete yet.
    Nothing,
    /// Something that ends data mode at the reader's position.
    Loss(LostReason),
}

/// Where the loader stands in the ring.
pub(crate) struct Reader {
    ring: Mapping,
    segments: u64,
    key: u64,
    position: u64,
    stuck_after: Duration,
    /// The position at which an uncommitted record was first seen, and when.
    waiting_at: Option<(u64, Instant)>,
}

impl Reader {
    pub(crate) const fn new(ring: Mapping, segments: u64, key: u64, stuck_after: Duration) -> Self {
        Self { ring, segments, key, position: 0, stuck_after, waiting_at: None }
    }

    /// The position after the last record that was handed out.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    fn at(&self) -> usize {
        let segment = (self.position / SEGMENT_BYTES) % self.segments;
        usize::try_from(segment * SEGMENT_VALUE + self.position % SEGMENT_BYTES)
            .expect("the ring is mapped, so its offsets fit")
    }

    /// True when the next record is complete.
    pub(crate) fn ready(&self) -> bool {
        let commit = self.ring.word(self.at()).load(Ordering::Acquire);
        commit == self.position.wrapping_add(1) ^ self.key
    }

    /// The next record, if `limit` (the head, or the position of a loss) lies behind it.
    pub(crate) fn next(&mut self, limit: u64, targets: usize) -> Found {
        if self.position >= limit {
            self.waiting_at = None;
            return Found::Nothing;
        }
        if !self.ready() {
            return self.uncommitted();
        }
        self.waiting_at = None;
        let at = self.at();
        let offset = self.ring.load(at + 8);
        let length = self.ring.load(at + 16);
        let time_ns = self.ring.load(at + 24);
        let [a, b, c, d, e, f, kind, _] = self.ring.load(at + 32).to_le_bytes();
        let data = u64::from(u32::from_le_bytes([a, b, c, d]));
        let target = u16::from_le_bytes([e, f]);
        if usize::from(target) >= targets
            || data > RECORD_DATA_MAX
            || !data.is_multiple_of(8)
            || (kind == layout::KIND_WRITE) != (data > 0 && data == length)
        {
            return Found::Loss(LostReason::Malformed);
        }
        let kind = match kind {
            layout::KIND_WRITE => CapturedKind::Write(self.payload(at, data)),
            layout::KIND_ZERO => CapturedKind::Zero,
            layout::KIND_DISCARD => CapturedKind::Discard,
            layout::KIND_FAILED => CapturedKind::Failed,
            layout::KIND_UNREADABLE => return Found::Loss(LostReason::Unreadable),
            _ => return Found::Loss(LostReason::Malformed),
        };
        self.position += RECORD_BYTES + data;
        let ring_position = self.position;
        let disk = DiskIndex(target);
        Found::Record(Captured { disk, kind, offset, length, ring_position, time_ns })
    }

    fn payload(&self, at: usize, data: u64) -> Bytes {
        let bytes = usize::try_from(data).expect("at most 256 KiB");
        self.ring.copy(at + usize::try_from(RECORD_BYTES).expect("48"), bytes)
    }

    /// A record is complete microseconds after its reservation. One that is not after seconds never will be, and
    /// waiting for it for ever would be a silent end of replication.
    fn uncommitted(&mut self) -> Found {
        let now = Instant::now();
        match self.waiting_at {
            Some((position, since)) if position == self.position => {
                if now.duration_since(since) >= self.stuck_after {
                    return Found::Loss(LostReason::Stuck);
                }
            }
            _ => self.waiting_at = Some((self.position, now)),
        }
        Found::Nothing
    }
}
