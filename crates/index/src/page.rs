//! The pages of a run file. Little-endian; each page is checked before anything in it is believed.

use crate::piece::{CLASSES, Holder, Key, PayloadAt, Piece, class_bytes};
use crate::{CHUNK_BYTES, chunk_of};
use landfall_types::{DiskIndex, Lsn};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// One page of a run file.
pub type Page = [u8; PAGE_BYTES];

const HEADER_BYTES: usize = 16;
const LEAF_BYTES: usize = 48;
const FENCE_BYTES: usize = 24;
/// Pieces of a full leaf.
pub(crate) const LEAF_PIECES: usize = (PAGE_BYTES - HEADER_BYTES) / LEAF_BYTES;
/// Children of a full inner page.
pub(crate) const FENCES: usize = (PAGE_BYTES - HEADER_BYTES) / FENCE_BYTES;

const KIND_WRITE: u8 = 1;
const KIND_ZERO: u8 = 2;
const CATCH_UP: u8 = 0x80;

/// A page, or a whole run, is not what was written for this place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("page {page} of a run is damaged: {what}")]
pub struct Damaged {
    /// Number of the page in its file.
    pub page: u32,
    /// What does not fit.
    pub what: &'static str,
}

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum PageKind {
    Leaf = 1,
    Inner = 2,
    Footer = 3,
}

fn put<const N: usize>(page: &mut [u8], at: usize, bytes: [u8; N]) {
    page[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&page[at..at + N]);
    out
}

/// Reads a field of a page whose checksum fits.
pub(crate) fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(page, at))
}
pub(crate) fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(page, at))
}
fn u16_at(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(get(page, at))
}

/// The checksum counts the run's salt and the page's number as well: a page of another file, or of
/// another place, is damaged here.
fn checksum(page: &Page, salt: u64, number: u32) -> u32 {
    let seed = crc32c::crc32c(&salt.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &number.to_le_bytes());
    crc32c::crc32c_append(seed, &page[4..])
}

/// Completes a page.
pub(crate) fn seal(page: &mut Page, kind: PageKind, count: usize, salt: u64, number: u32) {
    page[4] = kind as u8;
    put(page, 6, u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    let crc = checksum(page, salt, number);
    put(page, 0, crc.to_le_bytes());
}

/// Checks a page, and says how much it holds.
pub(crate) fn check(page: &Page, kind: PageKind, salt: u64, number: u32) -> Result<usize, Damaged> {
    let damaged = |what| Err(Damaged { page: number, what });
    if u32_at(page, 0) != checksum(page, salt, number) {
        return damaged("its checksum");
    }
    let count = usize::from(u16_at(page, 6));
    let most = match kind {
        PageKind::Leaf => LEAF_PIECES,
        PageKind::Inner => FENCES,
        PageKind::Footer => 0,
    };
    if page[4] != kind as u8 || count > most || (count == 0 && kind != PageKind::Footer) {
        return damaged("its kind or count");
    }
    Ok(count)
}

/// Puts a piece into a leaf.
pub(crate) fn put_piece(page: &mut Page, slot: usize, piece: &Piece) {
    let entry = &mut page[HEADER_BYTES + slot * LEAF_BYTES..][..LEAF_BYTES];
    put(entry, 0, piece.disk.0.to_le_bytes());
    entry[2] = piece.class;
    put(entry, 8, piece.start.to_le_bytes());
    put(entry, 16, piece.holder.lsn.get().to_le_bytes());
    put(entry, 24, piece.longer.to_le_bytes());
    if let Some(payload) = &piece.holder.payload {
        entry[3] = KIND_WRITE | if payload.catch_up { CATCH_UP } else { 0 };
        put(entry, 4, payload.record_length.to_le_bytes());
        put(entry, 28, payload.crc.to_le_bytes());
        put(entry, 32, payload.segment.to_le_bytes());
        put(entry, 40, payload.at.to_le_bytes());
        let skip = piece.start.saturating_sub(payload.record_start);
        put(entry, 44, u32::try_from(skip).unwrap_or(u32::MAX).to_le_bytes());
    } else {
        entry[3] = KIND_ZERO;
        let length = if piece.class == 0 { piece.end - piece.start } else { 0 };
        put(entry, 4, u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }
}

/// Where in its page a piece's key is, for comparisons without decoding the rest.
pub(crate) fn piece_key(page: &Page, slot: usize) -> Key {
    let entry = &page[HEADER_BYTES + slot * LEAF_BYTES..][..LEAF_BYTES];
    Key {
        disk: DiskIndex(u16_at(entry, 0)),
        class: entry[2],
        start: u64_at(entry, 8),
        lsn: Lsn::new(u64_at(entry, 16)),
    }
}

/// A piece of a leaf that was checked; `None` for what [`put_piece`] can't have made.
pub(crate) fn piece_at(page: &Page, slot: usize) -> Option<Piece> {
    let key = piece_key(page, slot);
    let entry = &page[HEADER_BYTES + slot * LEAF_BYTES..][..LEAF_BYTES];
    let length = u64::from(u32_at(entry, 4));
    let Key { disk, class, start, lsn } = key;
    if class > CLASSES {
        return None;
    }
    let payload = match entry[3] & !CATCH_UP {
        KIND_ZERO => None,
        KIND_WRITE => Some(PayloadAt {
            record_start: start.checked_sub(u32_at(entry, 44).into())?,
            record_length: u32_at(entry, 4),
            crc: u32_at(entry, 28),
            segment: u64_at(entry, 32),
            at: u32_at(entry, 40),
            catch_up: entry[3] & CATCH_UP != 0,
        }),
        _ => return None,
    };
    let end = match (class, &payload) {
        (0, None) => start.checked_add(length)?,
        // A piece of a write ends with its record, or with its chunk.
        (0, Some(p)) => {
            let chunk_end = chunk_of(start).saturating_add(CHUNK_BYTES);
            p.record_start.checked_add(length)?.min(chunk_end)
        }
        (class, _) => start.checked_add(class_bytes(class))?,
    };
    if end <= start {
        return None;
    }
    let longer = u32_at(entry, 24);
    Some(Piece { disk, class, start, end, holder: Holder { lsn, payload }, longer })
}

/// Puts a child into an inner page.
pub(crate) fn put_fence(page: &mut Page, slot: usize, first: &Key, child: u32) {
    let entry = &mut page[HEADER_BYTES + slot * FENCE_BYTES..][..FENCE_BYTES];
    put(entry, 0, first.disk.0.to_le_bytes());
    entry[2] = first.class;
    put(entry, 4, child.to_le_bytes());
    put(entry, 8, first.start.to_le_bytes());
    put(entry, 16, first.lsn.get().to_le_bytes());
}

/// A child of an inner page that was checked: its first key, and its number.
pub(crate) fn fence_at(page: &Page, slot: usize) -> (Key, u32) {
    let entry = &page[HEADER_BYTES + slot * FENCE_BYTES..][..FENCE_BYTES];
    let key = Key {
        disk: DiskIndex(u16_at(entry, 0)),
        class: entry[2],
        start: u64_at(entry, 8),
        lsn: Lsn::new(u64_at(entry, 16)),
    };
    (key, u32_at(entry, 4))
}

/// How much a page holds that was checked before.
pub(crate) fn check_count(page: &Page) -> usize {
    usize::from(u16_at(page, 6)).min(FENCES)
}
