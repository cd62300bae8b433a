//! The NBD protocol as values: constants, limits, and the codec of every message, without input or
//! output.
//!
//! Source: the NBD protocol document (`doc/proto.md` of the NetworkBlockDevice project). All
//! integers are big-endian.

pub mod constants;
pub(crate) mod errno;
mod judge;
pub mod limits;
pub(crate) mod options;
mod reply;
mod request;

pub use errno::Errno;
pub use judge::{Facts, FactsError, Operation, Verdict, judge};
pub use options::{
    InfoRequest, MetaContextRequest, OptionError, OptionHeader, OptionReply, put_option,
    put_option_reply,
};
pub use reply::{
    BlockStatus, ReplyHeader, ReplyWriter, decode_block_status, decode_error_chunk,
    decode_offset_data, decode_offset_hole,
};
pub use request::{Command, Request, Violation};
