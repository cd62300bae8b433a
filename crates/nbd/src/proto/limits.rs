//! What one message may hold: everything that a peer can claim has a maximum here.

/// Most bytes that one READ asks for or one WRITE carries: what the protocol document names as
/// portable (section "Size constraints").
pub const PAYLOAD_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Most bytes of a name, a query or a message (protocol document, section "Conventions").
pub const STRING_BYTES_MAX: usize = 4096;
/// Most queries in one metadata option; one would do, clients send up to three.
pub const QUERIES_MAX: u32 = 64;
/// Most bytes of data of one option that are looked at: a name with one full query and many
/// information requests fits; a longer one is skipped and answered TOO_BIG.
pub const OPTION_BYTES_MAX: usize = 16 * 1024;
/// Most options in one negotiation: `nbdinfo --list` sends about three for each export.
pub const OPTIONS_MAX: u32 = 100_000;
/// Most exports that one LIST answers with.
pub const EXPORTS_LISTED_MAX: usize = 30_000;
/// Most extents in one block status chunk; the protocol document advises against more than 2^20.
pub const EXTENTS_MAX: usize = 1 << 16;
/// Most bytes of the disk that one block status looks at: with 4 KiB extents that are 2^18 of them,
/// 4 MiB of memory.
pub const STATUS_SPAN_BYTES_MAX: u32 = 1 << 30;
/// Largest unit that an export may ask its clients to use (protocol document, section "Size
/// constraints").
pub const BLOCK_BYTES_MAX: u32 = 64 * 1024;
/// Preferred size of requests: the page of the clients' caches.
pub const BLOCK_BYTES_PREFERRED: u32 = 4096;
/// Most bytes of a chunk that a client accepts: a full payload, its offset, or the extents that the
/// document allows.
pub const CHUNK_BYTES_MAX: u32 = PAYLOAD_BYTES_MAX + 8;
/// Most bytes of one reply to an option that a client accepts: a name, a description and their
/// lengths.
pub const OPTION_REPLY_BYTES_MAX: u32 = 64 * 1024;
