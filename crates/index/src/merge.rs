use crate::piece::Piece;
use crate::resolve::Source;
use landfall_types::Lsn;

/// The pieces of several sources in order, as one run has them. Records up to `floor` are left out:
/// the image has them.
#[derive(Debug)]
pub struct Merge<S> {
    sources: Vec<Head<S>>,
    floor: Lsn,
}

#[derive(Debug)]
struct Head<S> {
    source: S,
    /// Number of the piece behind `piece`.
    next: u32,
    piece: Option<Piece>,
}

impl<S: Source> Merge<S> {
    /// Begins with the first piece of each.
    ///
    /// # Errors
    /// Whatever the sources end with.
    pub fn new(sources: impl IntoIterator<Item = S>, floor: Lsn) -> Result<Self, S::Error> {
        let heads = sources.into_iter().map(|source| Head { source, next: 0, piece: None });
        let mut merge = Self { sources: heads.collect(), floor };
        for at in 0..merge.sources.len() {
            merge.step(at)?;
        }
        Ok(merge)
    }

    fn step(&mut self, at: usize) -> Result<(), S::Error> {
        let head = &mut self.sources[at];
        head.piece = None;
        while head.next < head.source.pieces() {
            let piece = head.source.get(head.next)?;
            head.next += 1;
            if piece.holder.lsn > self.floor {
                head.piece = Some(piece);
                break;
            }
        }
        Ok(())
    }

    /// The next piece.
    ///
    /// # Errors
    /// Whatever the sources end with.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, S::Error> {
        let heads = self.sources.iter().enumerate();
        let least = heads
            .filter_map(|(at, head)| head.piece.map(|piece| (piece.key(), at)))
            .min_by_key(|(key, _)| *key);
        let Some((_, at)) = least else { return Ok(None) };
        let piece = self.sources[at].piece;
        self.step(at)?;
        Ok(piece)
    }
}
