//! Whether and how hard to compress.

use crate::history::History;
use bytes::{Bytes, BytesMut};
use landfall_types::RecordHeader;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, SafeResult, get_error_name};

/// How records and image pieces are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Never: the link is faster than the processor.
    Off,
    /// zstd at level 1, frame by frame, where it saves at least an eighth.
    Fast,
    /// zstd at level 3, records against the history of the connection: bytes before processor time.
    Small,
    /// As [`Compression::Fast`] while the link keeps up, as [`Compression::Small`] while frames
    /// queue for it.
    #[default]
    Adaptive,
}

/// Frames that found the link idle before an adaptive sender spends less on them.
const IDLE_FRAMES: u32 = 16;
/// Below this a frame costs more in calls than it could save.
const SQUEEZE_BYTES_MIN: usize = 256;
/// Most frames that go by untried after a miss.
const SQUEEZE_SKIP_MAX: u32 = 16;
/// zstd's window: the longest dictionary and batch together (2 × 4 MiB and a margin) fit.
const WINDOW_LOG: u32 = 24;

/// Decides frame by frame. Data that does not compress (archives, encrypted disks) comes in long
/// runs: after a miss some frames are not even tried, twice as many after each further miss.
#[derive(Debug, Default)]
pub(crate) struct Squeeze {
    compression: Compression,
    /// The link is the bottleneck; only asked where the setting is adaptive.
    queued: bool,
    idle: u32,
    skip: u32,
    misses: u32,
}

/// How one frame is to be compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Effort {
    pub(crate) level: i32,
    pub(crate) history: bool,
}

impl Squeeze {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }

    /// Takes note of how many bytes wait for the link before the next frame.
    pub(crate) const fn backlog(&mut self, bytes: usize) {
        if bytes > 0 {
            (self.queued, self.idle) = (true, 0);
        } else if self.queued {
            self.idle += 1;
            self.queued = self.idle < IDLE_FRAMES;
        }
    }

    /// Whether to try with a frame of so many bytes, and how hard.
    pub(crate) fn effort(&mut self, length: usize) -> Option<Effort> {
        const FAST: Effort = Effort { level: 1, history: false };
        const SMALL: Effort = Effort { level: 3, history: true };
        let effort = match (self.compression, self.queued) {
            (Compression::Off, _) => return None,
            (Compression::Fast, _) | (Compression::Adaptive, false) => FAST,
            (Compression::Small, _) | (Compression::Adaptive, true) => SMALL,
        };
        if length < SQUEEZE_BYTES_MIN {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(effort)
    }

    /// Keeps a result only where it is worth it, and remembers whether it was.
    pub(crate) fn judge(&mut self, length: usize, squeezed: Option<Bytes>) -> Option<Bytes> {
        let worth = squeezed.filter(|squeezed| squeezed.len() <= length / 8 * 7);
        if worth.is_some() {
            self.misses = 0;
        } else {
            self.skip = (1 << self.misses.min(8)).min(SQUEEZE_SKIP_MAX);
            self.misses += 1;
        }
        worth
    }

    /// The compressed form of what `whole` returns, where that is worth it.
    pub(crate) fn try_squeeze(
        &mut self,
        length: usize,
        whole: impl FnOnce() -> BytesMut,
    ) -> Option<Bytes> {
        let effort = self.effort(length)?;
        // An error of the compressor costs bandwidth, nothing else: the frame goes out as it is.
        let squeezed = zstd::bulk::compress(&whole(), effort.level).ok().map(Bytes::from);
        self.judge(length, squeezed)
    }
}

/// One zstd frame with checksum, compressed against what the history knows of these records.
pub(crate) fn against_history(
    history: &History,
    headers: &[RecordHeader],
    payloads: &[u8],
    level: i32,
) -> Option<Vec<u8>> {
    let prefix = history.prefix(headers, payloads.len());
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(payloads.len()));
    let mut context = CCtx::try_create()?;
    let mut compress = || -> SafeResult {
        context.set_parameter(CParameter::CompressionLevel(level))?;
        // Without a window of its own the frame's would reach back no further than its own length.
        context.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        // Were the two histories to differ, this shows it before any record is believed.
        context.set_parameter(CParameter::ChecksumFlag(true))?;
        context.ref_prefix(&prefix)?;
        context.compress2(&mut out, payloads)
    };
    // An error of the compressor costs bandwidth, nothing else: the frame goes out as it is.
    compress().ok()?;
    Some(out)
}

/// The inverse of [`against_history`].
///
/// # Errors
/// The name of zstd's error.
pub(crate) fn expand_against(
    history: &History,
    headers: &[RecordHeader],
    squeezed: &[u8],
    expanded: usize,
) -> Result<Vec<u8>, &'static str> {
    let prefix = history.prefix(headers, expanded);
    let mut out = Vec::with_capacity(expanded);
    let mut context = DCtx::try_create().ok_or("no memory")?;
    context.ref_prefix(&prefix).map_err(get_error_name)?;
    context.decompress(&mut out, squeezed).map_err(get_error_name)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(squeeze: &mut Squeeze, data: &[u8]) -> (bool, bool) {
        let mut tried = false;
        let result = squeeze.try_squeeze(data.len(), || {
            tried = true;
            BytesMut::from(data)
        });
        (tried, result.is_some())
    }

    #[test]
    fn what_does_not_compress_is_tried_less_and_less() {
        let mut noise = vec![0; 4096];
        landfall_testkit::Rng::new(1).fill(&mut noise);
        let mut squeeze = Squeeze::default();
        let tried: Vec<bool> = (0..60).map(|_| tries(&mut squeeze, &noise).0).collect();
        let at: Vec<usize> = (0..60).filter(|n| tried[*n]).collect();
        assert_eq!(at, [0, 2, 5, 10, 19, 36, 53]);
        // What compresses again is found again, and resets the count.
        while squeeze.skip > 0 {
            assert_eq!(tries(&mut squeeze, &[0; 4096]), (false, false));
        }
        assert_eq!(tries(&mut squeeze, &[0; 4096]), (true, true));
        assert_eq!(tries(&mut squeeze, &noise), (true, false));
        assert_eq!(squeeze.skip, 1);
    }

    #[test]
    fn small_frames_and_fast_links_are_left_alone() {
        assert_eq!(tries(&mut Squeeze::default(), &[0; SQUEEZE_BYTES_MIN - 1]), (false, false));
        assert_eq!(tries(&mut Squeeze::default(), &[0; SQUEEZE_BYTES_MIN]), (true, true));
        let mut off = Squeeze::new(Compression::Off);
        assert_eq!(tries(&mut off, &[0; 4096]), (false, false));
    }
}
