use landfall_types::Class;
use std::io;

/// What was read was not sealed with this key for this place: rot, a wrong key, or someone's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not sealed with this key for this place")]
pub struct Unauthentic;

/// Why a key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not the name of a key.
    #[error(
        "{name:?} names no key: file:PATH, keyring:DESCRIPTION or command:PATH ARGUMENTS is wanted"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// The key is not there (now).
    #[error("the key {name} can't be had: {what}")]
    Missing {
        /// Its name.
        name: String,
        /// What was found.
        what: String,
    },
    /// Reading it failed.
    #[error("the key {name} can't be read")]
    Io {
        /// Its name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read the file: it is no secret.
    #[error("the key {name} is refused: its file has mode {mode:03o}, others may read it")]
    Exposed {
        /// Its name.
        name: String,
        /// The mode of its file.
        mode: u32,
    },
    /// Neither 32 bytes nor 64 hexadecimal digits.
    #[error("the key {name} is none: 32 bytes or 64 hexadecimal digits are wanted")]
    Malformed {
        /// Its name.
        name: String,
    },
    /// The command ended without an answer, or with one that is none.
    #[error("the command of the key {name} failed: {what}")]
    Command {
        /// Its name.
        name: String,
        /// What it said.
        what: String,
    },
    /// It is another key than the one that wrapped the data key.
    #[error("the key {name} is the wrong one: it has not wrapped this data key")]
    Wrong {
        /// Its name.
        name: String,
    },
    /// The system gave no random bits.
    #[error("the system gives no random bits")]
    NoRandomness,
}

impl KeyError {
    /// What it asks of whoever handles it. A key that is not there can come back.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Missing { .. } | Self::Io { .. } | Self::Command { .. } => Class::Transient,
            Self::BadName { .. }
            | Self::Exposed { .. }
            | Self::Malformed { .. }
            | Self::Wrong { .. }
            | Self::NoRandomness => Class::Permanent,
        }
    }

    /// True where it is certain that the key is another one, and not merely away.
    #[must_use]
    pub const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong { .. })
    }
}
