//! Finds the blocks that differ by their hashes, coarse ones first.

use landfall_types::ByteRange;

/// Bytes per hash at each step. The first keeps the common case (all equal) cheap: 16 bytes per
/// MiB; the last is the size of the blocks that file systems write.
pub(crate) const BLOCK_BYTES: [u32; 3] = [1 << 20, 64 << 10, 4 << 10];

/// A block's hash as the protocol has it: the first 16 bytes of BLAKE3.
#[must_use]
pub(crate) fn hash(block: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(block).as_bytes()[..16]);
    out
}

/// The ranges of `data` (which begins at `offset` of the disk) whose hashes differ from `theirs`,
/// neighbors joined. A missing hash counts as different: sending too much is safe.
#[must_use]
pub(crate) fn differing(
    data: &[u8],
    offset: u64,
    block_bytes: u32,
    theirs: &[[u8; 16]],
) -> Vec<ByteRange> {
    let block = usize::try_from(block_bytes).expect("a block fits into memory");
    let mut found: Vec<ByteRange> = Vec::new();
    for (n, ours) in data.chunks(block).enumerate() {
        if theirs.get(n) == Some(&hash(ours)) {
            continue;
        }
        let start = offset + (n * block) as u64;
        let range = ByteRange { start, end: start + ours.len() as u64 };
        match found.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => found.push(range),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_are_joined_and_missing_hashes_differ() {
        let mut data = vec![7; 10_000];
        let theirs: Vec<_> = data.chunks(4096).map(hash).collect();
        assert_eq!(differing(&data, 512, 4096, &theirs), []);
        data[4096] = 8;
        let range = |start, end| ByteRange { start, end };
        assert_eq!(differing(&data, 512, 4096, &theirs), [range(4608, 8704)]);
        data[9000] = 8;
        assert_eq!(differing(&data, 512, 4096, &theirs), [range(4608, 10_512)]);
        assert_eq!(differing(&data, 0, 4096, &theirs[..1]), [range(4096, 10_000)]);
    }
}
