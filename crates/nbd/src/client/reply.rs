use super::connection::Wanted;
use crate::proto::constants::{
    REPLY_TYPE_BLOCK_STATUS, REPLY_TYPE_ERROR_BIT, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA,
    REPLY_TYPE_OFFSET_HOLE,
};
use crate::proto::{
    Errno, Violation, decode_block_status, decode_error_chunk, decode_offset_data,
    decode_offset_hole,
};
use bytes::{Bytes, BytesMut};

/// What a request was answered with.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) data: Bytes,
    pub(super) extents: Vec<(u32, u32)>,
}

/// An error that the server answered with.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    pub(super) message: String,
}

/// The chunks of one structured reply, checked against what was asked.
#[derive(Debug)]
pub(super) struct Assembly {
    wanted: Wanted,
    pieces: Vec<(u64, Piece)>,
    extents: Option<Vec<(u32, u32)>>,
    failure: Option<Failure>,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Hole(u32),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Hole(length) => u64::from(*length),
        }
    }
}

impl Assembly {
    pub(super) const fn new(wanted: Wanted) -> Self {
        Self { wanted, pieces: Vec::new(), extents: None, failure: None }
    }

    pub(super) const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Takes one chunk.
    pub(super) fn add(&mut self, kind: u16, payload: Bytes) -> Result<(), Violation> {
        match kind {
            REPLY_TYPE_NONE if payload.is_empty() => Ok(()),
            REPLY_TYPE_OFFSET_DATA => {
                let (offset, data) = decode_offset_data(payload)?;
                self.add_piece(offset, Piece::Data(data))
            }
            REPLY_TYPE_OFFSET_HOLE => {
                let (offset, length) = decode_offset_hole(&payload)?;
                self.add_piece(offset, Piece::Hole(length))
            }
            REPLY_TYPE_BLOCK_STATUS if self.wanted == Wanted::Status && self.extents.is_none() => {
                self.extents = Some(decode_block_status(&payload)?.extents);
                Ok(())
            }
            kind if kind & REPLY_TYPE_ERROR_BIT != 0 => {
                let (errno, message) = decode_error_chunk(&payload)?;
                // The first error is the cause; later ones follow from it.
                self.failure.get_or_insert(Failure { errno, message });
                Ok(())
            }
            _ => Err(Violation::Malformed("kind of chunk")),
        }
    }

    fn add_piece(&mut self, offset: u64, piece: Piece) -> Result<(), Violation> {
        let Wanted::Data { offset: start, length, structured: true } = self.wanted else {
            return Err(Violation::Malformed("data chunk without a read"));
        };
        let end = offset.checked_add(piece.length());
        let inside = offset >= start && end.is_some_and(|end| end - start <= length.into());
        // Servers cut at 512 bytes or more; without a bound a server could make us hold a list of
        // single bytes.
        let pieces_max = length as usize / 512 + 2;
        if !inside || piece.length() == 0 || self.pieces.len() >= pieces_max {
            return Err(Violation::Malformed("data chunk"));
        }
        self.pieces.push((offset, piece));
        Ok(())
    }

    /// The answer, once the last chunk has come.
    pub(super) fn finish(mut self) -> Result<Result<Answer, Failure>, Violation> {
        if let Some(failure) = self.failure {
            return Ok(Err(failure));
        }
        match self.wanted {
            Wanted::Nothing => Ok(Ok(Answer::default())),
            Wanted::Status => match self.extents {
                Some(extents) => Ok(Ok(Answer { extents, ..Answer::default() })),
                None => Err(Violation::Malformed("block status without extents")),
            },
            Wanted::Data { offset, length, .. } => {
                self.pieces.sort_by_key(|(offset, _)| *offset);
                let data = join(self.pieces, offset, length)?;
                Ok(Ok(Answer { data, ..Answer::default() }))
            }
        }
    }
}

/// Puts sorted pieces together; they must cover the range exactly once.
fn join(pieces: Vec<(u64, Piece)>, start: u64, length: u32) -> Result<Bytes, Violation> {
    let mut expected = start;
    for (offset, piece) in &pieces {
        if *offset != expected {
            return Err(Violation::Malformed("set of data chunks"));
        }
        expected += piece.length();
    }
    if expected - start != u64::from(length) {
        return Err(Violation::Malformed("set of data chunks"));
    }
    match <[_; 1]>::try_from(pieces) {
        // The usual case: nothing is copied.
        Ok([(_, Piece::Data(data))]) => Ok(data),
        Ok([(_, Piece::Hole(length))]) => Ok(BytesMut::zeroed(length as usize).freeze()),
        Err(pieces) => {
            let mut joined = BytesMut::with_capacity(length as usize);
            for (_, piece) in pieces {
                match piece {
                    Piece::Data(data) => joined.extend_from_slice(&data),
                    Piece::Hole(length) => joined.resize(joined.len() + length as usize, 0),
                }
            }
            Ok(joined.freeze())
        }
    }
}

#[cfg(feature = "testing")]
mod fuzz;

#[cfg(feature = "testing")]
pub(crate) use fuzz::fuzz_answer;
