//! Bytes of the replication protocol: a [`Message`](landfall_repl::Message) becomes a frame and a
//! frame a message.
//!
//! `landfall-repl` decides what is said; this crate only writes it down and reads it back. The
//! format is normative in `docs/formats/wire.md`; golden vectors are in `tests/golden/`.
//!
//! ```text
//!   stream  =  frame frame frame …
//!   frame   =  header (20 bytes, little-endian) · body
//!   body    =  CBOR with numbered fields, or binary for records and image pieces
//! ```
//!
//! # Invariants
//! * Decoding never panics and never allocates more than a named limit, whatever the bytes.
//! * A frame whose checksum is wrong is never looked into.
//! * Optional CBOR fields that a later version adds are skipped; unknown frame types, flags and
//!   codecs are refused.
//!
//! # Where to start
//! [`Encoder`] and [`Decoder`]; then `history.rs` (what both ends remember, so that a batch is
//! compressed against what its blocks held before).
//!
//! Deliberately absent: sockets (`landfall-transport`), the rules of a session (`landfall-repl`),
//! and the layout of a record header, which is the same on disk (`landfall-types`,
//! `docs/formats/records.md`).

mod batch;
mod body;
mod decoder;
mod encoder;
mod error;
mod frame;
mod history;
mod image;
mod refusal;
mod shape;
mod squeeze;

pub use decoder::Decoder;
pub use encoder::{EncodeError, Encoder};
pub use error::DecodeError;
pub use frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_VERSION, MAGIC};
pub use squeeze::Compression;
