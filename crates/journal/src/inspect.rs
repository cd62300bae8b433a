//! Looks at a log without opening it: for `landfall journal stat|dump|verify`. Reads only, so it
//! can be used beside a running log (whose end it then sees as it happens to be) and on a log that
//! [`crate::Log::open`] refuses.

use crate::JournalError;
use crate::cover::Cover;
use crate::format::segment::SegmentHeader;
use crate::format::superblock::Superblock;
use crate::format::{NotOurs, VERSION};
use crate::recovery::scan::{self, FrameFound, Window};
use crate::recovery::{SlotFile, decide, is_live, load_index, read_slots};
use crate::superblock_file::Copies;
use crate::table::Table;
use decide::SuperblockVerdict;
use landfall_blockdev::Dir;
use landfall_types::{
    Chain, Control, Epoch, Incarnation, LogId, Lsn, RecordHeader, RecordKind, ReplicaId,
};
use std::fmt;

/// What a directory holds, in the order of the log.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The log.
    pub log: LogId,
    /// Whose.
    pub replica: ReplicaId,
    /// Epoch that it was created with.
    pub epoch: Epoch,
    /// The position before the oldest kept record.
    pub base: Lsn,
    /// Every record up to here was durable when the superblock was written.
    pub floor: Lsn,
    /// Sector size in bytes.
    pub sector_bytes: u32,
    /// Segment size in bytes.
    pub segment_bytes: u64,
    /// Its content is encrypted.
    pub encrypted: bool,
    /// What the two copies of the superblock were found to be (a row of the decision table).
    pub superblock: &'static str,
    /// Kept segments, oldest first.
    pub segments: Vec<SegmentInspection>,
    /// Segment files that hold nothing.
    pub spare_files: Vec<String>,
}

/// What a segment file holds.
#[derive(Clone, Debug)]
pub struct SegmentInspection {
    /// Name of its file.
    pub file: String,
    /// Sequence number.
    pub sequence: u64,
    /// The position before its first record, and the chain there.
    pub base: (Lsn, Chain),
    /// It has an intact index that agrees with its frames.
    pub indexed: bool,
    /// Its frames, as far as they are intact and in order.
    pub frames: Vec<FrameInspection>,
    /// Where the frames end, bytes from the segment's start.
    pub end: u64,
    /// Something of this use of the file lies behind that.
    pub leftovers: bool,
}

impl SegmentInspection {
    /// Its last record; the base when it has none.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.frames
            .iter()
            .filter_map(|frame| frame.records.last())
            .next_back()
            .map_or(self.base.0, |r| r.header.lsn)
    }
}

/// What a frame holds.
#[derive(Clone, Debug)]
pub struct FrameInspection {
    /// Bytes from the segment's start.
    pub offset: u64,
    /// Every record up to here was durable when the frame was written.
    pub floor: Lsn,
    /// Epoch of its records.
    pub epoch: Epoch,
    /// Their producer's run.
    pub incarnation: Incarnation,
    /// The producer's own position after them.
    pub source_position: u64,
    /// The chain after its last record.
    pub chain: Chain,
    /// Its records.
    pub records: Vec<RecordInspection>,
}

/// What is known about a record.
#[derive(Clone, Debug)]
pub struct RecordInspection {
    /// Its header.
    pub header: RecordHeader,
    /// Its content, for a control record that can be read.
    pub control: Option<Control>,
    /// Its payload is what was written; `None` when it was not looked at.
    pub intact: Option<bool>,
}

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Headers and tables.
    Records,
    /// Payloads too: reads everything.
    Payloads,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// A copy of the superblock.
    #[error("superblock: {0}")]
    Superblock(&'static str),
    /// A gap in the segments.
    #[error("the segment that begins after {after} is missing")]
    SegmentMissing {
        /// The last record before the gap.
        after: Lsn,
    },
    /// A segment ends before its successor begins.
    #[error("segment {sequence} ends at {found}, its successor begins after {expected}")]
    SegmentShort {
        /// Which.
        sequence: u64,
        /// Its last intact record.
        found: Lsn,
        /// What its successor stands on.
        expected: Lsn,
    },
    /// A sealed segment without a usable index: opening is slower, nothing is lost.
    #[error("segment {sequence} has no usable index")]
    IndexLost {
        /// Which.
        sequence: u64,
    },
    /// A payload is not what was written.
    #[error("the payload of record {lsn} is not what was written")]
    Payload {
        /// Which.
        lsn: Lsn,
    },
    /// The end is torn: what was never acknowledged is cut off at the next opening.
    #[error("a torn tail follows record {after}")]
    TornTail {
        /// The last good record.
        after: Lsn,
    },
    /// The end is missing: records that were durable.
    #[error("records after {found} are missing, up to {floor} they were durable")]
    EndMissing {
        /// The last good record.
        found: Lsn,
        /// What is known to have been durable.
        floor: Lsn,
    },
}

impl Problem {
    /// False for what the next opening repairs by itself, losing nothing that was acknowledged.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Superblock(_) | Self::IndexLost { .. } | Self::TornTail { .. })
    }
}

/// Lists what a directory holds.
///
/// # Errors
/// [`JournalError::NotALog`], [`JournalError::Corrupt`] when no superblock is intact,
/// [`JournalError::Version`], storage errors. Damage elsewhere is not an error: it is in the
/// listing.
pub fn inspect(dir: &dyn Dir, depth: Depth) -> Result<Inspection, JournalError> {
    let slots = read_slots(dir)?;
    let (superblock, label) = superblock(dir)?;
    let cover = Cover::of(dir);
    cover.agree(superblock.log, &superblock.key_check)?;
    let mut spare_files = Vec::new();
    let mut live: Vec<(SegmentHeader, SlotFile)> = Vec::new();
    for slot in slots {
        match slot.header {
            Ok(header) if is_live(&header, &superblock) => live.push((header, slot)),
            _ => spare_files.push(slot.name),
        }
    }
    live.sort_by_key(|(header, _)| header.sequence);
    let stops: Vec<Lsn> =
        live.iter().skip(1).map(|(next, _)| next.base.lsn).chain([Lsn::MAX]).collect();
    let segments = live
        .iter()
        .zip(stops)
        .map(|((header, slot), stop)| segment(&cover, header, slot, stop, depth))
        .collect::<Result<_, _>>()?;
    let Superblock { log, replica, epoch, base, floor, sector_bytes, segment_bytes, .. } =
        superblock;
    Ok(Inspection {
        log,
        replica,
        epoch,
        base,
        floor,
        sector_bytes,
        segment_bytes,
        encrypted: cover.is_sealed(),
        superblock: label,
        segments,
        spare_files,
    })
}

fn superblock(dir: &dyn Dir) -> Result<(Superblock, &'static str), JournalError> {
    let copies = Copies::read(dir)?.ok_or(JournalError::NotALog)?;
    if let Some(found) = copies.version() {
        return Err(JournalError::Version { what: "the superblock", found, known: VERSION });
    }
    let (label, verdict) = decide::superblock(&copies.facts(true));
    let [first, second] = copies.all();
    let chosen = match verdict {
        SuperblockVerdict::First(_) => first,
        SuperblockVerdict::Second => second,
        SuperblockVerdict::NotALog | SuperblockVerdict::Corrupt => &Err(NotOurs::Invalid),
    };
    match chosen {
        Ok(superblock) => Ok((superblock.clone(), label)),
        Err(_) => Err(JournalError::Corrupt { lsn: Lsn::ZERO, what: label }),
    }
}

fn segment(
    cover: &Cover,
    header: &SegmentHeader,
    slot: &SlotFile,
    stop: Lsn,
    depth: Depth,
) -> Result<SegmentInspection, JournalError> {
    let fail = || JournalError::device("read a segment");
    let mut window = Window::new(&*slot.file, cover).map_err(fail())?;
    let found = scan::frames(&mut window, header, stop).map_err(fail())?;
    let leftovers = match stop {
        Lsn::MAX => scan::beyond(&mut window, header, found.end).map_err(fail())?.leftovers,
        _ => false,
    };
    let (tail, chain) = found.tail(header);
    let agrees = |table: &Table| table.tail_lsn() == tail && table.chain() == chain;
    let index = load_index(&*slot.file, cover, header).map_err(fail())?;
    let frames = found
        .frames
        .iter()
        .map(|found| frame(&mut window, header, found, depth))
        .collect::<Result<_, _>>()
        .map_err(fail())?;
    Ok(SegmentInspection {
        file: slot.name.clone(),
        sequence: header.sequence,
        base: (header.base.lsn, header.base.chain),
        indexed: index.is_some_and(|(table, _)| agrees(&table)),
        frames,
        end: found.end,
        leftovers,
    })
}

fn frame(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    found: &FrameFound,
    depth: Depth,
) -> Result<FrameInspection, landfall_blockdev::DeviceError> {
    let header = &found.header;
    let mut at = header.payload_offset();
    let mut records = Vec::with_capacity(found.records.len());
    for record in &found.records {
        let is_control = record.kind == RecordKind::Control;
        let (mut intact, mut control) = (None, None);
        if depth == Depth::Payloads || is_control {
            let payload = window.payload(segment, record, at)?;
            intact = Some(payload.is_some());
            control = payload.filter(|_| is_control).and_then(|p| Control::decode(&p).ok());
        }
        records.push(RecordInspection { header: *record, control, intact });
        at += window.cover.stored_len(record);
    }
    Ok(FrameInspection {
        offset: u64::from(header.offset),
        floor: header.floor,
        epoch: header.epoch,
        incarnation: header.incarnation,
        source_position: header.source_position,
        chain: header.chain_after,
        records,
    })
}

impl Inspection {
    /// The last record that is intact and in order.
    #[must_use]
    pub fn tail(&self) -> Lsn {
        self.segments.last().map_or(self.base, SegmentInspection::last)
    }

    /// Everything that is not as it should be. Payloads count only where they were looked at
    /// ([`Depth::Payloads`]).
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.superblock.starts_with("S5") {
            problems.push(Problem::Superblock(self.superblock));
        }
        match self.segments.first() {
            Some(first) if first.base.0 == self.base => {}
            _ => problems.push(Problem::SegmentMissing { after: self.base }),
        }
        for pair in self.segments.windows(2) {
            problems.extend(between(&pair[0], &pair[1]));
        }
        let records = self.segments.iter().flat_map(|s| &s.frames).flat_map(|f| &f.records);
        for record in records.filter(|record| record.intact == Some(false)) {
            problems.push(Problem::Payload { lsn: record.header.lsn });
        }
        let floor = self.floors().max().unwrap_or(self.floor);
        if self.tail() < floor {
            problems.push(Problem::EndMissing { found: self.tail(), floor });
        } else if self.segments.last().is_some_and(|last| last.leftovers) {
            problems.push(Problem::TornTail { after: self.tail() });
        }
        problems
    }

    fn floors(&self) -> impl Iterator<Item = Lsn> {
        let frames = self.segments.iter().flat_map(|segment| &segment.frames);
        frames.map(|frame| frame.floor).chain([self.floor])
    }

    /// One line per record and frame, to be read by people.
    #[must_use]
    pub const fn listing(&self) -> Listing<'_> {
        Listing(self)
    }
}

fn between(segment: &SegmentInspection, next: &SegmentInspection) -> Option<Problem> {
    if next.sequence != segment.sequence + 1 {
        return Some(Problem::SegmentMissing { after: segment.last() });
    }
    if segment.last() != next.base.0 {
        let (sequence, found, expected) = (segment.sequence, segment.last(), next.base.0);
        return Some(Problem::SegmentShort { sequence, found, expected });
    }
    (!segment.indexed).then_some(Problem::IndexLost { sequence: segment.sequence })
}

/// The short form: what `stat` prints.
impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log        {}", self.log)?;
        writeln!(f, "replica    {}", self.replica)?;
        writeln!(f, "epoch      {}", self.epoch)?;
        writeln!(f, "records    after {} to {}", self.base, self.tail())?;
        writeln!(f, "floor      {}", self.floor)?;
        writeln!(f, "sectors    {} bytes", self.sector_bytes)?;
        if self.encrypted {
            writeln!(f, "encrypted  yes")?;
        }
        writeln!(
            f,
            "segments   {} of {} bytes, {} spare",
            self.segments.len(),
            self.segment_bytes,
            self.spare_files.len()
        )?;
        for segment in &self.segments {
            writeln!(
                f,
                "  {:>6}   {}  after {} to {}, {} frames, {} bytes{}",
                segment.sequence,
                segment.file,
                segment.base.0,
                segment.last(),
                segment.frames.len(),
                segment.end,
                if segment.indexed { ", sealed" } else { "" },
            )?;
        }
        Ok(())
    }
}

/// The long form of an [`Inspection`]: what `dump` prints.
#[derive(Debug)]
pub struct Listing<'a>(&'a Inspection);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        for segment in &self.0.segments {
            writeln!(
                f,
                "segment {} after {} chain {}",
                segment.sequence, segment.base.0, segment.base.1
            )?;
            for frame in &segment.frames {
                writeln!(
                    f,
                    "  frame at {} epoch {} incarnation {} source {} floor {} chain {}",
                    frame.offset,
                    frame.epoch,
                    frame.incarnation,
                    frame.source_position,
                    frame.floor,
                    frame.chain,
                )?;
                for record in &frame.records {
                    writeln!(f, "    {record}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for RecordInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordHeader { kind, catch_up, disk, payload_crc, lsn, offset, length } = self.header;
        match kind {
            RecordKind::Control => write!(f, "{lsn} control {length} bytes")?,
            RecordKind::Write => {
                write!(
                    f,
                    "{lsn} write disk {disk} at {offset} {length} bytes crc {payload_crc:08x}"
                )?;
            }
            RecordKind::Zero => write!(f, "{lsn} zero disk {disk} at {offset} {length} bytes")?,
            RecordKind::Discard => {
                write!(f, "{lsn} discard disk {disk} at {offset} {length} bytes")?
            }
        }
        if let Some(control) = &self.control {
            write!(f, " {control:?}")?;
        }
        if catch_up {
            f.write_str(" catch-up")?;
        }
        if self.intact == Some(false) {
            f.write_str(" DAMAGED")?;
        }
        Ok(())
    }
}
