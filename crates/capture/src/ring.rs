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

    /// A record is complete microseconds after its reservation. One that is not after seconds never
    /// will be, and waiting for it for ever would be a silent end of replication.
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x1234_5678_9abc_def0;
    const HEAD: u64 = 4096;

    fn reader(stuck_after: Duration) -> Reader {
        let bytes = usize::try_from(SEGMENT_VALUE).expect("fits");
        let ring = Mapping::anonymous(bytes).expect("memory");
        Reader::new(ring, 1, KEY, stuck_after)
    }

    /// Writes a record at the reader's position, as the program does: the commit word last.
    fn put(reader: &Reader, kind: u8, target: u16, data: u32, length: u64, key: u64) {
        let at = reader.at();
        let [a, b, c, d] = data.to_le_bytes();
        let [e, f] = target.to_le_bytes();
        let word = u64::from_le_bytes([a, b, c, d, e, f, kind, 0]);
        let store = |offset, value| reader.ring.word(at + offset).store(value, Ordering::SeqCst);
        store(8, 8192);
        store(16, length);
        store(24, 7);
        store(32, word);
        for n in (0..data as usize).step_by(8) {
            store(48 + n, u64::MAX);
        }
        store(0, (reader.position + 1) ^ key);
    }

    fn loss(reader: &mut Reader) -> Option<LostReason> {
        match reader.next(HEAD, 2) {
            Found::Loss(reason) => Some(reason),
            Found::Record(_) | Found::Nothing => None,
        }
    }

    #[test]
    fn records_come_in_order_and_only_when_complete() {
        let mut reader = reader(Duration::MAX);
        assert!(matches!(reader.next(HEAD, 2), Found::Nothing), "memory is no record");
        put(&reader, layout::KIND_WRITE, 1, 512, 512, !KEY);
        assert!(matches!(reader.next(HEAD, 2), Found::Nothing), "an earlier load's record");
        put(&reader, layout::KIND_WRITE, 1, 512, 512, KEY);
        assert!(matches!(reader.next(0, 2), Found::Nothing), "not behind the limit");
        let Found::Record(record) = reader.next(HEAD, 2) else { panic!("it is complete") };
        assert_eq!(record.kind, CapturedKind::Write(vec![0xff; 512].into()));
        assert_eq!((record.disk, record.offset, record.time_ns), (DiskIndex(1), 8192, 7));
        assert_eq!((record.ring_position, reader.position()), (560, 560));
        put(&reader, layout::KIND_DISCARD, 0, 0, 1 << 40, KEY);
        let Found::Record(record) = reader.next(HEAD, 2) else { panic!("it is complete") };
        assert_eq!((record.kind, record.length), (CapturedKind::Discard, 1 << 40));
    }

    /// A record that is reserved and never completed must not end replication silently.
    #[test]
    fn a_record_that_never_completes_ends_data_mode() {
        let mut reader = reader(Duration::ZERO);
        assert_eq!(loss(&mut reader), None, "seen for the first time");
        assert_eq!(loss(&mut reader), Some(LostReason::Stuck));
    }

    #[test]
    fn bytes_that_the_program_never_writes_end_data_mode() {
        let too_long = u32::try_from(RECORD_DATA_MAX).expect("fits") + 8;
        let bad = [
            (layout::KIND_WRITE, 2, 512, 512),
            (layout::KIND_WRITE, 0, too_long, u64::from(too_long)),
            (layout::KIND_WRITE, 0, 512, 1024),
            (layout::KIND_WRITE, 0, 0, 0),
            (layout::KIND_ZERO, 0, 512, 512),
            (99, 0, 0, 512),
        ];
        for (kind, target, data, length) in bad {
            let mut reader = reader(Duration::MAX);
            put(&reader, kind, target, data.min(1024), length, KEY);
            if data > 1024 {
                let at = reader.at();
                let word = u64::from(data) | u64::from(kind) << 48;
                reader.ring.word(at + 32).store(word, Ordering::SeqCst);
            }
            let found = loss(&mut reader);
            assert_eq!(found, Some(LostReason::Malformed), "{kind} {target} {data} {length}");
            assert_eq!(reader.position(), 0, "nothing of it was handed out");
        }
        let mut reader = reader(Duration::MAX);
        put(&reader, layout::KIND_UNREADABLE, 0, 0, 4096, KEY);
        assert_eq!(loss(&mut reader), Some(LostReason::Unreadable));
    }
}
