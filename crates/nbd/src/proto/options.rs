use super::constants::{OPTION_MAGIC, OPTION_REPLY_MAGIC};
use super::limits::{OPTION_REPLY_BYTES_MAX, QUERIES_MAX, STRING_BYTES_MAX};
use super::request::Violation;
use bytes::{Buf, BufMut};
use landfall_types::Class;

/// The fixed part of an option; `length` bytes of data follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHeader {
    /// `OPT_…`.
    pub option: u32,
    /// Bytes that follow, as the client claims.
    pub length: u32,
}

impl OptionHeader {
    /// Bytes of the encoded header.
    pub const BYTES: usize = 16;

    /// From the wire.
    ///
    /// # Errors
    /// [`Violation::OptionMagic`]: the stream is out of step.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, Violation> {
        let mut bytes = bytes.as_slice();
        let magic = bytes.get_u64();
        if magic != OPTION_MAGIC {
            return Err(Violation::OptionMagic(magic));
        }
        Ok(Self { option: bytes.get_u32(), length: bytes.get_u32() })
    }
}

/// Appends an option with its data.
///
/// # Panics
/// When the data are longer than 4 GiB; callers build them from bounded names.
pub fn put_option(out: &mut impl BufMut, option: u32, data: &[u8]) {
    out.put_u64(OPTION_MAGIC);
    out.put_u32(option);
    out.put_u32(u32::try_from(data.len()).expect("option data are built from bounded names"));
    out.put_slice(data);
}

/// Appends a reply to an option with its data.
///
/// # Panics
/// When the data are longer than 4 GiB; callers build them from bounded names.
pub fn put_option_reply(out: &mut impl BufMut, option: u32, reply: u32, data: &[u8]) {
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(reply);
    out.put_u32(u32::try_from(data.len()).expect("reply data are built from bounded names"));
    out.put_slice(data);
}

/// The fixed part of a reply to an option, as a client reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionReply {
    /// `REP_…`.
    pub reply: u32,
    /// Bytes that follow.
    pub length: u32,
}

impl OptionReply {
    /// Bytes of the encoded header.
    pub const BYTES: usize = 20;

    /// From the wire; `option` is what was asked.
    ///
    /// # Errors
    /// [`Violation`] for anything that no server may answer to `option`.
    pub fn decode(bytes: &[u8; Self::BYTES], option: u32) -> Result<Self, Violation> {
        let mut bytes = bytes.as_slice();
        let magic = bytes.get_u64();
        if magic != OPTION_REPLY_MAGIC {
            return Err(Violation::OptionReplyMagic(magic));
        }
        let found = bytes.get_u32();
        if found != option {
            return Err(Violation::OptionReplyTo { expected: option, found });
        }
        let decoded = Self { reply: bytes.get_u32(), length: bytes.get_u32() };
        if decoded.length > OPTION_REPLY_BYTES_MAX {
            return Err(Violation::TooLong(decoded.length));
        }
        Ok(decoded)
    }
}

/// Why the data of an option are refused; the negotiation goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionError {
    /// A length leads beyond the data, or some are left over.
    #[error("the option's lengths do not add up")]
    Lengths,
    /// A name or query is no UTF-8.
    #[error("a name is not UTF-8")]
    Utf8,
    /// A name or query is longer than [`STRING_BYTES_MAX`].
    #[error("a name is longer than {STRING_BYTES_MAX} bytes")]
    NameTooLong,
    /// More than [`QUERIES_MAX`] queries.
    #[error("more than {QUERIES_MAX} queries")]
    TooManyQueries,
}

impl OptionError {
    /// Asking the same again changes nothing.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Permanent
    }
}

/// Data of INFO and GO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfoRequest {
    /// The export.
    pub name: String,
    /// What the client wants to know (`INFO_…`), beyond what is always said.
    pub wanted: Vec<u16>,
}

impl InfoRequest {
    /// From an option's data.
    ///
    /// # Errors
    /// [`OptionError`] with what is wrong.
    pub fn decode(mut data: &[u8]) -> Result<Self, OptionError> {
        let name = take_string(&mut data)?;
        let count = data.try_get_u16().map_err(|_| OptionError::Lengths)?;
        if data.len() != usize::from(count) * 2 {
            return Err(OptionError::Lengths);
        }
        let wanted = data.chunks_exact(2).map(|raw| u16::from_be_bytes([raw[0], raw[1]])).collect();
        Ok(Self { name, wanted })
    }

    /// The inverse of [`InfoRequest::decode`].
    ///
    /// # Panics
    /// When the name is longer than 4 GiB or more than 65 535 infos are wanted.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(6 + self.name.len() + 2 * self.wanted.len());
        put_string(&mut out, &self.name);
        out.put_u16(u16::try_from(self.wanted.len()).expect("a handful of infos exist"));
        self.wanted.iter().for_each(|info| out.put_u16(*info));
        out
    }
}

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaContextRequest {
    /// The export.
    pub name: String,
    /// What is looked for.
    pub queries: Vec<String>,
}

impl MetaContextRequest {
    /// From an option's data.
    ///
    /// # Errors
    /// [`OptionError`] with what is wrong.
    pub fn decode(mut data: &[u8]) -> Result<Self, OptionError> {
        let name = take_string(&mut data)?;
        let count = data.try_get_u32().map_err(|_| OptionError::Lengths)?;
        if count > QUERIES_MAX {
            return Err(OptionError::TooManyQueries);
        }
        let queries = (0..count).map(|_| take_string(&mut data)).collect::<Result<Vec<_>, _>>()?;
        if !data.is_empty() {
            return Err(OptionError::Lengths);
        }
        Ok(Self { name, queries })
    }

    /// The inverse of [`MetaContextRequest::decode`].
    ///
    /// # Panics
    /// When a string is longer than 4 GiB or there are more queries than that.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.name);
        out.put_u32(u32::try_from(self.queries.len()).expect("a handful of queries"));
        self.queries.iter().for_each(|query| put_string(&mut out, query));
        out
    }
}

/// A length of 32 bits and that many bytes of UTF-8.
fn take_string(data: &mut &[u8]) -> Result<String, OptionError> {
    let claimed = data.try_get_u32().map_err(|_| OptionError::Lengths)?;
    let length = usize::try_from(claimed).map_err(|_| OptionError::Lengths)?;
    // Compared with what is there before anything is allocated: the length is the peer's claim.
    let (text, rest) = data.split_at_checked(length).ok_or(OptionError::Lengths)?;
    *data = rest;
    decode_name(text)
}

/// A name that fills the whole of `text` (EXPORT_NAME).
pub(crate) fn decode_name(text: &[u8]) -> Result<String, OptionError> {
    if text.len() > STRING_BYTES_MAX {
        return Err(OptionError::NameTooLong);
    }
    Ok(std::str::from_utf8(text).map_err(|_| OptionError::Utf8)?.to_owned())
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_u32(u32::try_from(text.len()).expect("names are bounded"));
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
