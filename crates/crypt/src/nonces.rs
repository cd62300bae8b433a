//! For tests: notes every pair of key and nonce that this process seals with, and panics when one
//! comes back for another content.
//!
//! The key of a batch depends on data key and random bits, and the random bits and the number stand
//! at the begin of what is sealed. So two blobs with equal heads and different contents are a
//! repeated nonce, or else the same bits were drawn twice for two keys, which is as bad a sign.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{LazyLock, Mutex, PoisonError};

static SEEN: LazyLock<Mutex<HashMap<Vec<u8>, u64>>> = LazyLock::new(Mutex::default);

/// Most that are remembered: a long run of seeds must not fill memory.
const SEEN_MAX: usize = 1 << 20;

/// Called by each sealing.
pub(crate) fn note(head: &[u8], context: &[u8], content: &[u8]) {
    let mut hasher = DefaultHasher::new();
    (context, content).hash(&mut hasher);
    let hash = hasher.finish();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() >= SEEN_MAX {
        seen.clear();
    }
    let before = seen.insert(head.to_vec(), hash);
    drop(seen);
    assert!(before.is_none_or(|before| before == hash), "a nonce was used for two contents");
}

/// How many are remembered.
#[must_use]
pub fn seen() -> usize {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).len()
}
