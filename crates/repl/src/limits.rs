//! The bounds of a session: every buffer, batch, list and wait has one, and both sides check it.

/// Most bytes (headers and payloads, uncompressed) of one batch. Senders aim at
/// [`BATCH_BYTES_TARGET`]; the rest is room for the last record, which may be as large as
/// [`landfall_types::PAYLOAD_BYTES_MAX`].
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a sender asks its source for at once: large enough to hide a flush per batch, small enough
/// to share a link.
pub const BATCH_BYTES_TARGET: usize = 1024 * 1024;
/// Most records of one batch: as many as fit when all are discards (32 bytes each).
pub const BATCH_RECORDS_MAX: usize = BATCH_BYTES_MAX / landfall_types::HEADER_BYTES;
/// Most bytes of one piece of a first copy that carries data.
pub const IMAGE_DATA_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a disk that one piece of zeroes covers.
pub const IMAGE_ZERO_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most hashes in one reply: 256 KiB of them.
pub const HASHES_MAX: usize = 16 * 1024;
/// Smallest block that is hashed: a sector.
pub const HASH_BLOCK_BYTES_MIN: u32 = 512;
/// Hash requests that may be unanswered at once.
pub const HASH_REQUESTS_MAX: u64 = 64;
/// Bytes that a receiver lets be under way before it has appended them: 1 Gbit/s over 130 ms.
pub const LOG_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of a first copy that may be unanswered at once.
pub const IMAGE_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of records that a receiver is ready to remember for a session (see
/// [`crate::Welcome::history_bytes`]).
pub const HISTORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Most windows that a receiver names as open.
pub const OPEN_WINDOWS_MAX: usize = landfall_types::WINDOWS_OPEN_MAX;
/// Most ranges that a receiver asks for again at once; the next session asks for others.
pub const ROTTEN_RANGES_MAX: usize = 1024;
/// Most disks of one machine.
pub const DISKS_MAX: usize = 1024;
/// Most bytes of the text in a refusal; longer text is cut.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// After this many milliseconds without a word the sender asks whether the receiver is there.
pub const PING_INTERVAL_MS: u64 = 3_000;
/// After this many milliseconds without a word the other side counts as gone (a half-open
/// connection).
pub const SILENCE_MS_MAX: u64 = 15_000;
/// First wait before a new attempt to connect, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 100;
/// Longest wait before a new attempt to connect, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 15_000;
