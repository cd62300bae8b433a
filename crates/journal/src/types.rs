use landfall_types::{Chain, Epoch, Incarnation, LogId, Lsn, Record, RecordHeader, ReplicaId};

/// What a log is created with.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Names the log; part of every checksum, so that no other log's bytes are taken for its own.
    pub log: LogId,
    /// The replica that it belongs to.
    pub replica: ReplicaId,
    /// Epoch of its first record.
    pub epoch: Epoch,
    /// The position before its first record: that one has LSN `base + 1`.
    pub base: Lsn,
    /// The chain at `base`.
    pub base_chain: Chain,
    /// Size of a segment file in bytes; [`LogConfig::SEGMENT_BYTES_DEFAULT`] unless there is a
    /// reason.
    pub segment_bytes: u64,
}

impl LogConfig {
    /// 64 MiB: large enough that a roll (two syncs) is rare, small enough that trimming follows the
    /// retention closely.
    pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
}

/// Who produced records: the same for all records of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The epoch that they were written in.
    pub epoch: Epoch,
    /// The producer's run.
    pub incarnation: Incarnation,
    /// The producer's own position after the last of the records (for an agent: the ring's), 0
    /// where it has none.
    pub source_position: u64,
}

/// A place in a log, with all that identifies the history up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The last record.
    pub lsn: Lsn,
    /// The chain after it.
    pub chain: Chain,
    /// Its epoch; at the base of a log, the epoch that the log was created with.
    pub epoch: Epoch,
    /// Its producer's run; [`Incarnation::NONE`] at the base of a log.
    pub incarnation: Incarnation,
    /// Its producer's own position: of the last [`Stamp`] appended at or before `lsn`.
    pub source_position: u64,
}

/// Where a record's payload stands. Good for the [`crate::Log`] that gave it, until that record is
/// trimmed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Location {
    /// Sequence number of the segment.
    pub(crate) segment: u64,
    /// Offset of the payload's first byte in the segment.
    pub(crate) offset: u32,
}

impl Location {
    /// Sequence number of the segment, and offset of the payload's first byte there: for whoever
    /// keeps locations elsewhere.
    #[must_use]
    pub const fn parts(&self) -> (u64, u32) {
        (self.segment, self.offset)
    }

    /// The inverse of [`Location::parts`]. Any parts are safe: what stands there is checked against
    /// the record's header when it is read.
    #[must_use]
    pub const fn from_parts(segment: u64, offset: u32) -> Self {
        Self { segment, offset }
    }
}

/// A record without its payload: what a view is built from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The record's header.
    pub header: RecordHeader,
    /// Where its payload stands.
    pub location: Location,
}

/// Records in order, without gaps, of one epoch and one incarnation: what a sender sends at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogBatch {
    /// Who produced them; `source_position` is the one after the last of them.
    pub stamp: Stamp,
    /// The chain before the first of them.
    pub chain_before: Chain,
    /// At least one.
    pub records: Vec<Record>,
}

/// How much room a log takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogStat {
    /// The log.
    pub log: LogId,
    /// The position before the oldest kept record.
    pub base: Lsn,
    /// The last record.
    pub tail: Lsn,
    /// The last durable record.
    pub durable: Lsn,
    /// Kept segments, oldest first; the last one is being written.
    pub segments: Vec<SegmentStat>,
    /// Segment files that hold nothing and wait to be used again.
    pub spare_files: usize,
    /// Bytes of all its files.
    pub file_bytes: u64,
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentStat {
    /// Sequence number.
    pub sequence: u64,
    /// The position before its first record.
    pub base: Lsn,
    /// Its last record; equals `base` when it holds none.
    pub last: Lsn,
    /// Bytes in use.
    pub used_bytes: u64,
}

/// What [`crate::Log::open`] found and did: for the log file and for status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryReport {
    /// What became of the end of the log.
    pub tail: TailVerdict,
    /// The position after recovery.
    pub position: Position,
    /// Everything up to here was proven to have been durable before.
    pub floor: Lsn,
    /// Sealed segments whose index was unusable and was built again from their frames.
    pub indexes_rebuilt: usize,
    /// A superblock copy had to be written again.
    pub superblock_repaired: bool,
}

/// What recovery decided about the end of the log (a row of the decision table in
/// `docs/formats/journal.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TailVerdict {
    /// It ends cleanly: appending goes on behind the last frame.
    Ends,
    /// Something lay behind the last good frame that had never been acknowledged: it was cut off
    /// for good.
    Torn {
        /// Where the torn part began, bytes from the segment's start.
        at: u64,
    },
}
