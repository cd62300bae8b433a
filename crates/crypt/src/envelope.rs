use crate::{DataKey, KEY_CHECK_BYTES, KeyError, KeySource, Secret};
use serde::{Deserialize, Serialize};

/// Most bytes of a wrapped data key: what a KMS makes of 32 bytes is far shorter.
pub const WRAPPED_BYTES_MAX: usize = 8 << 10;

/// A data key as it is kept beside what it seals: wrapped by a key that is kept elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Name of the key-encryption key ([`KeySource`]).
    pub key: String,
    /// What that key has made of the data key.
    pub wrapped: Vec<u8>,
    /// [`DataKey::check`] of the data key: tells whether what a command unwrapped is it.
    pub check: [u8; KEY_CHECK_BYTES],
}

impl Envelope {
    /// A new data key, wrapped. `context` names what it is for (`replica-…`): the envelope of one
    /// replica opens no other one.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn create(source: &KeySource, context: &str) -> Result<(Self, DataKey), KeyError> {
        let secret = Secret::random()?;
        let envelope = Self::wrap(source, context, &secret)?;
        Ok((envelope, DataKey::new(&secret)))
    }

    fn wrap(source: &KeySource, context: &str, secret: &Secret) -> Result<Self, KeyError> {
        let key = source.to_string();
        let wrapped = source.wrap(context, secret)?;
        if wrapped.is_empty() || wrapped.len() > WRAPPED_BYTES_MAX {
            let what = format!("the wrapped key has {} bytes", wrapped.len());
            return Err(KeyError::Command { name: key, what });
        }
        let check = DataKey::new(secret).check(context.as_bytes());
        let envelope = Self { key, wrapped, check };
        // Before anything is sealed with it: a KMS that gives something else back would lose all.
        envelope.unwrap_secret(source, context)?;
        Ok(envelope)
    }

    /// The data key, with the key-encryption key that the envelope names.
    ///
    /// # Errors
    /// [`KeyError::Wrong`] for another key or context, [`KeyError`] where it can't be had.
    pub fn open(&self, context: &str) -> Result<DataKey, KeyError> {
        self.open_with(&KeySource::parse(&self.key)?, context)
    }

    /// The data key, with a key-encryption key from elsewhere (it was moved, or the volume is read
    /// on another machine).
    ///
    /// # Errors
    /// As [`Envelope::open`].
    pub fn open_with(&self, source: &KeySource, context: &str) -> Result<DataKey, KeyError> {
        Ok(DataKey::new(&self.unwrap_secret(source, context)?))
    }

    /// The same data key, wrapped by another key-encryption key.
    ///
    /// # Errors
    /// As [`Envelope::open`] for the old one (`from`), [`KeyError`] for the new one.
    pub fn rewrap(
        &self,
        from: &KeySource,
        to: &KeySource,
        context: &str,
    ) -> Result<Self, KeyError> {
        Self::wrap(to, context, &self.unwrap_secret(from, context)?)
    }

    fn unwrap_secret(&self, source: &KeySource, context: &str) -> Result<Secret, KeyError> {
        let secret = source.unwrap(context, &self.wrapped)?;
        if DataKey::new(&secret).check(context.as_bytes()) == self.check {
            return Ok(secret);
        }
        Err(KeyError::Wrong { name: source.to_string() })
    }
}
