//! The process server: receives logs, keeps them durably, and sends them on (RQ-PS-1).
//!
//! A machine must not wait for a slow line to the other site, and the line may be away for hours.
//! So a process server stands near the machine, acknowledges what it has on its own disk, and
//! delivers from there.
//!
//! ```text
//!  sender ══► ProcessServer (LogSink) ─► Route ─► spool (a journal on disk) ─► Route (LogSource) ══► next hop
//!                                          │ image pieces and hash requests pass through unspooled │
//! ```
//!
//! # Invariants
//! * Acknowledged means durable in the spool; what is *at the target* is said by the next hop only.
//! * A record is forgotten only when the next hop has it durable. What can't be delivered any more
//!   (another epoch was given authority) is set aside as divergence, readable, until an order
//!   discards it (trap T-14).
//! * A lower epoch is refused for ever, also after the spool was lost: which epoch that is stands
//!   beside the spool.
//! * The cache is bounded: from 20 % free on nothing more is taken, and the senders' credit runs
//!   out (RQ-PS-6).
//! * Without the configuration server everything goes on: routes are kept durably.
//!
//! # Where to start [`ProcessServer`], then `route.rs`; the decisions at both ends of a spool are
//! pure and stand in `landfall_repl` (`admit_upstream`, `follow_target`).

mod bandwidth;
mod cache;
mod error;
mod route;
mod server;
mod service;
mod store;

pub use bandwidth::Bandwidth;
pub use cache::{Cache, CacheHealth};
pub use error::RelayError;
pub use server::{ProcessServer, Settings};
pub use service::{ProcessServerConfig, ProcessServerError, run};
pub use store::{Divergence, RouteFile};
