//! Carries one request out on an export, and checks what the export answers: wrong data is never
//! sent.

use crate::proto::errno::Effect as ErrnoEffect;
use crate::proto::{Errno, Operation};
use crate::{Export, ExportError, Extent};
use bytes::Bytes;

/// Bytes that are read at once only to be in memory.
const CACHED_AT_ONCE_BYTES: u32 = 1 << 20;

/// Whether an operation looks or stores; decides how some errors are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Effect(ErrnoEffect);

impl Effect {
    /// The number that answers a failure.
    pub(crate) fn errno(self, error: &ExportError) -> Errno {
        Errno::of(error, self.0)
    }
}

impl Operation {
    /// How its failures are told.
    pub(crate) const fn effect(self) -> Effect {
        Effect(match self {
            Self::Write { .. } | Self::Zero { .. } => ErrnoEffect::Stores,
            Self::Read { .. }
            | Self::Status { .. }
            | Self::Trim { .. }
            | Self::Cache { .. }
            | Self::Flush => ErrnoEffect::Looks,
        })
    }
}

/// What a client is told on success.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Data { offset: u64, length: u32, data: Bytes },
    Status(Vec<Extent>),
}

/// A request that has come to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) cookie: u64,
    pub(crate) effect: Effect,
    pub(crate) outcome: Result<Answer, ExportError>,
}

/// What an export answered that can't be right; told to the client as EIO.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("the export answered a read of {wanted} bytes with {found}")]
    ReadLength { wanted: u32, found: usize },
    #[error("the extents of {wanted} bytes cover {found}")]
    Extents { wanted: u64, found: u64 },
}

/// Runs an operation to its end.
pub(crate) async fn carry_out(
    export: &dyn Export,
    cookie: u64,
    operation: Operation,
    payload: Bytes,
) -> Finished {
    let outcome = match operation {
        Operation::Read { offset, length } => read(export, offset, length).await,
        Operation::Status { offset, length, extents_max } => {
            status(export, offset, length, extents_max).await
        }
        Operation::Write { offset, .. } => export.write(offset, payload).await.map(done),
        Operation::Zero { offset, length } => export.zero(offset, length.into()).await.map(done),
        Operation::Trim { offset, length } => export.trim(offset, length.into()).await.map(done),
        Operation::Cache { offset, length } => cache(export, offset, length).await.map(done),
        Operation::Flush => export.flush().await.map(done),
    };
    Finished { cookie, effect: operation.effect(), outcome }
}

const fn done((): ()) -> Answer {
    Answer::Done
}

async fn read(export: &dyn Export, offset: u64, length: u32) -> Result<Answer, ExportError> {
    let data = export.read(offset, length).await?;
    if data.len() != length as usize {
        // One byte too few would put the client's stream out of step and everything after it in the
        // wrong place.
        let wrong = Wrong::ReadLength { wanted: length, found: data.len() };
        return Err(ExportError::Io(Box::new(wrong)));
    }
    Ok(Answer::Data { offset, length, data })
}

/// Reads a range for the sake of whatever keeps it in memory afterwards.
async fn cache(export: &dyn Export, offset: u64, length: u32) -> Result<(), ExportError> {
    let end = offset + u64::from(length);
    let mut at = offset;
    while at < end {
        let piece = u32::try_from(end - at).unwrap_or(u32::MAX).min(CACHED_AT_ONCE_BYTES);
        export.read(at, piece).await?;
        at += u64::from(piece);
    }
    Ok(())
}

async fn status(
    export: &dyn Export,
    offset: u64,
    length: u32,
    extents_max: usize,
) -> Result<Answer, ExportError> {
    let wanted = u64::from(length);
    let extents = export.extents(offset, wanted).await?;
    let found = extents.iter().map(|extent| extent.length).fold(0, u64::saturating_add);
    if found != wanted {
        return Err(ExportError::Io(Box::new(Wrong::Extents { wanted, found })));
    }
    Ok(Answer::Status(merge(&extents, extents_max)))
}

/// Joins neighbors of the same state and keeps the first `extents_max`: an answer may cover less
/// than was asked.
fn merge(extents: &[Extent], extents_max: usize) -> Vec<Extent> {
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        if let Some(last) = merged.last_mut()
            && last.hole == extent.hole
        {
            last.length += extent.length;
        } else if merged.len() < extents_max {
            merged.push(*extent);
        } else {
            break;
        }
    }
    merged
}

#[cfg(test)]
mod tests;
