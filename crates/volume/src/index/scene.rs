use super::log_index::{Levels, LogIndex};
use super::pool::{Floor, IndexPool, Known};
use crate::error::StorageError;
use crate::medium::Slot;
use crate::sync::lock;
use landfall_index::{CHUNK_BYTES, Extent, Holder, Sweep, chunk_of, resolve};
use landfall_types::{ByteRange, DiskIndex, Lsn};
use std::sync::{Arc, Mutex};

/// How often a reading is tried again after damaged parts of the index were made again.
const REPAIRS_MAX: usize = 3;
/// Ranges of more chunks are swept: their answers are not kept.
const CHUNKS_KEPT_MAX: u64 = 64;

/// What holds some bytes, and in which log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) holder: Holder,
    pub(crate) slot: Slot,
}

impl Held {
    /// False where the record says "reads as zeroes".
    pub(crate) const fn has_bytes(&self) -> bool {
        self.holder.payload.is_some()
    }
}

/// Records of one log that a content is made of.
#[derive(Clone, Debug)]
pub(crate) struct SceneLevel {
    pub(crate) index: Arc<LogIndex>,
    /// From behind here …
    pub(crate) after: Lsn,
    /// … up to and including here; none: up to the newest.
    pub(crate) through: Option<Lsn>,
}

/// The records over the image at one position of one history, or at its newest: who holds which
/// bytes. Refers to run files only while it reads, so that merges can replace them.
#[derive(Debug)]
pub(crate) struct Scene {
    id: u64,
    pool: Arc<IndexPool>,
    floor: Arc<Floor>,
    /// Oldest first; only the last one may be open towards the newest.
    levels: Vec<SceneLevel>,
    layers: Mutex<Option<Arc<Layers>>>,
}

/// The layers of a scene, as long as the lists of runs do not change.
#[derive(Debug)]
struct Layers {
    generations: Vec<u64>,
    layers: Levels,
    /// The last record that they know.
    through: Lsn,
}

impl Scene {
    pub(crate) fn new(pool: Arc<IndexPool>, floor: Arc<Floor>, levels: Vec<SceneLevel>) -> Self {
        Self { id: pool.next_id(), pool, floor, levels, layers: Mutex::new(None) }
    }

    fn newest(&self) -> Option<&LogIndex> {
        self.levels.last().filter(|level| level.through.is_none()).map(|level| &*level.index)
    }

    fn layers(&self) -> Arc<Layers> {
        let mut kept = lock(&self.layers);
        if let Some(layers) = &*kept {
            let now = self.levels.iter().map(|level| level.index.generation());
            if now.eq(layers.generations.iter().copied()) {
                return Arc::clone(layers);
            }
        }
        let mut fresh = Layers { generations: vec![], layers: vec![], through: Lsn::ZERO };
        for SceneLevel { index, after, through } in &self.levels {
            let (end, generation) = index.layers(*after, *through, &mut fresh.layers);
            fresh.generations.push(generation);
            fresh.through = fresh.through.max(end);
        }
        let fresh = Arc::new(fresh);
        *kept = Some(Arc::clone(&fresh));
        fresh
    }

    /// Files and pieces of memory that it has read last.
    pub(crate) fn run_count(&self) -> usize {
        lock(&self.layers).as_ref().map_or(0, |layers| layers.layers.len())
    }

    /// The range cut into pieces, in order and covering it whole: what holds each, or nothing where
    /// the image does. The caller holds `trims` for reading while it uses the answer.
    pub(crate) fn pieces(
        &self,
        disk: DiskIndex,
        range: ByteRange,
    ) -> Result<Vec<(ByteRange, Option<Held>)>, StorageError> {
        self.repairing(|| self.pieces_once(disk, range))
    }

    fn repairing<T>(
        &self,
        mut read: impl FnMut() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        for _ in 0..REPAIRS_MAX {
            match read() {
                Err(StorageError::Index(_)) => self.repair()?,
                result => return result,
            }
        }
        read()
    }

    fn pieces_once(
        &self,
        disk: DiskIndex,
        range: ByteRange,
    ) -> Result<Vec<(ByteRange, Option<Held>)>, StorageError> {
        let mut out = Pieces { at: range.start, floor: self.floor.get(), pieces: vec![] };
        // The memory first: a tail that becomes a run in between is then read twice, never not at
        // all.
        match self.newest() {
            Some(index) => {
                for (piece, holder) in index.overlay(disk, range) {
                    match holder {
                        Some(holder) => out.push(piece, Held { holder, slot: index.slot }),
                        None => self.settled(disk, piece, &mut out)?,
                    }
                }
            }
            None => self.settled(disk, range, &mut out)?,
        }
        out.fill(range.end);
        Ok(out.pieces)
    }

    /// What files hold of a range.
    fn settled(
        &self,
        disk: DiskIndex,
        range: ByteRange,
        out: &mut Pieces,
    ) -> Result<(), StorageError> {
        let layers = self.layers();
        if layers.layers.is_empty() {
            return Ok(());
        }
        if range.len() > CHUNKS_KEPT_MAX * CHUNK_BYTES {
            let mut sweep = Sweep::new(disk, range);
            while let Some(extent) = sweep.next_extent(&layers.layers)? {
                out.push_within(range, &extent);
            }
            return Ok(());
        }
        let mut chunk = chunk_of(range.start);
        while chunk < range.end {
            let known = self.chunk(&layers, disk, chunk)?;
            let first = known.extents.partition_point(|extent| extent.range.end <= range.start);
            for extent in &known.extents[first..] {
                if extent.range.start >= range.end {
                    break;
                }
                out.push_within(range, extent);
            }
            chunk = chunk.saturating_add(CHUNK_BYTES);
        }
        Ok(())
    }

    fn chunk(&self, layers: &Layers, disk: DiskIndex, chunk: u64) -> Result<Known, StorageError> {
        let known = self.pool.chunk(self.id, disk, chunk);
        if let Some(known) = &known
            && known.through >= layers.through
        {
            return Ok(known.clone());
        }
        let (before, before_through): (&[Extent<Slot>], Lsn) = match &known {
            Some(known) => (&known.extents, known.through),
            None => (&[], Lsn::ZERO),
        };
        let extents = resolve(&layers.layers, disk, chunk, before, before_through)?;
        let known = Known { through: layers.through, extents: extents.into() };
        self.pool.keep_chunk(self.id, disk, chunk, known.clone());
        Ok(known)
    }

    fn repair(&self) -> Result<(), StorageError> {
        self.levels.iter().try_for_each(|level| level.index.repair())
    }

    /// Every stretch of a disk that a record behind `after` holds, in the order of the disk,
    /// neighbors of one record put together; memory is bounded. Only of a scene at a fixed
    /// position.
    pub(crate) fn sweep(&self, disk: DiskIndex, range: ByteRange, after: Lsn) -> SceneSweep<'_> {
        let (layers, sweep) = (self.layers(), Sweep::new(disk, range));
        SceneSweep { scene: self, layers, sweep, after, repairs: 0 }
    }
}

/// See [`Scene::sweep`].
#[derive(Debug)]
pub(crate) struct SceneSweep<'a> {
    scene: &'a Scene,
    layers: Arc<Layers>,
    sweep: Sweep<Slot>,
    after: Lsn,
    repairs: usize,
}

impl Iterator for SceneSweep<'_> {
    type Item = Result<(ByteRange, Held), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.sweep.next_extent(&self.layers.layers) {
                Ok(Some(extent)) if extent.holder.lsn <= self.after => {}
                Ok(Some(extent)) => return Some(Ok((extent.range, held(&extent)))),
                Ok(None) => return None,
                Err(StorageError::Index(_)) if self.repairs < REPAIRS_MAX => {
                    self.repairs += 1;
                    if let Err(error) = self.scene.repair() {
                        return Some(Err(error));
                    }
                    self.layers = self.scene.layers();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

const fn held(extent: &Extent<Slot>) -> Held {
    Held { holder: extent.holder, slot: extent.tag }
}

/// Pieces in order, gaps filled up with nothing.
struct Pieces {
    at: u64,
    floor: Lsn,
    pieces: Vec<(ByteRange, Option<Held>)>,
}

impl Pieces {
    /// Up to here nothing more comes.
    fn fill(&mut self, end: u64) {
        if self.at < end {
            self.pieces.push((ByteRange { start: self.at, end }, None));
            self.at = end;
        }
    }

    fn push(&mut self, range: ByteRange, held: Held) {
        // The image has it, and its payload may be gone.
        if held.holder.lsn <= self.floor {
            return;
        }
        self.fill(range.start);
        self.at = range.end;
        match self.pieces.last_mut() {
            Some((last, Some(same))) if *same == held && last.end == range.start => {
                last.end = range.end;
            }
            _ => self.pieces.push((range, Some(held))),
        }
    }

    fn push_within(&mut self, range: ByteRange, extent: &Extent<Slot>) {
        if let Some(range) = extent.range.intersect(&range) {
            self.push(range, held(extent));
        }
    }
}
