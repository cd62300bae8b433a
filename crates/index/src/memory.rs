use crate::piece::{Item, Key, Piece};
use crate::resolve::Source;
use std::convert::Infallible;

/// A run in memory: the records of a log's end, which no file has yet.
#[derive(Clone, Debug, Default)]
pub struct MemoryRun {
    pieces: Vec<Piece>,
    classes: u64,
}

impl MemoryRun {
    /// Sorts the pieces of some records, in any order.
    #[must_use]
    pub fn new<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut pieces: Vec<Piece> = items.into_iter().flat_map(Item::pieces).collect();
        pieces.sort_unstable_by_key(Piece::key);
        let mut classes = 0;
        let mut longer: Vec<(u32, u64)> = Vec::new();
        let mut before: Option<Key> = None;
        for (number, piece) in (0_u32..).zip(&mut pieces) {
            classes |= 1 << piece.class;
            if !before.is_some_and(|key| piece.same_place(&key)) {
                longer.clear();
            }
            while longer.last().is_some_and(|(_, end)| *end <= piece.end) {
                longer.pop();
            }
            piece.longer = longer.last().map_or(Piece::NONE, |(number, _)| *number);
            longer.push((number, piece.end));
            before = Some(piece.key());
        }
        Self { pieces, classes }
    }

    /// All pieces in order.
    #[must_use]
    pub fn all(&self) -> &[Piece] {
        &self.pieces
    }
}

impl Source for MemoryRun {
    type Error = Infallible;

    fn pieces(&self) -> u32 {
        u32::try_from(self.pieces.len()).unwrap_or(u32::MAX)
    }

    fn classes(&self) -> u64 {
        self.classes
    }

    fn rank(&self, key: &Key) -> Result<u32, Infallible> {
        let behind = self.pieces.partition_point(|piece| piece.key() <= *key);
        Ok(u32::try_from(behind).unwrap_or(u32::MAX))
    }

    fn get(&self, number: u32) -> Result<Piece, Infallible> {
        Ok(self.pieces[number as usize])
    }
}
