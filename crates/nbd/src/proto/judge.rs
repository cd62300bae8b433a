use super::constants::{
    CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_REQ_ONE,
    FLAG_CAN_MULTI_CONN, FLAG_HAS_FLAGS, FLAG_READ_ONLY, FLAG_SEND_CACHE, FLAG_SEND_DF,
    FLAG_SEND_FAST_ZERO, FLAG_SEND_FLUSH, FLAG_SEND_FUA, FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES,
};
use super::limits::{BLOCK_BYTES_MAX, PAYLOAD_BYTES_MAX, STATUS_SPAN_BYTES_MAX};
use super::{Command, Errno, Request};
use crate::{Access, Export};
use landfall_types::Class;

/// What the protocol needs to know of an export; constant while a client has it open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Bytes of the disk.
    pub size: u64,
    /// Requests are multiples of this many bytes.
    pub block_bytes: u32,
    /// What clients may do.
    pub access: Access,
    /// Several connections by this name see one disk.
    pub multi_conn: bool,
}

/// An export that can't be served by the protocol: a defect of whoever made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FactsError {
    /// Not a power of two up to 64 KiB.
    #[error("{0} is no block size that NBD can serve")]
    BlockBytes(u32),
    /// Clients would not reach the last bytes.
    #[error("{size} bytes are not a multiple of the block size {block_bytes}")]
    Size {
        /// Bytes of the disk.
        size: u64,
        /// Bytes of its block.
        block_bytes: u32,
    },
}

impl FactsError {
    /// Always a defect of ours.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Bug
    }
}

impl Facts {
    /// Asks an export, and checks that the protocol can express the answers.
    ///
    /// # Errors
    /// [`FactsError`] with what the export said.
    pub fn of(export: &dyn Export) -> Result<Self, FactsError> {
        let facts = Self {
            size: export.size(),
            block_bytes: export.block_bytes(),
            access: export.access(),
            multi_conn: export.multi_conn(),
        };
        if !facts.block_bytes.is_power_of_two() || facts.block_bytes > BLOCK_BYTES_MAX {
            return Err(FactsError::BlockBytes(facts.block_bytes));
        }
        if !facts.size.is_multiple_of(facts.block_bytes.into()) {
            return Err(FactsError::Size { size: facts.size, block_bytes: facts.block_bytes });
        }
        Ok(facts)
    }

    /// The transmission flags; `structured` replies bring DF with them.
    #[must_use]
    pub fn transmission_flags(&self, structured: bool) -> u16 {
        let mut flags = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_SEND_CACHE;
        match self.access {
            Access::ReadOnly => flags |= FLAG_READ_ONLY,
            Access::ReadWrite => {
                flags |= FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO;
            }
        }
        if structured {
            flags |= FLAG_SEND_DF;
        }
        if self.multi_conn {
            flags |= FLAG_CAN_MULTI_CONN;
        }
        flags
    }
}

/// A request that was found in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes, at most [`PAYLOAD_BYTES_MAX`].
        length: u32,
    },
    /// Write the payload that follows.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes, at most [`PAYLOAD_BYTES_MAX`].
        length: u32,
    },
    /// Make it read as zeroes.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Give it up.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Read it, so that it lies in memory when it is asked for.
    Cache {
        /// First byte.
        offset: u64,
        /// Bytes, at most [`PAYLOAD_BYTES_MAX`]; may be fewer than were asked for.
        length: u32,
    },
    /// Make durable what was answered.
    Flush,
    /// Report extents.
    Status {
        /// First byte.
        offset: u64,
        /// Bytes to look at; may be fewer than were asked for.
        length: u32,
        /// Extents wanted at most.
        extents_max: usize,
    },
}

impl Operation {
    /// First byte and bytes of the disk; none for a flush.
    #[must_use]
    pub const fn range(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Read { offset, length }
            | Self::Write { offset, length }
            | Self::Zero { offset, length }
            | Self::Trim { offset, length }
            | Self::Cache { offset, length }
            | Self::Status { offset, length, .. } => Some((offset, length as u64)),
            Self::Flush => None,
        }
    }

    /// True when it changes the disk.
    #[must_use]
    pub const fn changes(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Zero { .. } | Self::Trim { .. })
    }
}

/// What to do with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Carry it out.
    Run(Operation),
    /// Skip its payload and answer with an error.
    Refuse(Errno, &'static str),
    /// Finish what is in flight and end.
    Disconnect,
}

/// What the negotiation allows beyond the facts of the export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Agreed {
    /// Structured replies were negotiated.
    pub(crate) structured: bool,
    /// `base:allocation` was selected for this export.
    pub(crate) allocation: bool,
}

/// Decides on a request from its header alone (protocol document, sections "Request types" and
/// "Error values").
///
/// A malformed request is answered with an error and harms nobody; only a broken frame ends a
/// session.
#[must_use]
pub fn judge(request: &Request, facts: &Facts, structured: bool, allocation: bool) -> Verdict {
    let agreed = Agreed { structured, allocation };
    let Request { offset, length, .. } = *request;
    let allowed = allowed_flags(request.command, agreed);
    if request.flags & !(allowed | CMD_FLAG_FUA) != 0 {
        return Verdict::Refuse(Errno::Invalid, "a flag does not belong to this command");
    }
    match request.command {
        Command::Disconnect => Verdict::Disconnect,
        Command::Flush if offset == 0 && length == 0 => Verdict::Run(Operation::Flush),
        Command::Flush => Verdict::Refuse(Errno::Invalid, "a flush has no range"),
        Command::Unknown(_) => Verdict::Refuse(Errno::Invalid, "the command is unknown"),
        Command::Read => judge_read(request, facts, agreed),
        Command::BlockStatus => judge_status(request, facts, agreed),
        Command::Cache => match check_range(request, facts, Errno::Invalid) {
            Some(refusal) => refusal,
            // Advice: that only the beginning of a long range is read is no failure.
            None => {
                Verdict::Run(Operation::Cache { offset, length: length.min(PAYLOAD_BYTES_MAX) })
            }
        },
        Command::Write | Command::WriteZeroes | Command::Trim => judge_change(request, facts),
    }
}

const fn allowed_flags(command: Command, agreed: Agreed) -> u16 {
    match command {
        Command::Read if agreed.structured => CMD_FLAG_DF,
        Command::WriteZeroes => CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
        Command::BlockStatus => CMD_FLAG_REQ_ONE,
        // Nothing is to be refused in a farewell.
        Command::Disconnect => u16::MAX,
        Command::Read
        | Command::Write
        | Command::Flush
        | Command::Trim
        | Command::Cache
        | Command::Unknown(_) => 0,
    }
}

fn judge_read(request: &Request, facts: &Facts, agreed: Agreed) -> Verdict {
    let Request { offset, length, .. } = *request;
    if length > PAYLOAD_BYTES_MAX {
        // EOVERFLOW is reserved for those who negotiated structured replies.
        let errno = if agreed.structured { Errno::Overflow } else { Errno::Invalid };
        return Verdict::Refuse(errno, "more than the largest payload");
    }
    match check_range(request, facts, Errno::Invalid) {
        Some(refusal) => refusal,
        None => Verdict::Run(Operation::Read { offset, length }),
    }
}

fn judge_status(request: &Request, facts: &Facts, agreed: Agreed) -> Verdict {
    if !agreed.allocation {
        return Verdict::Refuse(Errno::Invalid, "no metadata context was selected");
    }
    if let Some(refusal) = check_range(request, facts, Errno::Invalid) {
        return refusal;
    }
    let one = request.flags & CMD_FLAG_REQ_ONE != 0;
    Verdict::Run(Operation::Status {
        offset: request.offset,
        length: request.length.min(STATUS_SPAN_BYTES_MAX),
        extents_max: if one { 1 } else { super::limits::EXTENTS_MAX },
    })
}

fn judge_change(request: &Request, facts: &Facts) -> Verdict {
    let Request { offset, length, .. } = *request;
    if facts.access == Access::ReadOnly {
        return Verdict::Refuse(Errno::NotPermitted, "the export is read-only");
    }
    let trim = request.command == Command::Trim;
    let beyond = if trim { Errno::Invalid } else { Errno::NoSpace };
    if let Some(refusal) = check_range(request, facts, beyond) {
        return refusal;
    }
    match request.command {
        Command::Write if length > PAYLOAD_BYTES_MAX => {
            Verdict::Refuse(Errno::Invalid, "more than the largest payload")
        }
        Command::Write => Verdict::Run(Operation::Write { offset, length }),
        Command::Trim => Verdict::Run(Operation::Trim { offset, length }),
        // A record without a payload is always faster than the bytes, so FAST_ZERO never has to be
        // refused; NO_HOLE has nothing to promise in a log, where every later write needs new space
        // anyway.
        _ => Verdict::Run(Operation::Zero { offset, length }),
    }
}

fn check_range(request: &Request, facts: &Facts, beyond: Errno) -> Option<Verdict> {
    let Request { offset, length, .. } = *request;
    if length == 0 {
        return Some(Verdict::Refuse(Errno::Invalid, "an empty range"));
    }
    let inside = offset.checked_add(length.into()).is_some_and(|end| end <= facts.size);
    if !inside {
        return Some(Verdict::Refuse(beyond, "beyond the end of the disk"));
    }
    let block = u64::from(facts.block_bytes);
    if !offset.is_multiple_of(block) || !u64::from(length).is_multiple_of(block) {
        return Some(Verdict::Refuse(Errno::Invalid, "not a multiple of the block size"));
    }
    None
}

#[cfg(test)]
mod tests;
