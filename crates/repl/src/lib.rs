//! Sessions of the replication protocol.

mod seam;

pub use seam::{
    Batch, Durable, HashReply, HashRequest, ImageCopyPosition, ImageData, LogSink, LogSource,
    ReceiverPosition, Refusal, SessionToken, SourceIdentity,
};
