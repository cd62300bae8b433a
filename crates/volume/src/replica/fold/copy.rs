//! Writing a plan into the images: in disk order, neighbors put together, several at a time.

use super::plan::{Extent, Plan};
use crate::body::FoldMark;
use crate::error::{FoldError, StorageError};
use crate::index::Held;
use crate::medium::{AllSums, Medium, Slot};
use crate::replica::fold::edges;
use crate::replica::fold::pace::FoldPace;
use crate::sums::{NewSums, Sums};
use crate::sync::lock;
use bytes::Bytes;
use landfall_blockdev::{ALIGN_BYTES, AlignedBuf, BlockDevice};
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Bytes of one job: large enough for a disk's sequential speed; with [`WORKERS`] buffers of it a
/// fold's memory is bounded.
const JOB_BYTES: u64 = 1 << 20;
/// Extents of one job: a run of small scattered ones is still shared among the workers.
const JOB_EXTENTS: usize = 256;
/// Writes in flight.
const WORKERS: usize = 4;
/// Below this a fold is done by the caller's thread alone.
const PARALLEL_BYTES: u64 = 4 * JOB_BYTES;

/// Images by disk.
pub(super) type Devices = BTreeMap<DiskIndex, Arc<dyn BlockDevice>>;

/// What the copying needs beside the plan.
pub(super) struct Copy<'a> {
    pub(super) medium: &'a Medium,
    pub(super) devices: &'a Devices,
    pub(super) sums: &'a AllSums,
    pub(super) pace: &'a dyn FoldPace,
    /// Told the bytes of each extent that was written.
    pub(super) advanced: &'a (dyn Fn(u64) + Sync),
}

/// Some extents of one disk, in order.
type Job = Vec<Extent>;

impl Copy<'_> {
    /// Writes at most about `round_bytes` of the plan behind `after`. Returns where it ended;
    /// `None` when that was the plan's end. Nothing is durable yet.
    pub(super) fn round(
        &self,
        plan: &Plan,
        after: Option<FoldMark>,
        round_bytes: u64,
    ) -> Result<Option<FoldMark>, FoldError> {
        let jobs = Mutex::new(Jobs { extents: plan.extents(after).peekable(), left: round_bytes });
        let failed: Mutex<Option<FoldError>> = Mutex::new(None);
        let work = || {
            let mut worker = Worker { copy: self, buf: AlignedBuf::zeroed(0), payload: None };
            while lock(&failed).is_none() {
                // The pace is kept under the lock: while one waits for its turn, all do.
                let job = {
                    let mut jobs = lock(&jobs);
                    match jobs.next() {
                        Ok(None) => return,
                        Ok(Some(job)) if self.pace.before(job.iter().map(moved).sum()) => Ok(job),
                        Ok(Some(_)) => Err(FoldError::Stopped),
                        Err(error) => Err(error.into()),
                    }
                };
                if let Err(error) = job.and_then(|job| Ok(worker.run(&job)?)) {
                    lock(&failed).get_or_insert(error);
                }
            }
        };
        if plan.total_bytes() < PARALLEL_BYTES {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 1..WORKERS {
                    scope.spawn(work);
                }
                work();
            });
        }
        if let Some(error) = failed.into_inner().unwrap_or_else(|held| held.into_inner()) {
            return Err(error);
        }
        let mut jobs = jobs.into_inner().unwrap_or_else(|held| held.into_inner());
        let next = jobs.extents.next().transpose()?;
        Ok(next.map(|next| FoldMark { disk: next.disk, offset: next.range.start }))
    }
}

/// Hands out jobs in disk order.
struct Jobs<I: Iterator<Item = Result<Extent, StorageError>>> {
    extents: std::iter::Peekable<I>,
    /// Bytes of this round that were not handed out.
    left: u64,
}

impl<I: Iterator<Item = Result<Extent, StorageError>>> Jobs<I> {
    fn next(&mut self) -> Result<Option<Job>, StorageError> {
        let mut job = Job::new();
        let mut bytes = 0;
        while self.left > 0 && bytes < JOB_BYTES && job.len() < JOB_EXTENTS {
            let disk = job.first().map(|extent| extent.disk);
            let goes_on = |next: &Result<Extent, _>| {
                // An error ends the job, whatever is in it.
                next.as_ref().is_ok_and(|next| disk.is_none_or(|disk| disk == next.disk))
                    || (next.is_err() && disk.is_none())
            };
            let Some(extent) = self.extents.next_if(goes_on).transpose()? else { break };
            bytes += moved(&extent);
            self.left = self.left.saturating_sub(moved(&extent));
            job.push(extent);
        }
        Ok((!job.is_empty()).then_some(job))
    }
}

/// What an extent costs: one that becomes a hole moves no bytes.
const fn moved(extent: &Extent) -> u64 {
    if extent.held.has_bytes() { extent.range.end - extent.range.start } else { 1 }
}

struct Worker<'a> {
    copy: &'a Copy<'a>,
    buf: AlignedBuf,
    /// The payload read last: what overwrites have left of a large record comes in a row.
    payload: Option<(Slot, Lsn, u64, Bytes)>,
}

impl Worker<'_> {
    fn run(&mut self, job: &[Extent]) -> Result<(), StorageError> {
        let Some(disk) = job.first().map(|extent| extent.disk) else { return Ok(()) };
        let sums = self.copy.sums.get(&disk);
        let mut new = NewSums::new();
        for run in job.chunk_by(|one, next| {
            one.range.end == next.range.start && one.held.has_bytes() == next.held.has_bytes()
        }) {
            let (first, last) = (&run[0], &run[run.len() - 1]);
            let device = self.copy.devices.get(&first.disk);
            let device = device.ok_or(StorageError::UnknownDisk(first.disk))?;
            let range = ByteRange { start: first.range.start, end: last.range.end };
            if first.held.has_bytes() {
                self.write(&**device, range, run, &mut new)?;
            } else {
                // Zeroes and discards alike: a discard reads as zeroes in a replica, and what can
                // be given back is.
                let zeroed = device.zero(range.start, range.len());
                zeroed.map_err(StorageError::device("fold into image"))?;
                for extent in run {
                    edges::whole_zeroes(extent.range, |new| set(sums, new))?;
                }
            }
            (self.copy.advanced)(range.len());
        }
        // In any order with the image: both are durable before the superblock says so, and until
        // then the fold is done again.
        set(sums, &new)
    }

    fn write(
        &mut self,
        device: &dyn BlockDevice,
        range: ByteRange,
        run: &[Extent],
        new: &mut NewSums,
    ) -> Result<(), StorageError> {
        // Memory aligned as the disk is: all but a ragged beginning and end can go past the page
        // cache.
        let align = ALIGN_BYTES as u64;
        let pad = in_memory(range.start % align);
        self.buf.set_len(pad + in_memory(range.len()));
        for Extent { disk, range: piece, held } in run {
            let from = pad + in_memory(piece.start - range.start);
            let to = from + in_memory(piece.len());
            let (start, bytes) = self.payload(*disk, held)?;
            let skip = in_memory(piece.start - start);
            self.buf[from..to].copy_from_slice(&bytes[skip..skip + (to - from)]);
            edges::whole(piece.start, &self.buf[from..to], new);
        }
        let written = device.write_at(range.start, &self.buf[pad..]);
        written.map_err(StorageError::device("fold into image"))
    }

    fn payload(&mut self, disk: DiskIndex, held: &Held) -> Result<(u64, Bytes), StorageError> {
        let (slot, lsn) = (held.slot, held.holder.lsn);
        match &self.payload {
            Some((kept, kept_lsn, start, bytes)) if (*kept, *kept_lsn) == (slot, lsn) => {
                Ok((*start, bytes.clone()))
            }
            _ => {
                let found = self.copy.medium.read_payload(disk, held)?;
                let (start, bytes) = found.ok_or(StorageError::LogMissing)?;
                self.payload = Some((slot, lsn, start, bytes.clone()));
                Ok((start, bytes))
            }
        }
    }
}

fn set(sums: Option<&Arc<Sums>>, new: &NewSums) -> Result<(), StorageError> {
    sums.filter(|_| !new.is_empty()).map_or(Ok(()), |sums| sums.set(new))
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a job is bounded by JOB_BYTES and one record's payload")
}
