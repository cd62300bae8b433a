use crate::page::{self, Damaged, FENCES, LEAF_PIECES, PAGE_BYTES, Page, PageKind};
use crate::piece::{Key, Piece};
use landfall_types::{LogId, Lsn};

const MAGIC: &[u8; 8] = b"LFINDEXR";
const VERSION: u32 = 1;

/// Which run a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunIdentity {
    /// The log.
    pub log: LogId,
    /// Random for each file: pages that another file has left are not taken for its own.
    pub salt: u64,
    /// It knows the records behind here …
    pub after: Lsn,
    /// … up to and including here.
    pub through: Lsn,
}

/// The last page of a run file: what the run is and where its tree begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footer {
    /// Which run.
    pub identity: RunIdentity,
    /// Pieces.
    pub pieces: u32,
    /// Bit `n`: there are pieces of class `n`.
    pub classes: u64,
    /// Bytes written by its records, catch-up data not counted, each write as often as it was made.
    pub written_bytes: u64,
    /// Number of the page at the top of the tree; a leaf when `depth` is 0.
    pub(crate) root: u32,
    pub(crate) depth: u32,
}

impl Footer {
    /// Pages that hold pieces: the first ones of the file.
    #[must_use]
    pub const fn leaves(&self) -> u32 {
        self.pieces.div_ceil(LEAF_PIECES as u32)
    }

    fn encode(&self, number: u32) -> Page {
        let mut page = [0; PAGE_BYTES];
        let mut at = 16;
        let mut put = |bytes: &[u8]| {
            page[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.depth.to_le_bytes());
        put(self.identity.log.as_bytes());
        put(&self.identity.salt.to_le_bytes());
        put(&self.identity.after.get().to_le_bytes());
        put(&self.identity.through.get().to_le_bytes());
        put(&self.pieces.to_le_bytes());
        put(&self.root.to_le_bytes());
        put(&self.classes.to_le_bytes());
        put(&self.written_bytes.to_le_bytes());
        page::seal(&mut page, PageKind::Footer, 0, self.identity.salt, number);
        page
    }

    /// Reads the last page of a file; `number` is that page's.
    ///
    /// # Errors
    /// [`Damaged`] for anything that [`RunBuilder::finish`] did not make for this place.
    pub fn decode(page: &Page, number: u32) -> Result<Self, Damaged> {
        let damaged = |what| Damaged { page: number, what };
        // The salt stands in the page itself; what else is in the file must have been written with
        // it.
        let salt = page::u64_at(page, 48);
        page::check(page, PageKind::Footer, salt, number)?;
        if &page[16..24] != MAGIC || page::u32_at(page, 24) != VERSION {
            return Err(damaged("its magic or version"));
        }
        let mut log = [0; 16];
        log.copy_from_slice(&page[32..48]);
        let footer = Self {
            depth: page::u32_at(page, 28),
            identity: RunIdentity {
                log: LogId::from_bytes(log),
                salt,
                after: Lsn::new(page::u64_at(page, 56)),
                through: Lsn::new(page::u64_at(page, 64)),
            },
            pieces: page::u32_at(page, 72),
            root: page::u32_at(page, 76),
            classes: page::u64_at(page, 80),
            written_bytes: page::u64_at(page, 88),
        };
        let fits = footer.identity.after < footer.identity.through
            && footer.depth <= 8
            && footer.leaves() <= number
            && (footer.pieces == 0 || footer.root < number);
        if fits { Ok(footer) } else { Err(damaged("its numbers")) }
    }
}

/// Makes a run file from pieces in order, page by page.
#[derive(Debug)]
pub struct RunBuilder {
    identity: RunIdentity,
    leaf: Box<Page>,
    in_leaf: usize,
    pieces: u32,
    classes: u64,
    /// The first key of each complete leaf.
    fences: Vec<Key>,
    leaf_first: Option<Key>,
    /// Pieces at the current start, each longer than the one behind it: number and end.
    longer: Vec<(u32, u64)>,
    last: Option<Key>,
}

impl RunBuilder {
    /// An empty run.
    #[must_use]
    pub fn new(identity: RunIdentity) -> Self {
        Self {
            identity,
            leaf: Box::new([0; PAGE_BYTES]),
            in_leaf: 0,
            pieces: 0,
            classes: 0,
            fences: Vec::new(),
            leaf_first: None,
            longer: Vec::new(),
            last: None,
        }
    }

    /// The next piece in order; complete pages are appended to `out`, the first one being page 0.
    ///
    /// # Errors
    /// [`Damaged`] when it does not follow the one before, or there are too many.
    pub fn push(&mut self, mut piece: Piece, out: &mut Vec<u8>) -> Result<(), Damaged> {
        let key = piece.key();
        if self.last.is_some_and(|last| last >= key) || self.pieces == Piece::NONE - 1 {
            return Err(Damaged { page: self.pages(), what: "pieces that are not in order" });
        }
        if !self.last.is_some_and(|last| piece.same_place(&last)) {
            self.longer.clear();
        }
        while self.longer.last().is_some_and(|(_, end)| *end <= piece.end) {
            self.longer.pop();
        }
        piece.longer = self.longer.last().map_or(Piece::NONE, |(number, _)| *number);
        self.longer.push((self.pieces, piece.end));
        self.last = Some(key);
        self.leaf_first.get_or_insert(key);
        page::put_piece(&mut self.leaf, self.in_leaf, &piece);
        self.in_leaf += 1;
        self.pieces += 1;
        self.classes |= 1 << piece.class;
        if self.in_leaf == LEAF_PIECES {
            self.end_leaf(out);
        }
        Ok(())
    }

    fn pages(&self) -> u32 {
        u32::try_from(self.fences.len()).unwrap_or(u32::MAX)
    }

    fn end_leaf(&mut self, out: &mut Vec<u8>) {
        let Some(first) = self.leaf_first.take() else { return };
        let number = self.pages();
        page::seal(&mut self.leaf, PageKind::Leaf, self.in_leaf, self.identity.salt, number);
        out.extend_from_slice(&*self.leaf);
        self.fences.push(first);
        self.leaf.fill(0);
        self.in_leaf = 0;
    }

    /// The rest of the file: the last leaf, the tree, and the footer.
    pub fn finish(mut self, written_bytes: u64, out: &mut Vec<u8>) -> Footer {
        self.end_leaf(out);
        let mut number = self.pages();
        let mut level: Vec<(Key, u32)> = (0..).zip(&self.fences).map(|(n, k)| (*k, n)).collect();
        let mut depth = 0;
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len().div_ceil(FENCES));
            for children in level.chunks(FENCES) {
                let mut page = [0; PAGE_BYTES];
                for (slot, (key, child)) in children.iter().enumerate() {
                    page::put_fence(&mut page, slot, key, *child);
                }
                let count = children.len();
                page::seal(&mut page, PageKind::Inner, count, self.identity.salt, number);
                out.extend_from_slice(&page);
                above.push((children[0].0, number));
                number += 1;
            }
            level = above;
            depth += 1;
        }
        let footer = Footer {
            identity: self.identity,
            pieces: self.pieces,
            classes: self.classes,
            written_bytes,
            root: level.first().map_or(0, |(_, page)| *page),
            depth,
        };
        out.extend_from_slice(&footer.encode(number));
        footer
    }
}
