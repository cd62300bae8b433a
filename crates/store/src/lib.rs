//! Persistence of the control plane: what must survive a `kill -9` of the configuration server.
//!
//! One SQL text for SQLite (inside, the default) and, later, PostgreSQL. A change of a machine's
//! state, the event that tells it and the job that carries it on are written in one transaction,
//! each row by compare-and-set on its generation. What the rows' bodies mean is the configuration
//! server's affair; the schema is in
//! `docs/formats/database.md`.
//!
//! # Invariants
//! * A write is durable when [`Tx::commit`] returns (`synchronous=FULL`).
//! * Only the executor with the newest fencing number can write: [`Store::begin`] checks it in
//!   every transaction.
//! * A row that changed since it was read is never overwritten: [`StoreError::Conflict`].
//! * The highest epoch number of a machine only rises (trap T-17), also over disabling and
//!   protecting again.
//!
//! Start with [`Store::open`], then [`Tx`]. Not here: caching, and any meaning of the bodies.

mod alert;
mod authority;
mod error;
mod event;
mod job;
mod machine;
mod node;
mod order;
mod policy;
mod schema;
mod store;
#[cfg(feature = "testing")]
mod tripwire;
mod tx;

pub use alert::AlertRow;
pub use authority::AuthorityRow;
pub use error::StoreError;
pub use event::EventRow;
pub use job::{JobRow, StepRow};
pub use machine::MachineRow;
pub use node::NodeRow;
pub use order::OrderRow;
pub use policy::PolicyRow;
pub use store::{Store, StoreOptions};
#[cfg(feature = "testing")]
pub use tripwire::Tripwire;
pub use tx::Tx;
