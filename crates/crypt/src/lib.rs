//! Encryption at rest: sealed blobs of AES-256-GCM under a replica's data key, and the keys that
//! wrap data keys. Normative: `docs/formats/sealed.md`; why it is as it is: decision 0019.
//!
//! ```text
//!   key-encryption key          file, key ring of the kernel, or a command (KMS)
//!        │ wraps
//!   data key of a replica       random, in the replica's superblock, wrapped
//!        │ HKDF with 20 random bytes, drawn for each batch
//!   batch key                   seals a few contents, numbered from 0, and is forgotten
//! ```
//!
//! # Invariants
//! * No pair of key and nonce is used for two contents, whatever is restored, replayed or torn on
//!   the medium: a batch's key depends on bits that were drawn for it alone, and nothing that is
//!   read from a medium decides on a nonce.
//! * What was not sealed with this key, for this place, is refused ([`Unauthentic`]), never
//!   returned.
//! * Key bytes are wiped from memory when they are dropped, and no `Debug` shows them.
//!
//! # Where to start
//! [`DataKey`] and [`Batch`] in `key.rs`; [`KeySource`] in `source.rs`.
//!
//! # Deliberately absent
//! Passwords, and keys that are made of them. Freshness: an attacker who can write can put back an
//! older state of a whole file; see decision 0019.

mod envelope;
mod error;
mod key;
#[cfg(any(test, feature = "testing"))]
pub mod nonces;
mod secret;
mod source;

pub use envelope::{Envelope, WRAPPED_BYTES_MAX};
pub use error::{KeyError, Unauthentic};
pub use key::{Batch, DataKey, KEY_CHECK_BYTES, SEAL_BYTES, SEAL_HEAD_BYTES, SEAL_TAG_BYTES};
pub use secret::{KEY_BYTES, Secret};
pub use source::KeySource;
