use super::constants::{
    CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE,
    CMD_WRITE_ZEROES, REQUEST_MAGIC,
};
use bytes::{Buf, BufMut};
use landfall_types::Class;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Bytes of the disk.
    Read,
    /// Bytes for the disk, which follow the request.
    Write,
    /// The end of the session.
    Disconnect,
    /// All answered writes durable.
    Flush,
    /// A range is given up.
    Trim,
    /// A range will be read soon.
    Cache,
    /// A range reads as zeroes.
    WriteZeroes,
    /// Extents of a range.
    BlockStatus,
    /// None of these: answered EINVAL.
    Unknown(u16),
}

impl Command {
    const fn from_code(code: u16) -> Self {
        match code {
            CMD_READ => Self::Read,
            CMD_WRITE => Self::Write,
            CMD_DISC => Self::Disconnect,
            CMD_FLUSH => Self::Flush,
            CMD_TRIM => Self::Trim,
            CMD_CACHE => Self::Cache,
            CMD_WRITE_ZEROES => Self::WriteZeroes,
            CMD_BLOCK_STATUS => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }

    const fn code(self) -> u16 {
        match self {
            Self::Read => CMD_READ,
            Self::Write => CMD_WRITE,
            Self::Disconnect => CMD_DISC,
            Self::Flush => CMD_FLUSH,
            Self::Trim => CMD_TRIM,
            Self::Cache => CMD_CACHE,
            Self::WriteZeroes => CMD_WRITE_ZEROES,
            Self::BlockStatus => CMD_BLOCK_STATUS,
            Self::Unknown(code) => code,
        }
    }
}

/// The fixed part of a request; [`Request::payload_bytes`] bytes follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// `CMD_FLAG_…` bits.
    pub flags: u16,
    /// What is asked for.
    pub command: Command,
    /// Chosen by the client, returned with the answer.
    pub cookie: u64,
    /// First byte on the disk.
    pub offset: u64,
    /// Bytes on the disk.
    pub length: u32,
}

impl Request {
    /// Bytes of the encoded request without its payload.
    pub const BYTES: usize = 28;

    /// Bytes that follow on the wire.
    #[must_use]
    pub const fn payload_bytes(&self) -> u32 {
        match self.command {
            Command::Write => self.length,
            Command::Read
            | Command::Disconnect
            | Command::Flush
            | Command::Trim
            | Command::Cache
            | Command::WriteZeroes
            | Command::BlockStatus
            | Command::Unknown(_) => 0,
        }
    }

    /// Appends the 28 bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u32(REQUEST_MAGIC);
        out.put_u16(self.flags);
        out.put_u16(self.command.code());
        out.put_u64(self.cookie);
        out.put_u64(self.offset);
        out.put_u32(self.length);
    }

    /// The inverse of [`Request::encode`].
    ///
    /// # Errors
    /// [`Violation::RequestMagic`]: the stream is out of step and can't be used any more.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, Violation> {
        let mut bytes = bytes.as_slice();
        let magic = bytes.get_u32();
        if magic != REQUEST_MAGIC {
            return Err(Violation::RequestMagic(magic));
        }
        Ok(Self {
            flags: bytes.get_u16(),
            command: Command::from_code(bytes.get_u16()),
            cookie: bytes.get_u64(),
            offset: bytes.get_u64(),
            length: bytes.get_u32(),
        })
    }
}

/// What a peer sent that ends the session: after it nothing on the stream can be trusted to be in
/// step.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// The peer is no NBD server.
    #[error("the server greets with {0:#018x} {1:#018x}, not as a newstyle NBD server")]
    Greeting(u64, u64),
    /// The server lacks fixed newstyle negotiation.
    #[error("the server does not know fixed newstyle negotiation (handshake flags {0:#06x})")]
    Oldstyle(u16),
    /// Flags that the server did not offer.
    #[error("the client set flags {0:#010x} that were not offered")]
    ClientFlags(u32),
    /// The bytes are no option.
    #[error("an option begins with {0:#018x}")]
    OptionMagic(u64),
    /// More than [`super::limits::OPTIONS_MAX`] options.
    #[error("the client sent more than {0} options")]
    TooManyOptions(u32),
    /// An export name that can't be served and can't be refused otherwise.
    #[error("EXPORT_NAME for an export that is not served")]
    ExportNameRefused,
    /// An export by name before TLS, which can't be refused otherwise.
    #[error("EXPORT_NAME before TLS, which is required here")]
    PlainText,
    /// The bytes are no reply to an option.
    #[error("a reply to an option begins with {0:#018x}")]
    OptionReplyMagic(u64),
    /// A reply to an option that was not asked.
    #[error("the reply is to option {found}, not {expected}")]
    OptionReplyTo {
        /// What was asked.
        expected: u32,
        /// What was answered.
        found: u32,
    },
    /// A reply or chunk that is longer than its kind allows.
    #[error("the server announces {0} bytes")]
    TooLong(u32),
    /// A reply or chunk that makes no sense.
    #[error("the server's {0} makes no sense")]
    Malformed(&'static str),
    /// The bytes are no request.
    #[error("a request begins with {0:#010x}")]
    RequestMagic(u32),
    /// The bytes are no reply.
    #[error("a reply begins with {0:#010x}")]
    ReplyMagic(u32),
    /// An answer to nothing that was asked.
    #[error("a reply has cookie {0}, which no request has")]
    Cookie(u64),
}

impl Violation {
    /// Trying again with the same peer changes nothing.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Permanent
    }
}
