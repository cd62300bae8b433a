use crate::record::HEADER_BYTES;
use std::fmt;

/// The running hash of a log: equal chains at an LSN mean equal histories up to it (trap T-1).
///
/// `chain(n) = first 16 bytes of BLAKE3(chain(n-1) ‖ header(n))`; the header holds the payload's
/// CRC-32C.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Chain([u8; 16]);

impl Chain {
    /// The chain before the first record.
    pub const ROOT: Self = Self([0; 16]);

    /// From its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// Its 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The chain after a record with this encoded header.
    #[must_use]
    pub fn extend(self, header: &[u8; HEADER_BYTES]) -> Self {
        let mut input = [0; 16 + HEADER_BYTES];
        input[..16].copy_from_slice(&self.0);
        input[16..].copy_from_slice(header);
        let mut out = [0; 16];
        out.copy_from_slice(&blake3::hash(&input).as_bytes()[..16]);
        Self(out)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain:{self}")
    }
}
impl From<Chain> for String {
    fn from(chain: Chain) -> Self {
        chain.to_string()
    }
}
/// Text that is not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a chain is 32 hexadecimal digits, not {0:?}")]
pub struct ChainParseError(String);

impl TryFrom<String> for Chain {
    type Error = ChainParseError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match u128::from_str_radix(&text, 16) {
            Ok(raw) if text.len() == 32 => Ok(Self(raw.to_be_bytes())),
            _ => Err(ChainParseError(text)),
        }
    }
}
