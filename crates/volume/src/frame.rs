//! The frame around everything that this crate writes beside logs and images: magic, version,
//! sequence, length, checksum, body. Normative: `docs/formats/volume.md`.

/// Bytes before the body.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
/// Longest body: far above any real one (a lineage of 4096 epochs takes about 300 KiB), so that a
/// rotten length does not make us allocate.
pub(crate) const FRAME_BODY_BYTES_MAX: usize = 4 << 20;
/// Version of the bodies that we write.
pub(crate) const FRAME_VERSION: u16 = 1;

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Shorter than it says, or than any.
    #[error("it is cut off")]
    Short,
    /// Another kind of file.
    #[error("its first bytes are not ours")]
    Magic,
    /// The checksum does not fit.
    #[error("its checksum does not fit")]
    Checksum,
    /// Longer than any.
    #[error("it claims a body of {0} bytes")]
    TooLong(usize),
    /// Written by a later version.
    #[error("it has format version {0}, this version of Landfall knows {FRAME_VERSION}")]
    Version(u16),
}

/// Frames a body. Layout, little-endian: magic (8), version (2), zero (2), body length (4),
/// sequence (8), CRC-32C of all else (4), zero (4), body.
pub(crate) fn seal(magic: &[u8; 8], sequence: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("callers keep bodies below FRAME_BODY_BYTES_MAX");
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    out.extend_from_slice(magic);
    out.extend_from_slice(&FRAME_VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The inverse of [`seal`]: sequence and body. Bytes behind the frame (of a longer, earlier one)
/// are ignored.
pub(crate) fn unseal<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> Result<(u64, &'a [u8]), FrameError> {
    let header = bytes.get(..FRAME_HEADER_BYTES).ok_or(FrameError::Short)?;
    if &header[..8] != magic {
        return Err(FrameError::Magic);
    }
    let word = |at: usize| {
        let mut raw = [0; 4];
        raw.copy_from_slice(&header[at..at + 4]);
        u32::from_le_bytes(raw)
    };
    let length = usize::try_from(word(12)).map_err(|_| FrameError::TooLong(usize::MAX))?;
    if length > FRAME_BODY_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let frame = bytes.get(..FRAME_HEADER_BYTES + length).ok_or(FrameError::Short)?;
    let crc = crc32c::crc32c(&frame[..24]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &frame[28..]);
    if crc != word(24) {
        return Err(FrameError::Checksum);
    }
    // Only after the checksum: a rotten version field is rot, not a later version.
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != FRAME_VERSION {
        return Err(FrameError::Version(version));
    }
    let sequence = u64::from(word(16)) | (u64::from(word(20)) << 32);
    Ok((sequence, &frame[FRAME_HEADER_BYTES..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"LFTEST01";

    #[test]
    fn round_trip_with_bytes_behind() {
        let mut bytes = seal(MAGIC, 0x1_0000_0007, b"body");
        bytes.extend_from_slice(b"rest of an earlier frame");
        assert_eq!(unseal(MAGIC, &bytes), Ok((0x1_0000_0007, &b"body"[..])));
    }

    /// Guards P5: no flipped bit and no cut passes.
    #[test]
    fn every_flip_and_every_cut_is_seen() {
        let bytes = seal(MAGIC, 3, b"some body");
        for at in 0..bytes.len() {
            assert!(unseal(MAGIC, &bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(unseal(MAGIC, &flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}
