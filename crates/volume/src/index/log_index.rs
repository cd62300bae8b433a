use super::pool::Floor;
use super::run_file::{RunFile, Source};
use super::tail::{Pieces, Tail};
use super::{IndexPool, maintain};
use crate::medium::Slot;
use crate::sync::{lock, read, write};
use landfall_blockdev::Dir;
use landfall_index::{Item, Layer};
use landfall_journal::{Entry, Log};
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

/// The index of one log. Locks are taken in the order `merging`, `writing`, `state`; the last one
/// is never held across I/O.
#[derive(Debug)]
pub(crate) struct LogIndex {
    pub(crate) log: Arc<Log>,
    pub(super) slot: Slot,
    /// The replica's directory; the index has one of its own within, once it has a file.
    pub(super) parent: Arc<dyn Dir>,
    pub(super) pool: Arc<IndexPool>,
    pub(super) floor: Arc<Floor>,
    pub(super) state: RwLock<State>,
    /// Rises whenever the list of runs changes.
    pub(super) generation: AtomicU64,
    /// One tail becomes a file at a time.
    pub(super) writing: Mutex<()>,
    /// One merge at a time.
    pub(super) merging: Mutex<()>,
    /// What is being merged: behind, up to and including.
    pub(super) merge: Mutex<Option<(Lsn, Lsn)>>,
    me: Weak<Self>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Oldest first, without gaps behind the floor.
    pub(super) runs: Vec<Arc<RunFile>>,
    /// The last record that a run has.
    pub(super) covered: Lsn,
    /// Records that are being written into a run.
    pub(super) frozen: Option<Arc<Tail>>,
    pub(super) tail: Tail,
}

/// What an index is made of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IndexFigures {
    pub(crate) runs: usize,
    pub(crate) pieces: u64,
    pub(crate) tail_records: usize,
    pub(crate) merging: Option<(Lsn, Lsn)>,
}

/// Runs and memory that make up a content, of all its logs.
pub(crate) type Levels = Vec<Layer<Source, Slot>>;

/// What the index keeps of a record.
pub(super) fn item(entry: &Entry) -> Item {
    let (segment, at) = entry.location.parts();
    Item { header: entry.header, segment, at }
}

impl LogIndex {
    pub(super) fn assemble(
        log: Arc<Log>,
        slot: Slot,
        parent: Arc<dyn Dir>,
        pool: Arc<IndexPool>,
        floor: Arc<Floor>,
        state: State,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            log,
            slot,
            parent,
            pool,
            floor,
            state: RwLock::new(state),
            generation: AtomicU64::new(0),
            writing: Mutex::new(()),
            merging: Mutex::new(()),
            merge: Mutex::new(None),
            me: Weak::clone(me),
        })
    }

    /// Name of its directory within the replica's.
    pub(crate) fn dir_name(log: landfall_types::LogId) -> String {
        format!("index-{log}")
    }

    /// Takes the next records of the log, in order.
    pub(crate) fn follow(&self, entries: &[Entry]) {
        let unit = self.pool.options().tail_records;
        let waiting = {
            let mut state = write(&self.state);
            for entry in entries {
                state.tail.push(&item(entry));
            }
            state.tail.items.len()
        };
        if waiting < unit {
            return;
        }
        // Memory is bounded: where the thread does not keep up, or there is none, whoever appends
        // writes.
        let told = self.pool.wake(Weak::clone(&self.me));
        if !told || waiting >= 4 * unit {
            let done = if told { self.write_tail() } else { self.maintain(&|| false) };
            if let Err(error) = done {
                tracing::warn!(log = %self.log.id(), %error, "the index can't be written");
            }
        }
    }

    /// What the records in memory hold of a range.
    pub(crate) fn overlay(&self, disk: DiskIndex, range: ByteRange) -> Pieces {
        let state = read(&self.state);
        let newest = state.tail.pieces(disk, range);
        let Some(frozen) = &state.frozen else { return newest };
        let mut out = Vec::with_capacity(newest.len());
        for (piece, holder) in newest {
            match holder {
                Some(_) => out.push((piece, holder)),
                None => out.extend(frozen.pieces(disk, piece)),
            }
        }
        out
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Adds the layers of its records behind `after`, up to and including `through`; without
    /// `through`, those of all files. Returns the last record that they know, and the generation.
    pub(crate) fn layers(&self, after: Lsn, through: Option<Lsn>, out: &mut Levels) -> (Lsn, u64) {
        let state = read(&self.state);
        let generation = self.generation();
        let end = through.unwrap_or(state.covered);
        let tag = self.slot;
        for run in &state.runs {
            let identity = &run.footer().identity;
            if identity.through > after && identity.after < end {
                let through = end.min(identity.through);
                out.push(Layer { source: Source::File(Arc::clone(run)), tag, after, through });
            }
        }
        let in_memory = state.frozen.iter().map(|frozen| &**frozen).chain([&state.tail]);
        for tail in in_memory.filter(|tail| through.is_some() && tail.after < end) {
            let source = Source::Memory(Arc::new(tail.up_to(end)));
            out.push(Layer { source, tag, after, through: end });
        }
        (end, generation)
    }

    /// Bytes written by the kept records; catch-up data is not counted.
    pub(crate) fn written_bytes(&self) -> u64 {
        let state = read(&self.state);
        let runs: u64 = state.runs.iter().map(|run| run.footer().written_bytes).sum();
        let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.written_bytes);
        runs + frozen + state.tail.written_bytes
    }

    /// What it is made of now.
    pub(crate) fn figures(&self) -> IndexFigures {
        let state = read(&self.state);
        let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.items.len());
        IndexFigures {
            runs: state.runs.len(),
            pieces: state.runs.iter().map(|run| u64::from(run.footer().pieces)).sum(),
            tail_records: frozen + state.tail.items.len(),
            merging: *lock(&self.merge),
        }
    }

    /// Writes what is to be written and merges what is to be merged, until there is nothing more or
    /// `stop` says so.
    pub(crate) fn maintain(&self, stop: maintain::Stop<'_>) -> Result<(), crate::StorageError> {
        self.write_tail()?;
        while !stop() && self.merge_some(stop)? {
            self.write_tail()?;
        }
        Ok(())
    }
}
