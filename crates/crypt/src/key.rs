//! Sealing: a batch of contents under a key of its own.

use crate::{KEY_BYTES, KeyError, Secret, Unauthentic};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use std::fmt;
use std::sync::Arc;

/// Random bytes that a batch's key is made of.
const SALT_BYTES: usize = 20;
/// Bytes before a sealed content: the batch's random bytes, and the number in it.
pub const SEAL_HEAD_BYTES: usize = SALT_BYTES + 4;
/// Bytes behind a sealed content: the tag of AES-256-GCM.
pub const SEAL_TAG_BYTES: usize = 16;
/// By how much a content grows when it is sealed.
pub const SEAL_BYTES: usize = SEAL_HEAD_BYTES + SEAL_TAG_BYTES;
/// Bytes of a [`DataKey::check`].
pub const KEY_CHECK_BYTES: usize = 16;

/// What HKDF expands for: keys of one use are no keys of another.
const BATCH_LABEL: &[u8] = b"landfall batch 1";
const CHECK_LABEL: &[u8] = b"landfall check 1";

/// A key that seals contents: a replica's data key, or a key-encryption key. Cheap to clone.
#[derive(Clone)]
pub struct DataKey {
    prk: Arc<hkdf::Prk>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        // Uniformly random already: no extraction is needed (RFC 5869, section 3.3).
        Self { prk: Arc::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret.expose())) }
    }

    /// Tells this key from others without telling anything about it; not zero.
    #[must_use]
    pub fn check(&self, context: &[u8]) -> [u8; KEY_CHECK_BYTES] {
        let mut out = [0; KEY_CHECK_BYTES];
        let info = [CHECK_LABEL, context];
        let okm = self.prk.expand(&info, CheckLength).expect("16 bytes are less than 255 hashes");
        okm.fill(&mut out).expect("the length is the one that was asked for");
        // Zero says "no key" in formats. One in 2^128.
        out[0] |= u8::from(out == [0; KEY_CHECK_BYTES]);
        out
    }

    /// Begins to seal: draws the batch's random bits.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn batch(&self) -> Result<Batch, KeyError> {
        let mut salt = [0; SALT_BYTES];
        // From the kernel each time: a generator of our own would go on from where it was when the
        // memory of a virtual machine is restored, and draw the same bits again. The kernel's is
        // told of that by the hypervisor (vmgenid).
        getrandom::fill(&mut salt).map_err(|_| KeyError::NoRandomness)?;
        Ok(self.batch_with(salt))
    }

    /// A batch whose bits are not random: to show that tests notice.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn batch_with_salt(&self, salt: u64) -> Batch {
        let mut bytes = [0; SALT_BYTES];
        bytes[..8].copy_from_slice(&salt.to_le_bytes());
        self.batch_with(bytes)
    }

    fn batch_with(&self, salt: [u8; SALT_BYTES]) -> Batch {
        Batch { key: self.batch_key(&salt), salt, next: 0 }
    }

    fn batch_key(&self, salt: &[u8]) -> LessSafeKey {
        let info = [BATCH_LABEL, salt];
        let okm = self.prk.expand(&info, &AES_256_GCM).expect("32 bytes are less than 255 hashes");
        LessSafeKey::new(UnboundKey::from(okm))
    }

    /// Opens what [`Batch::seal`] has made, in place, and returns the part of `sealed` that is the
    /// content.
    ///
    /// # Errors
    /// [`Unauthentic`] for anything that this key has not sealed with this `context`; `sealed`
    /// holds nothing of use then.
    pub fn open<'a>(
        &self,
        context: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unauthentic> {
        let (head, rest) = sealed.split_at_mut_checked(SEAL_HEAD_BYTES).ok_or(Unauthentic)?;
        let (key, nonce) = self.parts(head.first_chunk().ok_or(Unauthentic)?);
        key.open_in_place(nonce, Aad::from(context), rest).map_err(|_| Unauthentic)
    }

    /// Opens what [`Batch::seal_apart`] has made, in place.
    ///
    /// # Errors
    /// As [`DataKey::open`].
    pub fn open_apart(
        &self,
        context: &[u8],
        seal: &[u8; SEAL_BYTES],
        content: &mut [u8],
    ) -> Result<(), Unauthentic> {
        let (head, tag) = seal.split_at(SEAL_HEAD_BYTES);
        let (key, nonce) = self.parts(head.first_chunk().ok_or(Unauthentic)?);
        let opened = key.open_in_place_separate_tag(nonce, Aad::from(context), tag, content);
        opened.map(|_| ()).map_err(|_| Unauthentic)
    }

    fn parts(&self, head: &[u8; SEAL_HEAD_BYTES]) -> (LessSafeKey, Nonce) {
        let (salt, number) = head.split_at(SALT_BYTES);
        let number = number.try_into().map_or(0, u32::from_le_bytes);
        (self.batch_key(salt), nonce_of(number))
    }
}

/// For HKDF: the length of a check.
struct CheckLength;

impl hkdf::KeyType for CheckLength {
    fn len(&self) -> usize {
        KEY_CHECK_BYTES
    }
}

const _: () = assert!(KEY_BYTES == 32, "keys of AES-256");

/// Contents that are sealed at about the same time, under one key that is used for nothing else.
///
/// Not `Clone`, and written nowhere: a second one with the same key would need the same 160 random
/// bits. Within it the contents are numbered, and the number is the nonce.
pub struct Batch {
    key: LessSafeKey,
    salt: [u8; SALT_BYTES],
    next: u32,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Batch {
    /// Seals the content that stands in `place` between [`SEAL_HEAD_BYTES`] at its begin and
    /// [`SEAL_TAG_BYTES`] at its end, which this fills. It opens only with the same `context`.
    ///
    /// # Panics
    /// When `place` has no room for head and tag; after 2³² contents.
    pub fn seal(&mut self, context: &[u8], place: &mut [u8]) {
        let (head, rest) = place.split_at_mut(SEAL_HEAD_BYTES);
        let (content, tag) = rest.split_at_mut(rest.len() - SEAL_TAG_BYTES);
        let seal = self.seal_apart(context, content);
        head.copy_from_slice(&seal[..SEAL_HEAD_BYTES]);
        tag.copy_from_slice(&seal[SEAL_HEAD_BYTES..]);
    }

    /// Seals a content in place whose head and tag are kept elsewhere: returns both.
    ///
    /// # Panics
    /// After 2³² contents.
    pub fn seal_apart(&mut self, context: &[u8], content: &mut [u8]) -> [u8; SEAL_BYTES] {
        let number = self.next;
        self.next = number.checked_add(1).expect("a batch has some thousand contents");
        let mut seal = [0; SEAL_BYTES];
        let (head, tag) = seal.split_at_mut(SEAL_HEAD_BYTES);
        head[..SALT_BYTES].copy_from_slice(&self.salt);
        head[SALT_BYTES..].copy_from_slice(&number.to_le_bytes());
        #[cfg(any(test, feature = "testing"))]
        crate::nonces::note(head, context, content);
        let made = self
            .key
            .seal_in_place_separate_tag(nonce_of(number), Aad::from(context), content)
            .expect("a content is far shorter than the 64 GiB of AES-GCM");
        tag.copy_from_slice(made.as_ref());
        seal
    }

    /// [`Batch::seal`] of a copy.
    #[must_use]
    pub fn sealed(&mut self, context: &[u8], content: &[u8]) -> Vec<u8> {
        let mut place = vec![0; content.len() + SEAL_BYTES];
        place[SEAL_HEAD_BYTES..SEAL_HEAD_BYTES + content.len()].copy_from_slice(content);
        self.seal(context, &mut place);
        place
    }
}

fn nonce_of(number: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
