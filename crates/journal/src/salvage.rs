//! A log that [`crate::Log::open`] refuses as corrupt, read as far as it goes: everything before
//! and after the damage, with the damaged ranges named. Nothing is written, and nothing is guessed:
//! a record is there with its own checksum, or it is in a damaged range.

use crate::JournalError;
use crate::cover::{Cover, Use};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::format::segment::SegmentHeader;
use crate::format::superblock::Superblock;
use crate::recovery::scan::Window;
use crate::recovery::{SlotFile, read_slots};
use crate::superblock_file::Copies;
use bytes::Bytes;
use landfall_blockdev::{Dir, File};
use landfall_types::{Chain, Epoch, Incarnation, LogId, Lsn, RecordHeader, ReplicaId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is left of a log.
#[derive(Debug)]
pub struct Salvage {
    /// The log, where a superblock or a segment header says.
    pub log: Option<LogId>,
    /// Whose, where a superblock says.
    pub replica: Option<ReplicaId>,
    /// The position before the oldest record that should be there, as far as that is known: without
    /// a superblock the oldest that was found.
    pub base: Lsn,
    /// Ranges in which a record is missing, in order. Records behind the last one that was found
    /// are in such a range where something proves that they were durable; a torn tail that nothing
    /// vouches for is not damage.
    pub damaged: Vec<DamagedRange>,
    records: Vec<SalvagedRecord>,
    files: BTreeMap<u64, (Arc<dyn File>, Use)>,
    cover: Cover,
}

/// Records that can't be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// The first of them.
    pub first: Lsn,
    /// The last of them.
    pub last: Lsn,
}

/// A record whose header was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SalvagedRecord {
    /// It.
    pub header: RecordHeader,
    /// Epoch that it was written in.
    pub epoch: Epoch,
    /// Its producer's run.
    pub incarnation: Incarnation,
    segment: u64,
    payload_at: u64,
}

/// A frame whose header and table are intact.
struct Found {
    header: FrameHeader,
    records: Vec<RecordHeader>,
}

/// Reads what is left of a log.
///
/// # Errors
/// [`JournalError::NotALog`] when neither a superblock nor a segment is there, storage errors.
pub fn salvage(dir: &dyn Dir) -> Result<Salvage, JournalError> {
    let slots = read_slots(dir)?;
    let superblock = superblock(dir)?;
    let mut files = BTreeMap::new();
    let mut frames: BTreeMap<Lsn, Found> = BTreeMap::new();
    let mut floor = superblock.as_ref().map_or(Lsn::ZERO, |known| known.floor);
    let mut bases: BTreeMap<u64, (Lsn, Chain)> = BTreeMap::new();
    let mut log = superblock.as_ref().map(|known| known.log);
    let cover = Cover::of(dir);
    if let Some(known) = &superblock {
        cover.agree(known.log, &known.key_check)?;
    }
    // Of a log that is sealed nothing can be had without its ID, which is in every segment's
    // header.
    log = log.or_else(|| slots.iter().find_map(|slot| slot.header.as_ref().ok().map(|h| h.log)));
    let log_known = log.unwrap_or(LogId::from_bytes([0; 16]));
    for slot in slots {
        let header = slot.header.ok();
        if header.is_some_and(|header| log.is_some_and(|log| header.log != log)) {
            continue;
        }
        if let Some(header) = header {
            log = log.or(Some(header.log));
            bases.insert(header.sequence, (header.base.lsn, header.base.chain));
        }
        let found = frames_of(&slot, &cover, log_known, header.as_ref())?;
        let Some(first) = found.first() else { continue };
        let (sequence, salt) = (first.header.segment, first.header.salt);
        if superblock.as_ref().is_some_and(|known| sequence < known.first_segment) {
            continue;
        }
        floor = found.iter().map(|frame| frame.header.floor).chain([floor]).max().unwrap_or(floor);
        let place = Use { log: log_known, segment: sequence, salt };
        files.insert(sequence, (slot.file, place));
        for frame in found {
            frames.insert(frame.header.first, frame);
        }
    }
    // A header's existence proves everything up to its base durable.
    let floor = bases.values().map(|(lsn, _)| *lsn).chain([floor]).max().unwrap_or(floor);
    if superblock.is_none() && frames.is_empty() && bases.is_empty() {
        return Err(JournalError::NotALog);
    }
    let first = frames.keys().next().map(|first| first.prev());
    let base = superblock.as_ref().map(|known| known.base);
    let base = base.or(bases.values().map(|(lsn, _)| *lsn).min()).or(first).unwrap_or(floor);
    let replica = superblock.map(|known| known.replica);
    let mut salvage =
        Salvage { log, replica, base, damaged: Vec::new(), records: Vec::new(), files, cover };
    salvage.join(frames, &bases, floor);
    Ok(salvage)
}

fn superblock(dir: &dyn Dir) -> Result<Option<Superblock>, JournalError> {
    let Some(copies) = Copies::read(dir)? else { return Ok(None) };
    let intact = copies.all().iter().flatten();
    // Of two that are intact the newer one; contradictions don't matter here, where nothing is cut.
    Ok(intact.max_by_key(|superblock| superblock.sequence).cloned())
}

/// Every intact frame of one use of a file: the header's, or where that is lost the newest that
/// frames speak of.
fn frames_of(
    slot: &SlotFile,
    cover: &Cover,
    log: LogId,
    header: Option<&SegmentHeader>,
) -> Result<Vec<Found>, JournalError> {
    let fail = || JournalError::device("read a segment");
    let mut window = Window::new(&*slot.file, cover).map_err(fail())?;
    let mut found: Vec<Found> = Vec::new();
    let mut offset = 0;
    while offset < window.len() {
        let bytes = window.get(offset, FRAME_HEADER_BYTES).map_err(fail())?;
        let frame = bytes.first_chunk().and_then(FrameHeader::decode_any);
        let frame = frame.filter(|frame| {
            u64::from(frame.offset) == offset
                && frame.end() <= window.len()
                && header.is_none_or(|h| (h.sequence, h.salt) == (frame.segment, frame.salt))
        });
        if let Some(frame) = frame {
            let table = window.get(frame.table_offset(), frame.table_bytes()).map_err(fail())?;
            if let Some(records) = frame.decode_table(cover, log, table) {
                found.push(Found { header: frame, records });
            }
        }
        // The smallest sector: a frame begins at a multiple of it, whatever the log's are.
        offset += 512;
    }
    if header.is_none() {
        let newest = found.iter().map(|frame| (frame.header.segment, frame.header.salt)).max();
        found.retain(|frame| Some((frame.header.segment, frame.header.salt)) == newest);
    }
    Ok(found)
}

impl Salvage {
    /// Joins the frames in the order of their LSNs. One that does not follow what is known to come
    /// before it was cut off by an earlier recovery: it is left out.
    fn join(
        &mut self,
        frames: BTreeMap<Lsn, Found>,
        bases: &BTreeMap<u64, (Lsn, Chain)>,
        floor: Lsn,
    ) {
        let mut tail = self.base;
        let mut chain = None;
        for (first, frame) in frames {
            // Where its successor begins, a segment ends.
            let end = bases.get(&(frame.header.segment + 1)).map_or(Lsn::MAX, |(lsn, _)| *lsn);
            let follows =
                first != tail.next() || chain.is_none_or(|c| c == frame.header.chain_before);
            if first <= tail || frame.header.last() > end || !follows {
                continue;
            }
            if first != tail.next() {
                if tail >= floor {
                    // Nothing proves that what is missing was ever durable: a torn tail, which the
                    // next opening cuts off here.
                    break;
                }
                self.damaged.push(DamagedRange { first: tail.next(), last: first.prev() });
            }
            self.take(&frame);
            (tail, chain) = (frame.header.last(), Some(frame.header.chain_after));
        }
        if tail < floor {
            self.damaged.push(DamagedRange { first: tail.next(), last: floor });
        }
    }

    fn take(&mut self, frame: &Found) {
        let FrameHeader { epoch, incarnation, segment, .. } = frame.header;
        let mut payload_at = frame.header.payload_offset();
        for header in &frame.records {
            let header = *header;
            self.records.push(SalvagedRecord { header, epoch, incarnation, segment, payload_at });
            payload_at += self.cover.stored_len(&header);
        }
    }

    /// The records whose headers were found, by LSN. A payload may have rotted by itself:
    /// [`Salvage::read`] finds out.
    #[must_use]
    pub fn records(&self) -> &[SalvagedRecord] {
        &self.records
    }

    /// A record's payload, checked against its CRC.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] with the LSN, storage errors.
    pub fn read(&self, record: &SalvagedRecord) -> Result<Bytes, JournalError> {
        let corrupt = |what| JournalError::Corrupt { lsn: record.header.lsn, what };
        let length = self.cover.stored_len(&record.header);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (file, place) =
            self.files.get(&record.segment).ok_or(corrupt("its segment has gone"))?;
        let mut buf = vec![0; length];
        file.read_at(record.payload_at, &mut buf).map_err(JournalError::device("read a record"))?;
        let payload = self.cover.payload(place, &record.header, buf.into());
        payload.ok_or(corrupt("its payload is not what was written"))
    }

    /// Reads every payload, and adds those that have rotted to the damaged ranges. Takes as long as
    /// reading the log; `progress` hears the bytes that were read so far.
    ///
    /// # Errors
    /// Storage errors.
    pub fn verify(&mut self, mut progress: impl FnMut(u64)) -> Result<(), JournalError> {
        let mut bytes = 0;
        let mut rotten = Vec::new();
        for record in &self.records {
            match self.read(record) {
                Ok(_) => {}
                Err(JournalError::Corrupt { lsn, .. }) => rotten.push(lsn),
                Err(error) => return Err(error),
            }
            bytes += record.header.payload_len();
            progress(bytes);
        }
        self.records.retain(|record| rotten.binary_search(&record.header.lsn).is_err());
        self.damaged.extend(rotten.into_iter().map(|lsn| DamagedRange { first: lsn, last: lsn }));
        self.damaged.sort_by_key(|range| range.first);
        // One range where they adjoin.
        self.damaged.dedup_by(|next, before| {
            let adjoins = next.first <= before.last.next();
            if adjoins {
                before.last = before.last.max(next.last);
            }
            adjoins
        });
        Ok(())
    }
}
