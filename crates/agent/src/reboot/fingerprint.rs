//! Whether a disk was written while nobody watched: hashes of the places that a file system changes
//! whenever it is mounted for writing.
//!
//! | found in a partition, or on the whole disk | what changes there |
//! |---|---|
//! | ext2, ext3, ext4, clean | superblock: count and time of mounts, state |
//! | XFS | superblock: counts, and the log's position at each unmount |
//! | btrfs | superblock: generation of each commit |
//! | anything else | not known: its range is *unproven*, and counts as dirty |
//!
//! Gaps between partitions are unproven too. Not seen is somebody who writes into the data of a
//! file system past that file system.

use landfall_types::ByteRange;
use std::io;

use crate::ranges::RangeSet;

/// Hashed at both ends of a disk, and at the beginning of each volume.
const EDGE_BYTES: u64 = 1 << 20;

/// What a disk looked like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    /// Of size, partitions, and what was read.
    pub hash: String,
    /// What it does not cover.
    pub unproven: Vec<ByteRange>,
}

/// Takes the fingerprint of a disk of `size` bytes with these partitions; `read` reads from it.
///
/// # Errors
/// Those of `read`.
pub fn take(
    size: u64,
    partitions: &[ByteRange],
    mut read: impl FnMut(ByteRange) -> io::Result<Vec<u8>>,
) -> io::Result<Fingerprint> {
    let whole = ByteRange { start: 0, end: size };
    let mut unproven = RangeSet::of(whole);
    let mut hash = blake3::Hasher::new();
    hash.update(&size.to_le_bytes());
    let end = ByteRange { start: size.saturating_sub(EDGE_BYTES), end: size };
    let volumes = if partitions.is_empty() { &[whole][..] } else { partitions };
    let heads = volumes.iter().map(|one| (Some(*one), head(*one)));
    for (volume, place) in [(None, head(whole)), (None, end)].into_iter().chain(heads) {
        hash.update(&place.start.to_le_bytes());
        hash.update(&place.end.to_le_bytes());
        let content = read(place)?;
        hash.update(&content);
        unproven.remove(place);
        if let Some(volume) = volume.filter(|_| tells_of_writes(&content)) {
            hash.update(&volume.end.to_le_bytes());
            unproven.remove(volume);
        }
    }
    let hash = hash.finalize().to_hex().to_string();
    Ok(Fingerprint { hash, unproven: unproven.iter().collect() })
}

fn head(volume: ByteRange) -> ByteRange {
    ByteRange { start: volume.start, end: volume.end.min(volume.start + EDGE_BYTES) }
}

/// Whether the first bytes of a volume are of a file system that leaves a trace there whenever it
/// is mounted for writing, and that was left in good order.
fn tells_of_writes(head: &[u8]) -> bool {
    is_clean_ext(head) || head.starts_with(b"XFSB") || has(head, 0x1_0040, b"_BHRfS_M")
}

fn has(head: &[u8], at: usize, magic: &[u8]) -> bool {
    head.get(at..at + magic.len()) == Some(magic)
}

/// Superblock at 1024: `s_magic`, `s_state`, `s_feature_incompat` (Linux, fs/ext4/ext4.h).
fn is_clean_ext(head: &[u8]) -> bool {
    const VALID: u8 = 1;
    const ERRORS: u8 = 2;
    const RECOVER: u8 = 4;
    const JOURNAL_DEVICE: u8 = 8;
    let byte = |at: usize| head.get(1024 + at).copied().unwrap_or(0);
    has(head, 1024 + 0x38, &[0x53, 0xef])
        && byte(0x3a) & (VALID | ERRORS) == VALID
        && byte(0x60) & (RECOVER | JOURNAL_DEVICE) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    fn of(disk: &[u8], partitions: &[ByteRange]) -> Fingerprint {
        let at = |range: ByteRange| {
            let at = |byte: u64| usize::try_from(byte).expect("small");
            Ok(disk[at(range.start)..at(range.end)].to_vec())
        };
        take(disk.len() as u64, partitions, at).expect("memory can be read")
    }

    fn ext(disk: &mut [u8], at: usize) {
        disk[at + 1024 + 0x38] = 0x53;
        disk[at + 1024 + 0x39] = 0xef;
        disk[at + 1024 + 0x3a] = 1;
    }

    #[test]
    fn what_no_file_system_vouches_for_is_unproven() {
        let mut disk = vec![0; 16 << 20];
        let edges = [range(MIB, 15 * MIB)];
        assert_eq!(of(&disk, &[]).unproven, edges, "a raw disk");
        ext(&mut disk, 0);
        assert_eq!(of(&disk, &[]).unproven, [], "ext4 on the whole disk");
        ext(&mut disk, 2 << 20);
        let partitions = [range(2 * MIB, 8 * MIB), range(8 * MIB, 12 * MIB)];
        let found = of(&disk, &partitions).unproven;
        assert_eq!(found, [range(MIB, 2 * MIB), range(9 * MIB, 15 * MIB)]);
    }

    /// A file system that was not left in good order has a journal to be replayed.
    #[test]
    fn file_systems_that_need_recovery_prove_nothing() {
        for (at, value) in [(0x3a, 0), (0x3a, 3), (0x60, 4), (0x60, 8)] {
            let mut head = vec![0; 1 << 20];
            ext(&mut head, 0);
            assert!(tells_of_writes(&head));
            head[1024 + at] = value;
            assert!(!tells_of_writes(&head), "{at:#x} is {value}");
        }
        assert!(tells_of_writes(b"XFSB") && !tells_of_writes(b"") && !tells_of_writes(&[0; 4096]));
    }

    /// T-16: a mount for writing, another partition table, another size.
    #[test]
    fn t16_a_trace_of_a_write_is_another_fingerprint() {
        let mut disk = vec![0; 16 << 20];
        ext(&mut disk, 2 << 20);
        let partitions = [range(2 * MIB, 8 * MIB)];
        let before = of(&disk, &partitions);
        assert_eq!(of(&disk, &partitions), before);
        for at in [446, (2 << 20) + 1024 + 0x34, (16 << 20) - 1] {
            disk[at] ^= 1;
            assert_ne!(of(&disk, &partitions).hash, before.hash, "byte {at}");
            disk[at] ^= 1;
        }
        assert_ne!(of(&disk, &[range(2 * MIB, 9 * MIB)]).hash, before.hash);
        assert_ne!(of(&disk[..15 << 20], &partitions).hash, before.hash);
    }
}
