//! Sessions of the replication protocol: exactly once, in order, fenced by epochs, and without
//! input or output.
//!
//! A log has to cross two hops (agent → process server → master target) whose connections are cut,
//! whose processes die and whose disks get lost, and must arrive without a gap, a repetition or a
//! mixture. The [`Sender`] and the [`Receiver`] are state machines: `handle(now, input, effects)`;
//! `landfall-transport` gives them sockets, and the tests of this crate run them against an
//! adversarial network, thousands of histories a second.
//!
//! ```text
//!   LogSource ──► Sender ══ messages ══► Receiver ──► LogSink
//!    (agent, spool,  ▲   ◄═ acks, credit ═   │         (spool, replica)
//!     branch's log)  └── reconnects, resumes └── admits, orders, acknowledges
//! ```
//!
//! # Invariants
//! * A receiver accepts exactly the next LSN: lower is a duplicate and must have the same chain
//!   (trap T-1), higher ends the session.
//! * Histories (lineages) are compared before positions; a lower epoch is refused, at every hop,
//!   for ever.
//! * *Acknowledged* means durable at the hop that says so; a second watermark says what is durable
//!   at the master target.
//! * Every buffer is bounded, by credits in bytes; the bounds are in [`limits`].
//!
//! # Where to start [`LogSource`] and [`LogSink`] (what the machines connect), then [`Message`],
//! then [`Sender`] and [`Receiver`]. `tests/simulation.rs` runs three hops under faults.
//!
//! Deliberately absent: bytes (`landfall-wire`), sockets and clocks (`landfall-transport`), storage
//! (the sinks).

mod admission;
mod backoff;
pub mod limits;
mod message;
mod receiver;
mod relay;
mod resume;
mod seam;
mod sender;
#[cfg(test)]
mod testing;
mod ticks;

pub use admission::{Admission, Standing, admit, check_epoch, epoch_at};
pub use message::{
    Ack, Message, Open, PROTOCOL_HISTORY, PROTOCOL_MAX, PROTOCOL_MIN, RequestId, Welcome,
};
pub use receiver::{Receiver, ReceiverEffect, ReceiverInput, ReceiverOptions};
pub use relay::{Downstream, RelayStanding, SpoolView, Upstream, admit_upstream, follow_target};
pub use resume::{Mismatch, ProducerResume, ProducerView, follow_receiver};
pub use seam::{
    Batch, Durable, HashReply, HashRequest, ImageCopyPosition, ImageData, LogSink, LogSource,
    ReceiverPosition, Refusal, SessionToken, SourceIdentity,
};
pub use sender::{Answer, Ask, Sender, SenderEffect, SenderInput, SenderOptions, SenderPhase};
pub use ticks::Ticks;
