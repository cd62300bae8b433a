//! Blocks that a fold covers in part, and the checksums of what it writes.

use super::copy::Devices;
use super::plan::{Extent, Plan};
use crate::error::StorageError;
use crate::medium::AllSums;
use crate::sums::{BLOCK_BYTES, NewSums, Sum};
use landfall_blockdev::BlockDevice;
use landfall_types::{ByteRange, DiskIndex};

/// Checksums that are set at once.
const AT_ONCE: usize = 4_096;

/// Before the first block is overwritten: blocks that are covered in part lose their checksums,
/// durably, because there is a time when neither the old one nor the new one fits. A block that has
/// rotted gets one that never fits: what is not overwritten of it stays rotten. Not judged is where
/// an earlier fold was cut off: its blocks may hold anything.
pub(super) fn forget(
    plan: &Plan,
    devices: &Devices,
    all: &AllSums,
    judge: bool,
) -> Result<(), StorageError> {
    each(plan, devices, all, |device, block, known, covered| {
        // All of it is written, by neighbors: what it held counts for nothing.
        if known == Sum::UNKNOWN || !judge && known != Sum::ROTTEN || covered {
            return Ok(Sum::UNKNOWN);
        }
        if known == Sum::ROTTEN {
            return Ok(known);
        }
        let content = read_block(device, block)?;
        Ok(if known.fits(block, &content) { Sum::UNKNOWN } else { Sum::ROTTEN })
    })
}

/// After the last block was written: they get the ones of what they hold now.
pub(super) fn renew(plan: &Plan, devices: &Devices, all: &AllSums) -> Result<(), StorageError> {
    each(plan, devices, all, |device, block, known, _| {
        // Wholly covered by neighbors, or marked as rotten before.
        if known != Sum::UNKNOWN {
            return Ok(known);
        }
        Ok(Sum::of(block, &read_block(device, block)?))
    })
}

fn each(
    plan: &Plan,
    devices: &Devices,
    all: &AllSums,
    new: impl Fn(&dyn BlockDevice, u64, Sum, bool) -> Result<Sum, StorageError>,
) -> Result<(), StorageError> {
    let cut = plan.extents(None).flat_map(|extent| match extent {
        Ok(extent) => cut_blocks(extent).map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    let mut blocks = cut.peekable();
    while let Some(next) = blocks.peek() {
        let disk = match next {
            Ok((disk, ..)) => *disk,
            Err(_) => match blocks.next() {
                Some(Err(error)) => return Err(error),
                _ => continue,
            },
        };
        let (Some(device), Some(sums)) = (devices.get(&disk), all.get(&disk)) else {
            blocks.next();
            continue;
        };
        let mut batch = NewSums::new();
        while batch.len() < AT_ONCE
            && let Some(Ok((_, block, mut covered))) =
                blocks.next_if(|next| next.as_ref().is_ok_and(|(same, ..)| *same == disk))
        {
            // Extents come in order and do not overlap: those of one block come in a row.
            while let Some(Ok((.., more))) = blocks.next_if(|next| {
                next.as_ref().is_ok_and(|(same, other, _)| (*same, *other) == (disk, block))
            }) {
                covered += more;
            }
            let whole = device.size().saturating_sub(block * BLOCK_BYTES).min(BLOCK_BYTES);
            let known = sums.get(block)?;
            let renewed = new(&**device, block, known, covered >= whole)?;
            if renewed != known {
                batch.insert(block, renewed);
            }
        }
        if !batch.is_empty() {
            sums.set(&batch)?;
            sums.sync()?;
        }
    }
    Ok(())
}

/// The blocks at the ends of an extent that it covers in part, and how many bytes of each.
fn cut_blocks(extent: Extent) -> impl Iterator<Item = (DiskIndex, u64, u64)> {
    let Extent { disk, range: ByteRange { start, end }, .. } = extent;
    let first = (!start.is_multiple_of(BLOCK_BYTES)).then_some(start / BLOCK_BYTES);
    let last = (!end.is_multiple_of(BLOCK_BYTES)).then_some(end / BLOCK_BYTES);
    let last = last.filter(|last| first != Some(*last));
    first.into_iter().chain(last).map(move |block| {
        let (from, to) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        (disk, block, end.min(to) - start.max(from))
    })
}

fn read_block(device: &dyn BlockDevice, block: u64) -> Result<Vec<u8>, StorageError> {
    let start = block * BLOCK_BYTES;
    let length = device.size().saturating_sub(start).min(BLOCK_BYTES);
    let mut content = vec![0; usize::try_from(length).expect("at most a block")];
    device.read_at(start, &mut content).map_err(StorageError::device("read image"))?;
    Ok(content)
}

/// Checksums of the blocks that lie whole within what was written at `start`.
pub(super) fn whole(start: u64, content: &[u8], new: &mut NewSums) {
    let skip = start.next_multiple_of(BLOCK_BYTES) - start;
    let Some(content) = usize::try_from(skip).ok().and_then(|skip| content.get(skip..)) else {
        return;
    };
    let first = (start + skip) / BLOCK_BYTES;
    let size = usize::try_from(BLOCK_BYTES).expect("small");
    let blocks = (first..).zip(content.chunks_exact(size));
    new.extend(blocks.map(|(block, content)| (block, Sum::of(block, content))));
}

/// The same of zeroes.
pub(super) fn whole_zeroes(
    range: ByteRange,
    mut set: impl FnMut(&NewSums) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let blocks = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
    let mut new = NewSums::new();
    for block in blocks {
        new.insert(block, Sum::of(block, &[]));
        if new.len() == AT_ONCE {
            set(&new)?;
            new.clear();
        }
    }
    set(&new)
}
