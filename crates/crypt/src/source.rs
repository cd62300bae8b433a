//! Where a key-encryption key is, and what is done with it.

mod command;
mod file;
mod keyring;

use crate::{DataKey, KEY_BYTES, KeyError, Secret};
use std::fmt;
use std::path::PathBuf;

/// A key-encryption key, by name. The name is kept beside what the key has wrapped; the key never
/// is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// `file:PATH`: a file with 32 bytes or 64 hexadecimal digits that only its owner can read.
    File(PathBuf),
    /// `keyring:DESCRIPTION`: a key of type `user` in a key ring of the kernel.
    Keyring(String),
    /// `command:PATH ARGUMENTS`: a program that wraps and unwraps (`docs/operate/keys.md`). Without
    /// a shell; arguments are split at spaces.
    Command(Vec<String>),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Keyring(description) => write!(f, "keyring:{description}"),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
        }
    }
}

impl std::str::FromStr for KeySource {
    type Err = KeyError;
    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::parse(name)
    }
}

impl KeySource {
    /// The key of this name. Paths are absolute: a name is kept, and is read by another process
    /// later.
    ///
    /// # Errors
    /// [`KeyError::BadName`].
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        let bad = || KeyError::BadName { name: name.to_owned() };
        let (kind, rest) = name.split_once(':').ok_or_else(bad)?;
        match kind {
            "file" if rest.starts_with('/') => Ok(Self::File(rest.into())),
            "keyring" if !rest.is_empty() && !rest.contains('\0') => {
                Ok(Self::Keyring(rest.to_owned()))
            }
            "command" if rest.starts_with('/') => {
                Ok(Self::Command(rest.split_ascii_whitespace().map(str::to_owned).collect()))
            }
            _ => Err(bad()),
        }
    }

    /// Wraps a data key.
    pub(crate) fn wrap(&self, context: &str, secret: &Secret) -> Result<Vec<u8>, KeyError> {
        if let Self::Command(words) = self {
            return command::wrap(&self.to_string(), words, context, secret);
        }
        let mut batch = DataKey::new(&self.load()?).batch()?;
        Ok(batch.sealed(&wrap_context(context), secret.expose()))
    }

    /// Unwraps a data key.
    pub(crate) fn unwrap(&self, context: &str, wrapped: &[u8]) -> Result<Secret, KeyError> {
        if let Self::Command(words) = self {
            return command::unwrap(&self.to_string(), words, context, wrapped);
        }
        let wrong = || KeyError::Wrong { name: self.to_string() };
        let mut sealed = zeroize::Zeroizing::new(wrapped.to_vec());
        let opened = DataKey::new(&self.load()?).open(&wrap_context(context), &mut sealed);
        let bytes = opened.map_err(|_| wrong())?;
        let bytes: &mut [u8; KEY_BYTES] = bytes.try_into().map_err(|_| wrong())?;
        Ok(Secret::take(bytes))
    }

    /// The key itself, where it can be had.
    fn load(&self) -> Result<Secret, KeyError> {
        let name = self.to_string();
        let bytes = match self {
            Self::File(path) => file::read(&name, path)?,
            Self::Keyring(description) => keyring::read(&name, description)?,
            Self::Command(_) => unreachable!("a command gives its key to nobody"),
        };
        Secret::parse(&bytes).ok_or(KeyError::Malformed { name })
    }
}

fn wrap_context(context: &str) -> Vec<u8> {
    [b"landfall data key 1 ", context.as_bytes()].concat()
}
