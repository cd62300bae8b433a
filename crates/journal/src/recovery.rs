//! Opening a log: find out what is there, decide by the tables of [`decide`], make the result
//! durable.
//!
//! Nothing is written before the decision, and what is written can be done again: a crash at any
//! point of a recovery leads to the same decision in the next one.

pub(crate) mod decide;
pub(crate) mod scan;

use crate::cover::Cover;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::index::{self, INDEX_HEADER_BYTES, IndexHead, IndexPlace};
use crate::format::segment::{SegmentHeader, Trailer};
use crate::format::superblock::Superblock;
use crate::format::{BLOCK_BYTES, NotOurs, VERSION, align_up};
use crate::log::sealed::Sealed;
use crate::log::segment::{Segment, SegmentState, slot_number};
use crate::superblock_file::{Copies, SuperblockFile};
use crate::table::Table;
use crate::{JournalError, RecoveryReport, TailVerdict};
use decide::{
    InnerFacts, InnerVerdict, LastFacts, LastVerdict, SegmentsFacts, SegmentsVerdict,
    SuperblockVerdict,
};
use landfall_blockdev::{AlignedBuf, DeviceError, Dir, File};
use landfall_types::Lsn;
use scan::Window;
use std::collections::VecDeque;
use std::sync::Arc;

/// A log as recovery found it.
pub(crate) struct Recovered {
    pub(crate) superblock: SuperblockFile,
    /// Full segments, oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    /// The segment that takes records, if it takes more.
    pub(crate) last: Segment,
    /// Segment files that hold nothing.
    pub(crate) spares: Vec<String>,
    /// Number for the name of the next segment file.
    pub(crate) next_slot: u32,
    pub(crate) report: RecoveryReport,
}

/// A segment file and what its first sector says.
pub(crate) struct SlotFile {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn File>,
    pub(crate) header: Result<SegmentHeader, NotOurs>,
}

/// Finds out what the directory holds; its content must be plain, or sealed with the directory's
/// key.
pub(crate) fn recover(dir: &dyn Dir) -> Result<Recovered, JournalError> {
    let slots = read_slots(dir)?;
    let (mut superblock, superblock_repaired) = choose_superblock(dir, &slots)?;
    let cover = Cover::of(dir);
    cover.agree(superblock.current().log, &superblock.current().key_check)?;
    let next_slot =
        slots.iter().filter_map(|slot| slot_number(&slot.name)).max().map_or(0, |n| n + 1);
    let (live, spares) = live_segments(slots, superblock.current())?;
    let mut sealed: VecDeque<Sealed> = VecDeque::with_capacity(live.len());
    let mut indexes_rebuilt = 0;
    let mut end = None;
    let mut live = live.into_iter().peekable();
    while let Some((header, slot)) = live.next() {
        let next = live.peek().map(|(header, _)| *header);
        match next {
            Some(next) => {
                let (segment, rebuilt) = inner_segment(&cover, header, slot, &next)?;
                indexes_rebuilt += usize::from(rebuilt);
                sealed.push_back(segment);
            }
            None => end = Some(last_segment(&cover, header, slot, superblock.current())?),
        }
    }
    let (last, tail, floor) = end.expect("the segments are at least one: decided before");
    make_durable(dir, &last, &mut superblock, superblock_repaired)?;
    let position = last.table.tail();
    let report = RecoveryReport { tail, position, floor, indexes_rebuilt, superblock_repaired };
    Ok(Recovered { superblock, sealed, last, spares, next_slot, report })
}

/// After a crash of the process alone (no power cut) what was read may stand in the system's memory
/// only: before anyone is told that it is durable, it is made so, names included.
fn make_durable(
    dir: &dyn Dir,
    last: &Segment,
    superblock: &mut SuperblockFile,
    repair: bool,
) -> Result<(), JournalError> {
    last.file.sync_data().map_err(JournalError::device("sync the last segment"))?;
    dir.sync().map_err(JournalError::device("sync the directory"))?;
    if repair { superblock.repair() } else { superblock.sync() }
}

/// All segment files of the directory, whatever they hold.
pub(crate) fn read_slots(dir: &dyn Dir) -> Result<Vec<SlotFile>, JournalError> {
    const DOING: &str = "look for segments";
    let mut slots = Vec::new();
    for name in dir.list().map_err(JournalError::device(DOING))? {
        if slot_number(&name).is_none() {
            continue;
        }
        let file = dir.open(&name).map_err(JournalError::device(DOING))?;
        let header = match read_block(&*file, 0) {
            Ok(block) => SegmentHeader::decode(&block),
            Err(DeviceError::OutOfRange { .. }) => Err(NotOurs::Blank),
            Err(error) => return Err(JournalError::device(DOING)(error)),
        };
        slots.push(SlotFile { name, file, header });
    }
    Ok(slots)
}

fn read_block(file: &dyn File, offset: u64) -> Result<[u8; BLOCK_BYTES], DeviceError> {
    let mut buf = AlignedBuf::zeroed(BLOCK_BYTES);
    file.read_at(offset, &mut buf)?;
    Ok(*buf.first_chunk().expect("a block was read"))
}

fn choose_superblock(
    dir: &dyn Dir,
    slots: &[SlotFile],
) -> Result<(SuperblockFile, bool), JournalError> {
    let corrupt = |what| JournalError::Corrupt { lsn: Lsn::ZERO, what };
    let records_seen = records_seen(slots)?;
    let Some(copies) = Copies::read(dir)? else {
        // Records without any superblock file: its name was lost, which no cut of ours can do.
        return Err(if records_seen {
            corrupt("the superblock is missing")
        } else {
            JournalError::NotALog
        });
    };
    if let Some(found) = copies.version() {
        return Err(JournalError::Version { what: "the superblock", found, known: VERSION });
    }
    let (label, verdict) = decide::superblock(&copies.facts(records_seen));
    let (copy, repair) = match verdict {
        SuperblockVerdict::NotALog => return Err(JournalError::NotALog),
        SuperblockVerdict::First(repair) => (0, repair),
        SuperblockVerdict::Second => (1, true),
        SuperblockVerdict::Corrupt => return Err(corrupt(label)),
    };
    let chosen = copies.choose(copy).expect("the decision is for an intact copy");
    Ok((chosen, repair))
}

/// Whether any segment file holds a record.
fn records_seen(slots: &[SlotFile]) -> Result<bool, JournalError> {
    for slot in slots {
        if let Ok(header) = &slot.header {
            let fail = JournalError::device("look for records");
            let mut window = Window::new(&*slot.file, &Cover::default()).map_err(fail)?;
            let fail = JournalError::device("look for records");
            if scan::begins(&mut window, header).map_err(fail)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

type Live = Vec<(SegmentHeader, SlotFile)>;

/// The kept segments in order, and the names of files that hold nothing.
fn live_segments(
    slots: Vec<SlotFile>,
    superblock: &Superblock,
) -> Result<(Live, Vec<String>), JournalError> {
    let mut live = Vec::new();
    let mut spares = Vec::new();
    for slot in slots {
        match slot.header {
            Ok(header) if is_live(&header, superblock) => live.push((header, slot)),
            Err(NotOurs::Version(found)) => {
                return Err(JournalError::Version { what: "a segment", found, known: VERSION });
            }
            _ => spares.push(slot),
        }
    }
    let header_lost = header_lost(&spares, superblock)?;
    let spares = spares.into_iter().map(|slot| slot.name).collect();
    live.sort_by_key(|(header, _): &(SegmentHeader, SlotFile)| header.sequence);
    let first = live.first().map(|(header, _)| *header);
    let steps = || live.windows(2).map(|pair| pair[1].0.sequence - pair[0].0.sequence);
    let facts = SegmentsFacts {
        first_present: first.is_some_and(|header| header.sequence == superblock.first_segment),
        base_fits: first.is_some_and(|header| {
            header.base.lsn == superblock.base && header.base.chain == superblock.base_chain
        }),
        unique: steps().all(|step| step != 0),
        contiguous: steps().all(|step| step <= 1),
        header_lost,
    };
    match decide::segments(&facts) {
        (_, SegmentsVerdict::Complete) => Ok((live, spares)),
        (label, SegmentsVerdict::Corrupt) => {
            let gap = live.windows(2).find(|pair| pair[1].0.sequence - pair[0].0.sequence > 1);
            let before = gap.map(|pair| &pair[0]).or(live.last().filter(|_| header_lost));
            let lsn = before.map_or(superblock.base, |(header, _)| header.base.lsn).next();
            Err(JournalError::Corrupt { lsn, what: label })
        }
    }
}

/// Whether a file that is no kept segment by its first sector holds a frame of one. A frame is
/// written only when the header is durable: such a header has rotted, and with it everything in the
/// segment would be forgotten silently.
fn header_lost(others: &[SlotFile], superblock: &Superblock) -> Result<bool, JournalError> {
    for slot in others {
        let fail = || JournalError::device("look for lost segments");
        let mut window = Window::new(&*slot.file, &Cover::default()).map_err(fail())?;
        let bytes =
            window.get(superblock.sector_bytes.into(), FRAME_HEADER_BYTES).map_err(fail())?;
        let frame = bytes.first_chunk().and_then(FrameHeader::decode_any);
        if frame.is_some_and(|frame| frame.segment >= superblock.first_segment) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn is_live(header: &SegmentHeader, superblock: &Superblock) -> bool {
    header.log == superblock.log
        && header.sector_bytes == superblock.sector_bytes
        && header.sequence >= superblock.first_segment
}

/// A segment with a successor. Of an index only the head is read here: opening a log takes time for
/// its segments, not for its records. The rest is checked when it is used.
fn inner_segment(
    cover: &Cover,
    header: SegmentHeader,
    slot: SlotFile,
    next: &SegmentHeader,
) -> Result<(Sealed, bool), JournalError> {
    let tail = next.base;
    let fail = || JournalError::device("read a sealed segment");
    let indexed = load_head(&*slot.file, cover, &header).map_err(fail())?;
    let joins = |head: &IndexHead| {
        header.base.lsn.plus(head.records as u64) == tail.lsn && head.chain == tail.chain
    };
    let index_joins = indexed.as_ref().is_some_and(|(head, _)| joins(head));
    let mut scanned = None;
    let mut reached = header.base.lsn;
    if !index_joins {
        let mut window = Window::new(&*slot.file, cover).map_err(fail())?;
        let scan = scan::frames(&mut window, &header, tail.lsn).map_err(fail())?;
        reached = scan.tail(&header).0;
        match scan::table(&mut window, &header, &scan).map_err(fail())? {
            Ok(table) => scanned = Some((table, scan.end)),
            Err(lsn) => reached = lsn.prev(),
        }
    }
    let frames_join = scanned
        .as_ref()
        .is_some_and(|(table, _)| table.tail_lsn() == tail.lsn && table.chain() == tail.chain);
    let (label, verdict) = decide::inner(&InnerFacts { index_joins, frames_join });
    let (controls, end, rebuilt) = match verdict {
        InnerVerdict::UseIndex => {
            let (head, end) = indexed.expect("the decision is for what was read");
            (head.controls.into(), end, false)
        }
        InnerVerdict::UseFrames => {
            let (table, end) = scanned.expect("the decision is for what was read");
            (table.controls().into(), end, true)
        }
        InnerVerdict::Corrupt => {
            return Err(JournalError::Corrupt { lsn: reached.next(), what: label });
        }
    };
    let SlotFile { name, file, .. } = slot;
    Ok((Sealed { header, name, file, tail, controls, end }, rebuilt))
}

/// The segment that was being written.
fn last_segment(
    cover: &Cover,
    header: SegmentHeader,
    slot: SlotFile,
    superblock: &Superblock,
) -> Result<(Segment, TailVerdict, Lsn), JournalError> {
    let fail = || JournalError::device("read the last segment");
    let indexed = load_index(&*slot.file, cover, &header).map_err(fail())?;
    let sealed = indexed.is_some();
    let (table, end, floor, leftovers) = match indexed {
        // The index was written after all frames were durable.
        Some((table, end)) => {
            let floor = superblock.floor.max(table.tail_lsn());
            (table, end, floor, false)
        }
        None => scan_last(cover, &header, &*slot.file, superblock.floor)?,
    };
    let floor_reached = table.tail_lsn() >= floor;
    let (label, verdict) = decide::last(&LastFacts { sealed, floor_reached, leftovers });
    let (state, tail) = match verdict {
        LastVerdict::Sealed => (SegmentState::Sealed, TailVerdict::Ends),
        LastVerdict::Ends => (SegmentState::Open, TailVerdict::Ends),
        LastVerdict::Torn => (SegmentState::Torn, TailVerdict::Torn { at: end }),
        LastVerdict::Corrupt => {
            return Err(JournalError::Corrupt { lsn: table.tail_lsn().next(), what: label });
        }
    };
    Ok((Segment::new(header, slot.name, slot.file, table, end, state), tail, floor))
}

/// Table, end of the frames, floor, and whether something of ours lies behind.
fn scan_last(
    cover: &Cover,
    header: &SegmentHeader,
    file: &dyn File,
    floor_known: Lsn,
) -> Result<(Table, u64, Lsn, bool), JournalError> {
    let fail = || JournalError::device("read the last segment");
    let mut window = Window::new(file, cover).map_err(fail())?;
    let mut scan = scan::frames(&mut window, header, Lsn::MAX).map_err(fail())?;
    // Whatever proves that records were durable: superblock, the segment's existence, and every
    // frame that was written after them, those behind a hole included.
    let behind = scan::beyond(&mut window, header, scan.end).map_err(fail())?;
    let floor = scan
        .frames
        .iter()
        .map(|frame| frame.header.floor)
        .chain([floor_known, header.base.lsn, behind.floor])
        .max()
        .unwrap_or(floor_known);
    let intact = scan.frames.len();
    scan::drop_torn(&mut window, header, &mut scan, floor).map_err(fail())?;
    let leftovers = behind.leftovers || scan.frames.len() < intact;
    match scan::table(&mut window, header, &scan).map_err(fail())? {
        Ok(table) => Ok((table, scan.end, floor, leftovers)),
        Err(lsn) => Err(JournalError::Corrupt { lsn, what: "a control record can't be read" }),
    }
}

/// Where the trailer says that the index stands; `None` where there is no intact one.
fn index_place(file: &dyn File, header: &SegmentHeader) -> Result<Option<Trailer>, DeviceError> {
    let sector_bytes = u64::from(header.sector_bytes);
    let Some(trailer_at) = file.len()?.checked_sub(sector_bytes) else { return Ok(None) };
    let Ok(trailer) = Trailer::decode(&read_block(file, trailer_at)?) else { return Ok(None) };
    let offset = u64::from(trailer.index_offset);
    let ours = trailer.sequence == header.sequence
        && trailer.salt == header.salt
        && align_up(offset, header.sector_bytes) == offset
        && offset + u64::from(trailer.index_bytes) <= trailer_at;
    Ok(ours.then_some(trailer))
}

/// Head and control records of the index of a sealed segment, and where the frames end; `None`
/// where they are not intact.
fn load_head(
    file: &dyn File,
    cover: &Cover,
    header: &SegmentHeader,
) -> Result<Option<(IndexHead, u64)>, DeviceError> {
    let Some(trailer) = index_place(file, header)? else { return Ok(None) };
    let offset = u64::from(trailer.index_offset);
    let length = trailer.index_bytes as usize;
    let place =
        IndexPlace { segment: header.sequence, salt: header.salt, offset: trailer.index_offset };
    let mut bytes = AlignedBuf::zeroed(INDEX_HEADER_BYTES.min(length));
    file.read_at(offset, &mut bytes)?;
    let Some(size) = index::controls_size(&bytes, place, length) else { return Ok(None) };
    let mut controls = AlignedBuf::zeroed(size);
    if size > 0 {
        file.read_at(offset + (length - size) as u64, &mut controls)?;
    }
    let head = index::decode_head(&bytes, &controls, cover, (header.log, header.base.lsn));
    Ok(head.map(|head| (head, offset)))
}

/// The table from the index of a sealed segment, and where the frames end; `None` where there is no
/// intact one.
pub(crate) fn load_index(
    file: &dyn File,
    cover: &Cover,
    header: &SegmentHeader,
) -> Result<Option<(Table, u64)>, DeviceError> {
    let Some(trailer) = index_place(file, header)? else { return Ok(None) };
    let offset = u64::from(trailer.index_offset);
    let mut bytes = AlignedBuf::zeroed(trailer.index_bytes as usize);
    file.read_at(offset, &mut bytes)?;
    let place =
        IndexPlace { segment: header.sequence, salt: header.salt, offset: trailer.index_offset };
    let table = index::decode(&bytes, cover, (header.log, place), header.base);
    Ok(table.map(|table| (table, offset)))
}
