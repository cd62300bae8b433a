use crate::build::Footer;
use crate::page::{self, Damaged, LEAF_PIECES, Page, PageKind};
use crate::piece::{Key, Piece};
use crate::resolve::Source;
use std::sync::Arc;

/// The pages of one run file, however they are read and kept. What it returns has been checked by
/// [`Run::check`] once.
pub trait Pages {
    /// What reading can end with.
    type Error: From<Damaged>;
    /// One page.
    ///
    /// # Errors
    /// Whatever reading can end with.
    fn page(&self, number: u32) -> Result<Arc<Page>, Self::Error>;
}

/// A run whose pages are read when they are needed.
#[derive(Clone, Copy, Debug)]
pub struct Run<P> {
    footer: Footer,
    pages: P,
}

impl<P: Pages> Run<P> {
    /// The run with this footer over its pages.
    pub const fn new(footer: Footer, pages: P) -> Self {
        Self { footer, pages }
    }

    /// What it is.
    pub const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Its pages.
    pub const fn pages(&self) -> &P {
        &self.pages
    }

    /// Checks a page that was read from the file, once, before it is kept.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn check(footer: &Footer, page: &Page, number: u32) -> Result<(), Damaged> {
        let leaves = footer.leaves();
        let kind = if number < leaves { PageKind::Leaf } else { PageKind::Inner };
        let count = page::check(page, kind, footer.identity.salt, number)?;
        let full = number + 1 < leaves || footer.pieces.is_multiple_of(LEAF_PIECES as u32);
        let fits = match kind {
            PageKind::Leaf if full => count == LEAF_PIECES,
            PageKind::Leaf => count == footer.pieces as usize % LEAF_PIECES,
            _ => true,
        };
        if fits { Ok(()) } else { Err(Damaged { page: number, what: "its count" }) }
    }

    fn leaf_count(&self, leaf: u32) -> usize {
        let first = leaf as usize * LEAF_PIECES;
        (self.footer.pieces as usize).saturating_sub(first).min(LEAF_PIECES)
    }

    /// The leaf that a key belongs into.
    fn leaf_of(&self, key: &Key) -> Result<u32, P::Error> {
        let mut number = self.footer.root;
        for _ in 0..self.footer.depth {
            let page = self.pages.page(number)?;
            let count = page::check_count(&page);
            let behind = partition(count, |slot| page::fence_at(&page, slot).0 <= *key);
            let child = page::fence_at(&page, behind.saturating_sub(1)).1;
            if child >= number {
                return Err(Damaged { page: number, what: "a child behind it" }.into());
            }
            number = child;
        }
        Ok(number)
    }
}

/// How many of the slots, from the first on, are `before`.
fn partition(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl<P: Pages> Source for Run<P> {
    type Error = P::Error;

    fn pieces(&self) -> u32 {
        self.footer.pieces
    }

    fn classes(&self) -> u64 {
        self.footer.classes
    }

    fn rank(&self, key: &Key) -> Result<u32, P::Error> {
        if self.footer.pieces == 0 {
            return Ok(0);
        }
        let leaf = self.leaf_of(key)?;
        let page = self.pages.page(leaf)?;
        let within = partition(self.leaf_count(leaf), |slot| page::piece_key(&page, slot) <= *key);
        // Below 2^32: no run has more pieces.
        Ok(leaf * LEAF_PIECES as u32 + u32::try_from(within).unwrap_or(0))
    }

    fn get(&self, number: u32) -> Result<Piece, P::Error> {
        let leaf = number / LEAF_PIECES as u32;
        let damaged = |what| Damaged { page: leaf, what };
        if number >= self.footer.pieces {
            return Err(damaged("a piece that it does not have").into());
        }
        let page = self.pages.page(leaf)?;
        let piece = page::piece_at(&page, number as usize % LEAF_PIECES);
        Ok(piece.ok_or(damaged("a piece that can't be"))?)
    }
}
