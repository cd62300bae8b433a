use crate::KeyError;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

/// A key's bytes: wiped when dropped, never shown.
pub struct Secret(Zeroizing<[u8; KEY_BYTES]>);

impl Secret {
    /// A new key from the kernel's generator.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// These bytes; the caller's copy is wiped.
    #[must_use]
    pub fn take(bytes: &mut [u8; KEY_BYTES]) -> Self {
        let secret = Self(Zeroizing::new(*bytes));
        bytes.zeroize();
        secret
    }

    /// A key as people keep it: 32 bytes as they are, or 64 hexadecimal digits with white space
    /// around them. `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Ok(mut bytes) = <[u8; KEY_BYTES]>::try_from(text) {
            return Some(Self::take(&mut bytes));
        }
        let digits = text.trim_ascii();
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit =
                |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The bytes, for whoever wraps them or makes a key of them.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
