//! Reads the ring in order.

use crate::layout::{self, RECORD_BYTES, RECORD_DATA_MAX, SEGMENT_BYTES, SEGMENT_VALUE};
use crate::mapping::Mapping;
use crate::{Captured, CapturedKind, LostReason};
use landfall_types::DiskIndex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes of the ring that are copied at once: one piece of memory for many small records.
const BATCH_BYTES: u64 = 256 << 10;

/// What the reader found at its position.
pub(crate) enum Found {
    /// Records, with so many bytes of data.
    Records(usize),
    /// Nothing that is complete yet.
    Nothing,
    /// Something that nobody can read on from.
    Broken(LostReason),
}

/// A record's header.
struct Header {
    offset: u64,
    length: u64,
    time_ns: u64,
    data: u64,
    target: u16,
    kind: u8,
}

/// Where the loader stands in the ring.
pub(crate) struct Reader {
    segments: u64,
    key: u64,
    position: u64,
    stuck_after: Duration,
    /// The position at which an uncommitted record was first seen, and when.
    waiting_at: Option<(u64, Instant)>,
}

impl Reader {
    pub(crate) const fn new(segments: u64, key: u64, position: u64, stuck_after: Duration) -> Self {
        Self { segments, key, position, stuck_after, waiting_at: None }
    }

    /// The position after the last record that was handed out.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Goes on elsewhere; the caller knows that a record begins there, or that it is the head.
    pub(crate) const fn seek(&mut self, position: u64) {
        self.position = position;
        self.waiting_at = None;
    }

    fn at(&self, position: u64) -> usize {
        let segment = (position / SEGMENT_BYTES) % self.segments;
        usize::try_from(segment * SEGMENT_VALUE + position % SEGMENT_BYTES)
            .expect("the ring is mapped, so its offsets fit")
    }

    /// True when a complete record begins there.
    pub(crate) fn begins_at(&self, ring: &Mapping, position: u64) -> bool {
        position.is_multiple_of(8)
            && ring.word(self.at(position)).load(Ordering::Acquire)
                == position.wrapping_add(1) ^ self.key
    }

    /// True when the next record is complete.
    pub(crate) fn ready(&self, ring: &Mapping) -> bool {
        self.begins_at(ring, self.position)
    }

    /// Adds records of one segment that lie before `limit` (the head, or the position of a loss),
    /// at least one if there is any, then until `bytes_max` bytes of data.
    pub(crate) fn next(
        &mut self,
        ring: &Mapping,
        limit: u64,
        targets: usize,
        bytes_max: usize,
        records: &mut Vec<Captured>,
    ) -> Found {
        if self.position >= limit {
            self.waiting_at = None;
            return Found::Nothing;
        }
        let most = (bytes_max as u64).min(BATCH_BYTES);
        let segment = self.position / SEGMENT_BYTES;
        let (mut end, mut taken, mut headers) = (self.position, 0, Vec::new());
        while end < limit && end / SEGMENT_BYTES == segment && (taken < most || headers.is_empty())
        {
            if !self.begins_at(ring, end) {
                break;
            }
            let header = self.header(ring, end);
            if !header.is_possible(targets) {
                if headers.is_empty() {
                    return Found::Broken(LostReason::Malformed);
                }
                break;
            }
            if header.kind == layout::KIND_SKIP {
                if headers.is_empty() {
                    // The loss that belongs to it lies here: the caller takes it, then comes again.
                    self.position += header.length;
                    self.waiting_at = None;
                    return Found::Records(0);
                }
                break;
            }
            end += RECORD_BYTES + header.data;
            taken += header.data;
            headers.push(header);
        }
        if headers.is_empty() {
            return self.uncommitted();
        }
        self.waiting_at = None;
        self.copy(ring, end, headers, records);
        Found::Records(usize::try_from(taken).expect("at most a batch and a record"))
    }

    fn header(&self, ring: &Mapping, position: u64) -> Header {
        let at = self.at(position);
        let [a, b, c, d, e, f, kind, _] = ring.load(at + 32).to_le_bytes();
        Header {
            offset: ring.load(at + 8),
            length: ring.load(at + 16),
            time_ns: ring.load(at + 24),
            data: u64::from(u32::from_le_bytes([a, b, c, d])),
            target: u16::from_le_bytes([e, f]),
            kind,
        }
    }

    /// Copies the records from our position to `end` in one piece, and cuts it.
    fn copy(
        &mut self,
        ring: &Mapping,
        end: u64,
        headers: Vec<Header>,
        records: &mut Vec<Captured>,
    ) {
        let has_data = headers.iter().any(|header| header.data > 0);
        let bytes = usize::try_from(end - self.position).expect("at most a segment and its slack");
        let all = has_data.then(|| ring.copy(self.at(self.position), bytes));
        let mut at = 0;
        for header in headers {
            let data = usize::try_from(header.data).expect("at most 256 KiB");
            let start = at + usize::try_from(RECORD_BYTES).expect("48");
            let kind = match (header.kind, &all) {
                (layout::KIND_WRITE, Some(all)) => {
                    CapturedKind::Write(all.slice(start..start + data))
                }
                (layout::KIND_ZERO, _) => CapturedKind::Zero,
                (layout::KIND_DISCARD, _) => CapturedKind::Discard,
                _ => CapturedKind::Failed,
            };
            at = start + data;
            let ring_position = self.position + at as u64;
            let Header { offset, length, time_ns, target, .. } = header;
            let disk = DiskIndex(target);
            records.push(Captured { disk, kind, offset, length, ring_position, time_ns });
        }
        self.position = end;
    }

    /// A record is complete microseconds after its reservation. One that is not after seconds never
    /// will be, and waiting for it for ever would be a silent end of replication.
    fn uncommitted(&mut self) -> Found {
        let now = Instant::now();
        match self.waiting_at {
            Some((position, since)) if position == self.position => {
                if now.duration_since(since) >= self.stuck_after {
                    return Found::Broken(LostReason::Stuck);
                }
            }
            _ => self.waiting_at = Some((self.position, now)),
        }
        Found::Nothing
    }
}

impl Header {
    /// Whether the program could have written it.
    fn is_possible(&self, targets: usize) -> bool {
        let fits = usize::from(self.target) < targets
            && self.data <= RECORD_DATA_MAX
            && self.data.is_multiple_of(8)
            && self.length > 0;
        let has_data = self.data > 0 && self.data == self.length;
        match self.kind {
            layout::KIND_WRITE => fits && has_data,
            layout::KIND_SKIP => fits && self.data == 0 && self.length.is_multiple_of(8),
            layout::KIND_ZERO
            | layout::KIND_DISCARD
            | layout::KIND_FAILED
            | layout::KIND_OVERLAP => fits && self.data == 0,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x1234_5678_9abc_def0;
    const HEAD: u64 = 4096;

    struct Ring {
        memory: Mapping,
        reader: Reader,
    }

    fn ring(stuck_after: Duration) -> Ring {
        let bytes = usize::try_from(SEGMENT_VALUE).expect("fits");
        let memory = Mapping::anonymous(bytes).expect("memory");
        Ring { memory, reader: Reader::new(1, KEY, 0, stuck_after) }
    }

    impl Ring {
        /// Writes a record at `position`, as the program does: the commit word last.
        fn put(&self, position: u64, kind: u8, target: u16, data: u32, length: u64, key: u64) {
            let at = self.reader.at(position);
            let [a, b, c, d] = data.to_le_bytes();
            let [e, f] = target.to_le_bytes();
            let word = u64::from_le_bytes([a, b, c, d, e, f, kind, 0]);
            let store =
                |offset, value| self.memory.word(at + offset).store(value, Ordering::SeqCst);
            store(8, 8192);
            store(16, length);
            store(24, 7);
            store(32, word);
            for n in (0..data.min(4096) as usize).step_by(8) {
                store(48 + n, u64::MAX);
            }
            store(0, (position + 1) ^ key);
        }

        fn next(&mut self, limit: u64) -> (Found, Vec<Captured>) {
            let mut records = Vec::new();
            let found = self.reader.next(&self.memory, limit, 2, usize::MAX, &mut records);
            (found, records)
        }

        fn broken(&mut self) -> Option<LostReason> {
            match self.next(HEAD).0 {
                Found::Broken(reason) => Some(reason),
                Found::Records(_) | Found::Nothing => None,
            }
        }
    }

    #[test]
    fn records_come_in_order_and_only_when_complete() {
        let mut ring = ring(Duration::MAX);
        assert!(matches!(ring.next(HEAD).0, Found::Nothing), "memory is no record");
        ring.put(0, layout::KIND_WRITE, 1, 512, 512, !KEY);
        assert!(matches!(ring.next(HEAD).0, Found::Nothing), "an earlier load's record");
        ring.put(0, layout::KIND_WRITE, 1, 512, 512, KEY);
        assert!(matches!(ring.next(0).0, Found::Nothing), "not behind the limit");
        let (found, records) = ring.next(HEAD);
        assert!(matches!(found, Found::Records(512)));
        let [record] = &records[..] else { panic!("one is complete: {records:?}") };
        assert_eq!(record.kind, CapturedKind::Write(vec![0xff; 512].into()));
        assert_eq!((record.disk, record.offset, record.time_ns), (DiskIndex(1), 8192, 7));
        assert_eq!((record.ring_position, ring.reader.position()), (560, 560));
        ring.put(560, layout::KIND_DISCARD, 0, 0, 1 << 40, KEY);
        ring.put(608, layout::KIND_OVERLAP, 0, 0, 4096, KEY);
        ring.put(656, layout::KIND_WRITE, 0, 1024, 1024, KEY);
        let (_, records) = ring.next(HEAD);
        let kinds: Vec<_> = records.iter().map(|record| record.kind.clone()).collect();
        let data = CapturedKind::Write(vec![0xff; 1024].into());
        assert_eq!(kinds, [CapturedKind::Discard, CapturedKind::Failed, data]);
        assert_eq!(records[0].length, 1 << 40);
        assert_eq!(records[2].ring_position, 656 + 48 + 1024);
    }

    /// A write that could not be read to its end leaves a place that is stepped over.
    #[test]
    fn the_place_of_an_unreadable_write_is_skipped() {
        let mut ring = ring(Duration::MAX);
        ring.put(0, layout::KIND_ZERO, 0, 0, 512, KEY);
        ring.put(48, layout::KIND_SKIP, 0, 0, 960, KEY);
        ring.put(1008, layout::KIND_ZERO, 1, 0, 512, KEY);
        assert_eq!(ring.next(HEAD).1.len(), 1);
        assert_eq!(ring.reader.position(), 48, "there the loss is taken");
        assert!(ring.next(HEAD).1.is_empty());
        assert_eq!(ring.reader.position(), 1008);
        assert_eq!(ring.next(HEAD).1[0].disk, DiskIndex(1));
    }

    #[test]
    fn reading_goes_on_where_a_record_begins() {
        let mut ring = ring(Duration::MAX);
        ring.put(0, layout::KIND_ZERO, 0, 0, 512, KEY);
        ring.put(48, layout::KIND_ZERO, 1, 0, 512, KEY);
        assert!(ring.reader.begins_at(&ring.memory, 48));
        assert!(
            !ring.reader.begins_at(&ring.memory, 96) && !ring.reader.begins_at(&ring.memory, 7)
        );
        ring.reader.seek(48);
        assert_eq!(ring.next(HEAD).1[0].disk, DiskIndex(1));
    }

    /// A record that is reserved and never completed must not end replication silently.
    #[test]
    fn a_record_that_never_completes_ends_data_mode() {
        let mut ring = ring(Duration::ZERO);
        assert_eq!(ring.broken(), None, "seen for the first time");
        assert_eq!(ring.broken(), Some(LostReason::Stuck));
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
            (layout::KIND_SKIP, 0, 0, 0),
            (99, 0, 0, 512),
        ];
        for (kind, target, data, length) in bad {
            let mut ring = ring(Duration::MAX);
            ring.put(0, kind, target, data, length, KEY);
            let found = ring.broken();
            assert_eq!(found, Some(LostReason::Malformed), "{kind} {target} {data} {length}");
            assert_eq!(ring.reader.position(), 0, "nothing of it was handed out");
        }
    }
}
