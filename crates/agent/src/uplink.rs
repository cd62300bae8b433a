//! The connection to the next hop, as the agent uses it.

use crate::source::Source;
use landfall_repl::{HashReply, HashRequest, ImageData, Refusal};
use landfall_types::Lsn;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// An answer that comes later. The question is on its way, in its place among the others, when this is handed out.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// Carries one log to the next hop, over as many connections as it takes.
pub trait Uplink: Send + Sync + 'static {
    /// Puts a piece of a first copy into the image; answered when it is durable at the target.
    fn image(&self, piece: ImageData) -> Answer<()>;
    /// Asks for hashes of the newest content at the target.
    fn hash(&self, request: HashRequest) -> Answer<HashReply>;
    /// Ends when the link has given up for good, with the reason.
    fn ended(&self) -> Pin<Box<dyn Future<Output = Refusal> + Send>>;
    /// Newest LSN sent.
    fn sent(&self) -> Lsn;
    /// Why the last session ended, if it was refused.
    fn refusal(&self) -> Option<Refusal>;
    /// Stops; nothing is sent any more when this returns.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Makes uplinks.
pub trait Network: Send + Sync + 'static {
    /// Carries the log of `source` to `next_hop` (`host:port`) until stopped.
    fn connect(&self, next_hop: &str, source: Arc<Source>) -> Arc<dyn Uplink>;
}
