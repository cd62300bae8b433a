//! What a commit is about to write in place, durable before it does.

use super::BLOCK;
use super::pages::PAGE_BYTES;
use landfall_blockdev::{AlignedBuf, DeviceError, File};
use landfall_crypt::{Batch, DataKey, SEAL_BYTES};

const MAGIC: &[u8; 8] = b"LFIMINTE";
/// Bytes of the head when it is open: magic, sequence, numbers of pages and blocks, hash.
const HEAD_BYTES: usize = 32 + 32;
/// Where the body begins: behind the sector of the head.
const BODY_AT: u64 = 4096;
/// Bytes of a page or block with its number.
const ITEM_BYTES: usize = 8 + PAGE_BYTES;
/// More items than any commit has.
const ITEMS_MAX: u64 = 1 << 16;

/// Pages and blocks, sealed, by their numbers.
pub(super) struct Intent {
    pub(super) sequence: u64,
    pub(super) pages: Vec<(u64, Vec<u8>)>,
    pub(super) blocks: Vec<(u64, Vec<u8>)>,
}

fn context(disk: u16) -> Vec<u8> {
    [&b"image intent"[..], &disk.to_le_bytes()].concat()
}

/// Durable when this returns.
pub(super) fn write(
    file: &dyn File,
    intent: &Intent,
    batch: &mut Batch,
    disk: u16,
) -> Result<(), DeviceError> {
    let count = intent.pages.len() + intent.blocks.len();
    let mut body = AlignedBuf::zeroed((count * ITEM_BYTES).next_multiple_of(PAGE_BYTES));
    for (item, (number, sealed)) in
        body.chunks_mut(ITEM_BYTES).zip(intent.pages.iter().chain(&intent.blocks))
    {
        item[..8].copy_from_slice(&number.to_le_bytes());
        item[8..].copy_from_slice(sealed);
    }
    let hash = blake3::hash(&body[..count * ITEM_BYTES]);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    for word in [intent.sequence, intent.pages.len() as u64, intent.blocks.len() as u64] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    head.extend_from_slice(hash.as_bytes());
    let mut sector = AlignedBuf::zeroed(usize::try_from(BODY_AT).expect("small"));
    sector[..HEAD_BYTES + SEAL_BYTES].copy_from_slice(&batch.sealed(&context(disk), &head));
    file.write_at(BODY_AT, &body)?;
    file.write_at(0, &sector)?;
    file.sync_data()
}

/// The intent that the file holds; `None` for one that was never whole: then nothing of it is in
/// place yet.
pub(super) fn read(
    file: &dyn File,
    key: &DataKey,
    disk: u16,
) -> Result<Option<Intent>, DeviceError> {
    let length = file.len()?;
    let mut head = vec![0; HEAD_BYTES + SEAL_BYTES];
    if length < BODY_AT {
        return Ok(None);
    }
    file.read_at(0, &mut head)?;
    let Ok(head) = key.open(&context(disk), &mut head) else { return Ok(None) };
    let word = |at: usize| head[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
    let (sequence, pages, blocks) = (word(8), word(16), word(24));
    if &head[..8] != MAGIC || pages > ITEMS_MAX || blocks > ITEMS_MAX {
        return Ok(None);
    }
    let bytes = usize::try_from(pages + blocks).unwrap_or(usize::MAX) * ITEM_BYTES;
    if length < BODY_AT + bytes as u64 {
        return Ok(None);
    }
    let mut body = vec![0; bytes];
    file.read_at(BODY_AT, &mut body)?;
    if blake3::hash(&body).as_bytes() != &head[32..] {
        return Ok(None);
    }
    let mut items = body.chunks(ITEM_BYTES).map(|item| {
        let number = item.first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
        (number, item[8..].to_vec())
    });
    let pages = items.by_ref().take(usize::try_from(pages).unwrap_or(0)).collect();
    Ok(Some(Intent { sequence, pages, blocks: items.collect() }))
}

const _: () = assert!(BLOCK == PAGE_BYTES, "pages and blocks are items of one length");
