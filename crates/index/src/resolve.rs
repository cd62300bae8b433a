use crate::extent::ExtentMap;
use crate::piece::{CHUNK_BYTES, Holder, Key, Piece, block_of};
use landfall_types::{ByteRange, DiskIndex, Lsn};

/// Versions of one start that are looked at one by one before they are searched.
const VERSIONS_NEAR: u32 = 8;

/// Sorted pieces, by number.
pub trait Source {
    /// What reading can end with.
    type Error;
    /// How many.
    fn pieces(&self) -> u32;
    /// Bit `n`: there are pieces of class `n`.
    fn classes(&self) -> u64;
    /// How many pieces have this key or a lower one.
    ///
    /// # Errors
    /// Whatever reading can end with.
    fn rank(&self, key: &Key) -> Result<u32, Self::Error>;
    /// The piece with a number below [`Source::pieces`].
    ///
    /// # Errors
    /// Whatever reading can end with.
    fn get(&self, number: u32) -> Result<Piece, Self::Error>;
}

/// The records of a source that count: those behind `after`, up to and including `through`.
#[derive(Clone, Copy, Debug)]
pub struct Layer<S, T> {
    /// Where they are.
    pub source: S,
    /// What tells them from those of other layers: their log.
    pub tag: T,
    /// From behind here …
    pub after: Lsn,
    /// … up to and including here.
    pub through: Lsn,
}

/// A stretch of a disk, and what holds it newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent<T> {
    /// Where.
    pub range: ByteRange,
    /// The record.
    pub holder: Holder,
    /// The tag of its layer.
    pub tag: T,
}

impl<S: Source, T: Copy> Layer<S, T> {
    fn counts(&self, lsn: Lsn) -> bool {
        self.after < lsn && lsn <= self.through
    }

    /// The newest piece that counts at exactly this place of a class that has one length only.
    pub(crate) fn block(&self, disk: DiskIndex, class: u8, start: u64) -> Found<S> {
        let key = Key { disk, class, start, lsn: self.through };
        let Some(number) = self.source.rank(&key)?.checked_sub(1) else { return Ok(None) };
        let piece = self.source.get(number)?;
        Ok((piece.same_place(&key) && self.counts(piece.holder.lsn)).then_some(piece))
    }

    /// The first piece of a class that begins at or behind `from`, whether or not it counts.
    pub(crate) fn next(&self, disk: DiskIndex, class: u8, from: u64) -> Found<S> {
        let number = self.source.rank(&Key { disk, class, start: from, lsn: Lsn::ZERO })?;
        if number >= self.source.pieces() {
            return Ok(None);
        }
        let piece = self.source.get(number)?;
        Ok((piece.disk == disk && piece.class == class).then_some(piece))
    }

    /// Classes of blocks that the source has.
    pub(crate) fn block_classes(&self) -> impl Iterator<Item = u8> + use<S, T> {
        let classes = self.source.classes();
        (1..=crate::piece::CLASSES).filter(move |class| classes & (1 << class) != 0)
    }

    /// Collects the pieces within a chunk that can be seen at `through`, of records newer than
    /// `floor`: for each start the newest, and older ones as far as they are longer.
    fn collect(
        &self,
        disk: DiskIndex,
        chunk: u64,
        floor: Lsn,
        out: &mut Vec<(Piece, T)>,
    ) -> Result<(), S::Error> {
        let floor = floor.max(self.after);
        if self.source.classes() & 1 == 0 || floor >= self.through {
            return Ok(());
        }
        let all = self.source.pieces();
        let piece_at = |number: u32| match number {
            number if number < all => self.source.get(number).map(Some),
            _ => Ok(None),
        };
        let first = Key { disk, class: 0, start: chunk, lsn: Lsn::ZERO };
        let mut number = self.source.rank(&first)?;
        let mut next = piece_at(number)?;
        while let Some(piece) = next {
            let inside =
                piece.disk == disk && piece.class == 0 && piece.start - chunk < CHUNK_BYTES;
            if !inside {
                return Ok(());
            }
            let place = piece.key();
            next = piece_at(number + 1)?;
            if !next.is_some_and(|next| next.same_place(&place)) {
                if floor < piece.holder.lsn && piece.holder.lsn <= self.through {
                    out.push((piece, self.tag));
                }
                number += 1;
                continue;
            }
            // A few versions are looked at one by one, which is cheaper than two searches.
            let mut newest = (piece.holder.lsn <= self.through).then_some(number);
            let mut end = number + 1;
            while let Some(version) = next.filter(|next| next.same_place(&place)) {
                if end - number > VERSIONS_NEAR {
                    let visible = self.source.rank(&Key { lsn: self.through, ..place })?;
                    // A number below `number` is of another start: no version is old enough.
                    newest = visible.checked_sub(1).filter(|at| *at >= number);
                    end = self.source.rank(&Key { lsn: Lsn::MAX, ..place })?.max(end);
                    next = piece_at(end)?;
                    break;
                }
                newest = if version.holder.lsn <= self.through { Some(end) } else { newest };
                end += 1;
                next = piece_at(end)?;
            }
            self.versions(newest, floor, out)?;
            number = end;
        }
        Ok(())
    }

    /// Collects the versions of one start that can be seen, from the newest of them on.
    fn versions(
        &self,
        newest: Option<u32>,
        floor: Lsn,
        out: &mut Vec<(Piece, T)>,
    ) -> Result<(), S::Error> {
        let mut at = newest;
        while let Some(found) = at {
            let piece = self.source.get(found)?;
            if piece.holder.lsn <= floor {
                break;
            }
            out.push((piece, self.tag));
            // Pointers lead back only, so that damage can't make a circle.
            at = Some(piece.longer).filter(|longer| *longer < found);
        }
        Ok(())
    }
}

type Found<S> = Result<Option<Piece>, <S as Source>::Error>;

/// What holds the bytes of a chunk newest, in order; what no layer holds is left out. `known` is
/// the answer up to and including `known_through`, from which this goes on; no layer but those
/// behind it is asked.
///
/// # Errors
/// Whatever the sources end with.
pub fn resolve<S: Source, T: Copy>(
    layers: &[Layer<S, T>],
    disk: DiskIndex,
    chunk: u64,
    known: &[Extent<T>],
    known_through: Lsn,
) -> Result<Vec<Extent<T>>, S::Error> {
    let asked = || layers.iter().filter(|layer| layer.through > known_through);
    let mut cover: Option<(Piece, T)> = None;
    for layer in asked() {
        for class in layer.block_classes() {
            let Some(piece) = layer.block(disk, class, block_of(chunk, class))? else { continue };
            let newest = cover.is_none_or(|(known, _)| known.holder.lsn < piece.holder.lsn);
            if piece.holder.lsn > known_through && newest {
                cover = Some((piece, layer.tag));
            }
        }
    }
    let floor = cover.map_or(known_through, |(piece, _)| piece.holder.lsn);
    let mut pieces = Vec::new();
    for layer in asked() {
        layer.collect(disk, chunk, floor, &mut pieces)?;
    }
    pieces.sort_unstable_by_key(|(piece, _)| piece.holder.lsn);
    let mut map = ExtentMap::default();
    match cover {
        Some((piece, tag)) => {
            let range = ByteRange { start: chunk, end: chunk.saturating_add(CHUNK_BYTES) };
            map.insert(range, (piece.holder, tag));
        }
        None => known.iter().for_each(|e| map.insert(e.range, (e.holder, e.tag))),
    }
    for (piece, tag) in pieces {
        map.insert(ByteRange { start: piece.start, end: piece.end }, (piece.holder, tag));
    }
    Ok(map.iter().map(|(range, (holder, tag))| Extent { range, holder, tag }).collect())
}
