//! Carries the sessions of `landfall-repl` over TCP with mutual TLS 1.3.
//!
//! The state machines decide everything; what stands here connects, encrypts, writes, reads, waits,
//! and calls the source or the sink. One task owns one session; nothing of it is shared.
//!
//! ```text
//! SenderHandle ─commands─► sender task ══TLS══ receiver task ─► LogSink
//!      ▲ status               │ LogSource          ▲
//!      └──────────────────────┘                serve_receiver (accepts, authorizes)
//! ```
//!
//! # Invariants
//! * A sender reconnects by itself, with bounded back-off, until it is stopped or refused for good.
//! * Every queue is bounded: batches by the receiver's credit, pieces by the image window, frames
//!   that wait to be written by [`sender::OUTBOX_BYTES_MAX`] and [`receiver::OUTBOX_BYTES_MAX`].
//! * Sources and sinks must not block: work on disks goes to threads of their own.
//!
//! # Where to start
//! [`run_sender`] and [`serve_receiver`], then `sender/session.rs` and `receiver/session.rs`.

mod limit;
mod outbox;
mod rate;
pub mod receiver;
mod running;
pub mod sender;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;

pub use limit::Limiter;
pub use receiver::{Authorize, ReceiverConfig, serve_receiver};
pub use sender::{SenderConfig, SenderHandle, SenderStatus, run_sender};
pub use tls::ConnectError;
